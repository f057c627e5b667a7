"""Momentum, alone, with a look-ahead, or of gradients along its direction."""

from typing import Annotated

import torch
from annotated_types import Ge
from pydantic import NonNegativeFloat
from torch import Tensor

from .. import Gradient, State, attack, average, checked


@attack(decay=1.0)
def mi() -> None:
    """Accumulate momentum: x_{t+1} = x_t + a * sign(m_t), m_t = mu * m_{t-1} + g_t / mean|g_t|.

    Name: Momentum Iterative FGSM.
    Reference: Dong et al. (2018), arXiv 1710.06081.
    """


@attack(decay=1.0, lookahead="momentum")
def ni() -> None:
    """Take the gradient where the momentum leads: Nesterov's, at x_t + a * mu * m_{t-1}.

    Name: Nesterov Iterative FGSM.
    Reference: Lin et al. (2020), arXiv 1908.06281.
    """


@attack(decay=1.0, lookahead="gradient")
def pi_pregradient() -> None:
    """Take the gradient where the last one leads: pre-gradient guided momentum.

    The point is x_t + a * g_{t-1} / mean|g_{t-1}|. This is not the patch-wise attack, which is also
    called PI-FGSM.

    Name: Pre-gradient guided Momentum Iterative FGSM.
    Reference: Wang et al. (2021), arXiv 2103.10609.
    """


@attack(
    decay=1.0,
    warm_up_steps=5,
    warm_up_scale=10.0,
    gradients=lambda n: 2 + n.budgets * (n.warm_up_steps + n.steps - 2),
)
def gi() -> None:
    """Start with the momentum of a wide search: global momentum initialisation of `mi`.

    The search is `mi` with `warm_up_steps` steps of `warm_up_scale` * a, projected like all steps.

    Name: Global momentum Initialisation FGSM.
    Reference: Wang et al. (2022), arXiv 2211.11236.
    """


@checked
class EnhancedMomentum:
    """Average the gradients at several points along the direction of the last one.

    g_t = mean over i of grad L(f(x_t + c_i * a * g_{t-1} / mean|g_{t-1}|), y), the c_i evenly
    spaced in [-radius, radius]. In the first step all points coincide: one gradient is taken.

    Args:
        samples: Number of points.
        radius: Half the length of the line, in steps.

    Reference: Wang et al. (2021), arXiv 2103.10609, with linear sampling.
    """

    samples: Annotated[int, Ge(2)] = 11
    radius: NonNegativeFloat = 7.0

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        if isinstance(state.last_gradient, float):
            return gradient(state.at)
        line = torch.linspace(-self.radius, self.radius, self.samples).tolist()
        step = state.step_size
        return average(gradient(state.at + c * step * state.last_gradient) for c in line)


@attack(
    estimator=EnhancedMomentum,
    decay=1.0,
    gradients=lambda n: 1 + n.samples * n.budgets * (n.steps - 1),
)
def emi() -> None:
    """Average gradients along the direction of the last one: EMI-FGSM, enhanced momentum.

    Name: Enhanced Momentum Iterative FGSM.
    """
