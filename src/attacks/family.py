"""The published attacks: `iterate` with the settings of a paper.

All take the arguments of `iterate` as keywords, with the defaults given here, and return and raise
what it does. Those that are made with a transform or with a gradient estimator take its fields too;
its docstring gives its formula. Where an attack is not the paper's, it says so.
"""

from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial
from inspect import Parameter, Signature, signature
from typing import Any

from torch import Tensor

from src.attacks.gradients import EnhancedMomentum, Estimator, VarianceTuning
from src.attacks.iterate import iterate
from src.attacks.objective import Transform
from src.attacks.schedule import Schedule
from src.attacks.transforms import (
    Admix,
    BlockShuffle,
    DiverseInput,
    Scale,
    Spectrum,
    StructureInvariant,
)
from src.utils.checks import check_number, check_whole_number

Settings = dict[str, Any]
SCHEDULE = frozenset(field.name for field in fields(Schedule))


class Adapted:
    """`iterate` under another signature, some of whose keywords are translated.

    Args:
        translate: All keywords, defaults included, to those of `iterate`.
        part: A class whose arguments are keywords too; None: there are no others.
        without: Keywords of `iterate` that the attack does not take.
        **defaults: Defaults that are not those of `iterate`.
    """

    def __init__(
        self,
        translate: Callable[[Settings], Settings],
        part: Callable[..., Any] | None = None,
        without: Collection[str] = (),
        **defaults: Any,
    ) -> None:
        taken = {k: v for k, v in signature(iterate).parameters.items() if k not in without}
        taken |= {key: taken[key].replace(default=value) for key, value in defaults.items()}
        own = signature(part).parameters.values() if part else ()
        keywords = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own]
        self.translate = translate
        self.__signature__ = Signature([*taken.values(), *keywords])

    def __call__(self, *given: Any, **settings: Any) -> Tensor:
        """Return adversarial images; see `iterate`."""
        bound = self.__signature__.bind(*given, **settings)
        bound.apply_defaults()
        return iterate(*bound.args, **self.translate(bound.kwargs))


def through(kind: Callable[..., Transform], **defaults: Any) -> Adapted:
    """Return the attack through a transform of this class, before those in `transforms`."""
    return Adapted(partial(_with_transform, kind), kind, **defaults)


def estimating(kind: Callable[..., Estimator], **defaults: Any) -> Adapted:
    """Return the attack with a gradient estimator of this class."""
    return Adapted(partial(_with_estimator, kind), kind, without=["estimator"], **defaults)


def takes_own_budgets(attack: Callable[..., Tensor]) -> bool:
    """Tell whether an attack is of this family, which takes a budget for each image, (K, N)."""
    while isinstance(attack, partial):
        attack = attack.func
    return attack is iterate or isinstance(attack, Adapted)


def _with_transform(kind: Callable[..., Transform], settings: Settings) -> Settings:
    own = {name: settings.pop(name) for name in signature(kind).parameters}
    return settings | {"transforms": (kind(**own), *(settings["transforms"] or ()))}


def _with_estimator(kind: Callable[..., Estimator], settings: Settings) -> Settings:
    own = {name: settings.pop(name) for name in signature(kind).parameters}
    return settings | {"estimator": kind(**own)}


def _one_step(settings: Settings) -> Settings:
    return settings | {"steps": 1}


def _random_sign_step(settings: Settings) -> Settings:
    radius = settings["start_radius"]
    check_number("attack.start_radius", radius, 0, 1, open_high=True)  # 1 leaves no step
    return settings | {"steps": 1, "random_start": "sign", "relative_step_size": 1 - radius}


def _long_steps(settings: Settings) -> Settings:
    if settings["step_size_255"] is None and settings["relative_step_size"] is None:
        check_whole_number("attack.steps", settings["steps"], 1)
        settings["relative_step_size"] = min(1.0, 2.5 / settings["steps"])
    return settings


fgsm = Adapted(_one_step, without=SCHEDULE)
"""Fast gradient sign method: x_adv = clip(x + eps * sign(grad_x L(f(x), y)), 0, 1).

One gradient serves every budget. With `targeted` and the least likely class as label it is the
one-step least-likely-class method of Kurakin et al. 2017 (arXiv 1611.01236, equation 3).

Reference:
    Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples (2015),
    arXiv 1412.6572, section 4. The clipping to the pixel range is common practice since.
"""

