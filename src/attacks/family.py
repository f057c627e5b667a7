"""The published attacks: `ascend` with the settings of a paper.

Those with a transform or a gradient estimator take its fields too; its docstring gives its formula.
Where an attack is not the paper's, it says so.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from inspect import Parameter, Signature, signature
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from src.attacks.gradients import EnhancedMomentum, VarianceTuning
from src.attacks.iterate import ascend
from src.attacks.settings import Settings, Transform
from src.attacks.transforms import (
    Admix,
    BlockShuffle,
    DiverseInput,
    Scale,
    Spectrum,
    StructureInvariant,
)
from src.utils.checks import first_line

_STEPS = (
    *("steps", "step_size_255", "relative_step_size", "allow_overshoot"),
    *("random_start", "start_radius", "restarts"),
)


FOREIGN = {
    "alpha": "step_size_255, in 1/255, or relative_step_size, a share of the budget",
    "eps_iter": "step_size_255, in 1/255, or relative_step_size, a share of the budget",
    "rel_stepsize": "relative_step_size",
    "abs_stepsize": "step_size_255, in 1/255",
}
"""Keywords of other libraries, and their names here."""


class Attack:
    """`ascend` as a function whose keywords are the settings.

    Args:
        part: A class of transforms, put before those in `transforms`, or of gradient estimators;
            its arguments are keywords too.
        fixed: Settings that are no keywords.
        **defaults: Values of settings that differ from the defaults of `Settings`.
    """

    def __init__(
        self, part: Callable[..., Any] | None = None, fixed: Collection[str] = (), **defaults: Any
    ) -> None:
        own = signature(part).parameters if part else {}
        known = {
            name: parameter.replace(
                kind=Parameter.KEYWORD_ONLY, default=defaults.get(name, parameter.default)
            )
            for name, parameter in {**signature(Settings).parameters, **own}.items()
        }
        given = {k: v for k, v in signature(ascend).parameters.items() if k != "settings"}
        keywords = {k: v for k, v in known.items() if k not in fixed}
        self.part, self.own = part, tuple(own)
        self.defaults = {name: parameter.default for name, parameter in known.items()}
        self.__signature__ = Signature([*given.values(), *keywords.values()])

    def __call__(self, *given: Any, **keywords: Any) -> Tensor:
        """Return adversarial images; see `ascend` and `Settings`."""
        try:
            words = self.__signature__.bind(*given, **keywords).arguments
            settings = self.settings(words)
        except TypeError as error:
            hint = next((f" Here it is {FOREIGN[key]}." for key in keywords if key in FOREIGN), "")
            raise TypeError(f"{error}.{hint}") from error
        except ValidationError as error:
            raise ValueError(first_line(error)) from error
        return ascend(
            **{k: v for k, v in words.items() if k not in self.defaults}, settings=settings
        )

    def settings(self, words: Mapping[str, Any]) -> Settings:
        """Return the settings among some keywords, the others being the attack's own."""
        settings = {name: words.get(name, default) for name, default in self.defaults.items()}
        if self.part:
            part = self.part(**{name: settings.pop(name) for name in self.own})
            if isinstance(part, Transform):
                settings["transforms"] = (part, *(settings["transforms"] or ()))
            else:
                settings["estimator"] = part
        return Settings(**settings)


def takes_own_budgets(attack: Any) -> bool:
    """Tell whether an attack is of this family, which takes a budget for each image, (K, N)."""
    while isinstance(attack, partial):
        attack = attack.func
    return isinstance(attack, Attack)


iterate = Attack()
"""`ascend` with every setting of `Settings` as a keyword, and its defaults."""

fgsm = Attack(fixed=_STEPS, steps=1)
"""Fast gradient sign method: x_adv = clip(x + eps * sign(grad_x L(f(x), y)), 0, 1).

One gradient serves every budget. With `targeted` and the least likely class as label it is the
one-step least-likely-class method of Kurakin et al. 2017 (arXiv 1611.01236).

Reference:
    Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples (2015),
    arXiv 1412.6572. The clipping to the pixel range is common practice since.
"""

bim = iterate
"""Basic iterative method (I-FGSM): sign steps, each projected to the ball and the pixel range.

With `targeted` and the least likely class as label it is the iterative least-likely-class method
of the same paper.

Reference:
    Kurakin, Goodfellow, Bengio: Adversarial Machine Learning at Scale (2017),
    arXiv 1611.01236.

Deviation: 10 steps of eps / 10; the paper takes min(eps + 4, 1.25 eps) steps of 1/255.
"""

