"""Attacks that steady the direction: momentum, looking ahead, and tuned variance."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor

from src.attacks.iterate import Model, Settings, Slope, State, iterate
from src.utils.checks import check_number, check_whole_number


def mi_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    **settings: Unpack[Settings],
) -> Tensor:
    """Walk along a decaying sum of the gradients so far.

    m_t = mu * m_{t-1} + g_t / mean|g_t|;  x_{t+1} = x_t + a * sign(m_t).

    Arguments, result and errors are those of `iterate`; `decay` is mu, 1 by default.

    Reference:
        Dong et al.: Boosting Adversarial Attacks with Momentum (2018), arXiv 1710.06081,
        algorithm 1.
    """
    settings.setdefault("decay", 1.0)
    return iterate(model, images, labels, eps, **settings)


def ni_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    **settings: Unpack[Settings],
) -> Tensor:
    """Take the gradient where the momentum is about to lead.

    g_t = grad L(f(x_t + a * mu * m_{t-1}), y), then as `mi_fgsm`.

    Arguments, result and errors are those of `iterate`; `decay` is mu, 1 by default.

    Reference:
        Lin et al.: Nesterov Accelerated Gradient and Scale Invariance (2020), arXiv 1908.06281,
        equations 6 to 8.
    """
    settings.setdefault("lookahead", "momentum")
    settings.setdefault("decay", 1.0)
    return iterate(model, images, labels, eps, **settings)


def pi_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    **settings: Unpack[Settings],
) -> Tensor:
    """Take the gradient where the last gradient alone would lead (pre-gradient guided).

    g_t = grad L(f(x_t + a * g_{t-1} / mean|g_{t-1}|), y), then as `mi_fgsm`. Not the patch-wise
    attack, which is called PI-FGSM too.

    Arguments, result and errors are those of `iterate`; `decay` is mu, 1 by default.

    Reference:
        Wang et al.: Boosting Adversarial Transferability through Enhanced Momentum (2021),
        arXiv 2103.10609, section 3.2.
    """
    settings.setdefault("lookahead", "gradient")
    settings.setdefault("decay", 1.0)
    return iterate(model, images, labels, eps, **settings)


def emi_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    samples: int = 11,
    radius: float = 7.0,
    **settings: Unpack[Settings],
) -> Tensor:
    """Average the gradients at several points along the direction of the last one.

    g_t = mean over i of grad L(f(x_t + c_i * a * g_{t-1} / mean|g_{t-1}|), y), the c_i evenly
    spaced in [-radius, radius], then as `mi_fgsm`. In the first step all points are one, and one
    gradient is taken.

    Arguments, result and errors are those of `iterate`; `decay` is mu, 1 by default.

    Reference:
        Wang et al.: Boosting Adversarial Transferability through Enhanced Momentum (2021),
        arXiv 2103.10609, equations 7 to 9, with linear sampling.
    """
    check_whole_number("attack.samples", samples, 2)
    check_number("attack.radius", radius, 0, 1000)
    factors = torch.linspace(-radius, radius, samples).tolist()
    settings.setdefault("rule", partial(_enhanced, factors=factors))
    settings.setdefault("decay", 1.0)
    return iterate(model, images, labels, eps, **settings)


def vmi_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    neighbours: int = 20,
    radius: float = 1.5,
    **settings: Unpack[Settings],
) -> Tensor:
    """Correct each gradient by how those around the last point differed from the one there.

    m_t = mu * m_{t-1} + (g_t + v_{t-1}) / mean|g_t + v_{t-1}|, with
    v_t = mean over i of grad L(f(x_t + r_i), y) - g_t,  r_i ~ U(-radius * eps, radius * eps).
    The last step's v is not used, and not computed.

    Arguments, result and errors are those of `iterate`; `decay` is mu, 1 by default, and
    `radius` beta. With `norm=l2` the neighbours are drawn from the same cube.

    Reference:
        Wang, He: Enhancing the Transferability of Adversarial Attacks through Variance Tuning
        (2021), arXiv 2103.15571, algorithm 1.
    """
    check_whole_number("attack.neighbours", neighbours, 1)
    check_number("attack.radius", radius, 0, 1000)
    settings.setdefault("rule", partial(_tuned, neighbours=neighbours, radius=radius))
    settings.setdefault("decay", 1.0)
    return iterate(model, images, labels, eps, **settings)


def vni_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    neighbours: int = 20,
    radius: float = 1.5,
    **settings: Unpack[Settings],
) -> Tensor:
    """Tune the variance as `vmi_fgsm` does, with the gradient looking ahead.

    g_t is taken at x_t + a * mu * m_{t-1}, as in `ni_fgsm`; the neighbours stay around x_t, as in
    the authors' code.

    Arguments, result and errors are those of `vmi_fgsm`, whose reference names it too.
    """
    settings.setdefault("lookahead", "momentum")
    return vmi_fgsm(model, images, labels, eps, neighbours=neighbours, radius=radius, **settings)


def _enhanced(slope: Slope, state: State, factors: Sequence[float]) -> Tensor:
    """Average the slopes along the last gradient."""
    if isinstance(state.previous, float):
        return slope(state.point)
    total = torch.zeros_like(state.previous)
    for factor in factors:
        total = total + slope(state.point + factor * state.step * state.previous)
    return total / len(factors)


def _tuned(slope: Slope, state: State, neighbours: int, radius: float) -> Tensor:
    """Add the last variance to the slope, and measure the next."""
    gradient = slope(state.point)
    tuned = gradient + state.memory
    if not state.last:
        total = torch.zeros_like(gradient)
        for _ in range(neighbours):
            noise = state.draws.uniform(*gradient.shape[2:], low=-radius, high=radius)
            total = total + slope(state.here + state.eps * noise)
        state.memory = total / neighbours - gradient
    return tuned
