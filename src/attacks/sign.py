"""Attacks that follow the gradient's sign, in one step or in several."""

from collections.abc import Collection
from typing import Unpack

from torch import Tensor

from src.attacks.iterate import Model, Settings, iterate
from src.attacks.schedule import Schedule
from src.utils.checks import check_number


def fgsm(
    model: Model, images: Tensor, labels: Tensor, eps: float | Tensor, **settings: Unpack[Settings]
) -> Tensor:
    """Move every pixel by `eps` in the direction that raises the loss.

    x_adv = clip(x + eps * sign(grad_x L(f(x), y)), 0, 1). One gradient serves every budget.
    With `targeted` and the least likely class as label it is the one-step least-likely-class
    method of Kurakin et al. 2017 (arXiv 1611.01236, equation 3).

    Arguments, result and errors are those of `iterate`, without those of its schedule.

    Reference:
        Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples (2015),
        arXiv 1412.6572, section 4. The clipping to the pixel range is common practice since.
    """
    _refuse_schedule("fgsm", settings)
    settings["steps"] = 1
    return iterate(model, images, labels, eps, **settings)


def rfgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    **settings: Unpack[Settings],
) -> Tensor:
    """Take a random sign step, then a gradient step with what is left of the budget.

    x' = x + a * sign(N(0, I)); x_adv = x' + (eps - a) * sign(grad L(f(x'), y)), a = eps / 2.

    Arguments, result and errors are those of `iterate`, of whose schedule there is `start_radius`
    alone: a / eps, 0.5 by default.

    Reference:
        Tramer et al.: Ensemble Adversarial Training (2018), arXiv 1705.07204, equation 7.

    Deviation: a is eps / 2 for every data set; the authors' code has 0.05 of 0.3 for MNIST.
    """
    _refuse_schedule("rfgsm", settings, but=["start_radius"])
    radius = settings.setdefault("start_radius", 0.5)
    check_number("attack.start_radius", radius, 0, 1, open_high=True)  # 1 leaves no step
    settings.update({"steps": 1, "random_start": "sign", "relative_step_size": 1 - radius})
    return iterate(model, images, labels, eps, **settings)


def bim(
    model: Model, images: Tensor, labels: Tensor, eps: float | Tensor, **settings: Unpack[Settings]
) -> Tensor:
    """Take several small sign steps, each projected back to the ball and to the pixel range.

    x_0 = x; x_{t+1} = clip(x_t + a * sign(grad L(f(x_t), y))) to [x - eps, x + eps] and [0, 1].
    With `targeted` and the least likely class as label it is the iterative least-likely-class
    method (equation 4 there).

    Arguments, result and errors are those of `iterate`.

    Reference:
        Kurakin, Goodfellow, Bengio: Adversarial Machine Learning at Scale (2017),
        arXiv 1611.01236, section 3.

    Deviation: 10 steps of eps / 10; the paper takes min(eps + 4, 1.25 eps) steps of 1/255.
    """
    return iterate(model, images, labels, eps, **settings)


def pgd(
    model: Model, images: Tensor, labels: Tensor, eps: float | Tensor, **settings: Unpack[Settings]
) -> Tensor:
    """Walk as `bim` does, from a random place in the ball, and keep the best of the restarts.

    x_0 = x + U(-eps, eps), for `norm=l2` uniform in that ball; a = 2.5 * eps / steps.

    Arguments, result and errors are those of `iterate`.

    Reference:
        Madry et al.: Towards Deep Learning Models Resistant to Adversarial Attacks (2018),
        arXiv 1706.06083, equation 1 and appendix B.

    Deviation: 10 steps of 2.5 eps / 10; the paper's appendix takes 100 of 2.5 eps / 100.
    """
    settings.setdefault("random_start", "uniform")
    if settings.get("step_size_255") is None and settings.get("relative_step_size") is None:
        settings["relative_step_size"] = min(1.0, 2.5 / max(1, settings.get("steps", 10)))
    return iterate(model, images, labels, eps, **settings)


def _refuse_schedule(attack: str, settings: Settings, but: Collection[str] = ()) -> None:
    """Refuse the keys of a schedule, with which an attack of one step would be another attack."""
    for key in Schedule.Keys.__annotations__:
        if key in settings and key not in but:
            raise ValueError(
                f"attack.{key} is no setting of {attack}, which takes one step; bim and pgd take "
                "several."
            )