pgd = Attack(random_start="uniform", relative_step_size=0.25)
"""Projected gradient descent: `bim` from x + U(-eps, eps), and the best of the restarts.

For `norm=l2` the start is uniform in that ball.

Reference:
    Madry et al.: Towards Deep Learning Models Resistant to Adversarial Attacks (2018),
    arXiv 1706.06083.

Deviation: 10 steps of eps / 4; the paper takes 100 of eps / 40.
"""

rfgsm = Attack(
    fixed=["steps", "restarts"],
    steps=1,
    random_start="sign",
    start_radius=0.5,
    relative_step_size=0.5,
)
"""R+FGSM: a random sign step of half the budget, then a gradient step with what is left of it.

x' = x + a * sign(N(0, I)); x_adv = x' + (eps - a) * sign(grad L(f(x'), y)), with a / eps the
`start_radius` and 1 - a / eps the `relative_step_size`.

Reference:
    Tramer et al.: Ensemble Adversarial Training (2018), arXiv 1705.07204.

Deviation: a is eps / 2 for every data set; the authors' code has 0.05 of 0.3 for MNIST.
"""

mi_fgsm = Attack(decay=1.0)
"""Momentum: x_{t+1} = x_t + a * sign(m_t), m_t = mu * m_{t-1} + g_t / mean|g_t|.

Reference:
    Dong et al.: Boosting Adversarial Attacks with Momentum (2018), arXiv 1710.06081.
"""

ni_fgsm = Attack(decay=1.0, lookahead="momentum")
"""Nesterov: the gradient is taken where the momentum would lead, x_t + a * mu * m_{t-1}.

Reference:
    Lin et al.: Nesterov Accelerated Gradient and Scale Invariance (2020), arXiv 1908.06281.
"""

pi_fgsm = Attack(decay=1.0, lookahead="gradient")
"""Pre-gradient guided: the gradient is taken where the last one alone would lead.

That is x_t + a * g_{t-1} / mean|g_{t-1}|. Not the patch-wise attack, which is called PI-FGSM too.

Reference:
    Wang et al.: Boosting Adversarial Transferability through Enhanced Momentum (2021),
    arXiv 2103.10609.
"""

emi_fgsm = Attack(EnhancedMomentum, fixed=["estimator"], decay=1.0)
"""Enhanced momentum, of the same paper; see `EnhancedMomentum`."""

vmi_fgsm = Attack(VarianceTuning, fixed=["estimator"], decay=1.0)
"""Variance tuning with momentum (Wang and He 2021); see `VarianceTuning`."""

vni_fgsm = Attack(VarianceTuning, fixed=["estimator"], decay=1.0, lookahead="momentum")
"""Variance tuning with the look-ahead of `ni_fgsm`, of the same paper."""

di_fgsm = Attack(DiverseInput, decay=1.0)
"""Input diversity (Xie et al. 2019): images resized and padded at random; see `DiverseInput`.

Deviation: with momentum and steps of eps / 10; the authors' code has none, and steps of 1/255.
"""

ti_fgsm = Attack(decay=1.0, kernel_size=15)
"""Translation invariance: smoothed gradients, which approximates attacking shifted images.

Reference:
    Dong et al.: Evading Defenses to Transferable Adversarial Examples by Translation-Invariant
    Attacks (2019), arXiv 1904.02884.

Deviation: with momentum, which is the paper's TI-MI-FGSM; its TI-FGSM is a single step.
"""

si_ni_fgsm = Attack(Scale, decay=1.0, lookahead="momentum")
"""Scale invariance (Lin et al. 2020): darker copies of the image, and `ni_fgsm`; see `Scale`."""

admix_fgsm = Attack(Admix, decay=1.0)
"""Admix (Wang et al. 2021): darker copies with a part of other images; see `Admix`."""

ssa_fgsm = Attack(Spectrum, decay=1.0)
"""Spectrum simulation (Long et al. 2022): copies with another spectrum; see `Spectrum`.

Deviation: with momentum, which the authors' script leaves out.
"""

bsr_fgsm = Attack(BlockShuffle, decay=1.0)
"""Block shuffle and rotation (Wang et al. 2024); see `BlockShuffle`."""

sia_fgsm = Attack(StructureInvariant, decay=1.0)
"""Structure invariance (Wang, Zhang, Zhang 2023): every block changed; see `StructureInvariant`.

Deviation: with momentum, which the authors' script leaves out.
"""