rfgsm = Adapted(_random_sign_step, without=SCHEDULE - {"start_radius"}, start_radius=0.5)
"""R+FGSM: a random sign step, then a gradient step with what is left of the budget.

x' = x + a * sign(N(0, I)); x_adv = x' + (eps - a) * sign(grad L(f(x'), y)), with a / eps the
`start_radius`.

Reference:
    Tramer et al.: Ensemble Adversarial Training (2018), arXiv 1705.07204, equation 7.

Deviation: a is eps / 2 for every data set; the authors' code has 0.05 of 0.3 for MNIST.
"""

bim = partial(iterate)
"""Basic iterative method (I-FGSM): sign steps, each projected to the ball and the pixel range.

With `targeted` and the least likely class as label it is the iterative least-likely-class method
(equation 4 there).

Reference:
    Kurakin, Goodfellow, Bengio: Adversarial Machine Learning at Scale (2017),
    arXiv 1611.01236, section 3.

Deviation: 10 steps of eps / 10; the paper takes min(eps + 4, 1.25 eps) steps of 1/255.
"""

pgd = Adapted(_long_steps, random_start="uniform")
"""Projected gradient descent: `bim` from x + U(-eps, eps), and the best of the restarts.

For `norm=l2` the start is uniform in that ball. With neither step size given, a is
2.5 * eps / steps, and at most eps.

Reference:
    Madry et al.: Towards Deep Learning Models Resistant to Adversarial Attacks (2018),
    arXiv 1706.06083, equation 1 and appendix B.

Deviation: 10 steps of 2.5 eps / 10; the paper's appendix takes 100 of 2.5 eps / 100.
"""

mi_fgsm = partial(iterate, decay=1.0)
"""Momentum: x_{t+1} = x_t + a * sign(m_t), m_t = mu * m_{t-1} + g_t / mean|g_t|.

Reference:
    Dong et al.: Boosting Adversarial Attacks with Momentum (2018), arXiv 1710.06081, algorithm 1.
"""

ni_fgsm = partial(iterate, decay=1.0, lookahead="momentum")
"""Nesterov: the gradient is taken where the momentum would lead, x_t + a * mu * m_{t-1}.

Reference:
    Lin et al.: Nesterov Accelerated Gradient and Scale Invariance (2020), arXiv 1908.06281,
    equations 6 to 8.
"""

pi_fgsm = partial(iterate, decay=1.0, lookahead="gradient")
"""Pre-gradient guided: the gradient is taken where the last one alone would lead.

That is x_t + a * g_{t-1} / mean|g_{t-1}|. Not the patch-wise attack, which is called PI-FGSM too.

Reference:
    Wang et al.: Boosting Adversarial Transferability through Enhanced Momentum (2021),
    arXiv 2103.10609, section 3.2.
"""

emi_fgsm = estimating(EnhancedMomentum, decay=1.0)
"""Enhanced momentum, of the same paper; see `EnhancedMomentum`."""

vmi_fgsm = estimating(VarianceTuning, decay=1.0)
"""Variance tuning with momentum (Wang and He 2021); see `VarianceTuning`."""

vni_fgsm = estimating(VarianceTuning, decay=1.0, lookahead="momentum")
"""Variance tuning with the look-ahead of `ni_fgsm`, of the same paper."""

di_fgsm = through(DiverseInput, decay=1.0)
"""Input diversity (Xie et al. 2019): images resized and padded at random; see `DiverseInput`.

Deviation: with momentum and steps of eps / 10; the authors' code has none, and steps of 1/255.
"""

ti_fgsm = partial(iterate, decay=1.0, kernel_size=15)
"""Translation invariance: smoothed gradients, which approximates attacking shifted images.

Reference:
    Dong et al.: Evading Defenses to Transferable Adversarial Examples by Translation-Invariant
    Attacks (2019), arXiv 1904.02884.

Deviation: with momentum, which is the paper's TI-MI-FGSM; its TI-FGSM is a single step.
"""

si_ni_fgsm = through(Scale, decay=1.0, lookahead="momentum")
"""Scale invariance (Lin et al. 2020): darker copies of the image, and `ni_fgsm`; see `Scale`."""

admix_fgsm = through(Admix, decay=1.0)
"""Admix (Wang et al. 2021): darker copies with a part of other images; see `Admix`."""

ssa_fgsm = through(Spectrum, decay=1.0)
"""Spectrum simulation (Long et al. 2022): copies with another spectrum; see `Spectrum`.

Deviation: with momentum, which the authors' script leaves out.
"""

bsr_fgsm = through(BlockShuffle, decay=1.0)
"""Block shuffle and rotation (Wang et al. 2024); see `BlockShuffle`."""

sia_fgsm = through(StructureInvariant, decay=1.0)
"""Structure invariance (Wang, Zhang, Zhang 2023): every block changed; see `StructureInvariant`."""
