from typing import Annotated

import torch
from annotated_types import Ge
from pydantic import NonNegativeFloat
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.utils.checked_dataclass import checked


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
        total = torch.zeros_like(state.last_gradient)
        for factor in torch.linspace(-self.radius, self.radius, self.samples).tolist():
            total = total + gradient(state.at + factor * state.step_size * state.last_gradient)
        return total / self.samples


@attack(
    estimator=EnhancedMomentum,
    decay=1.0,
    gradients=lambda n: 1 + n.samples * n.budgets * (n.steps - 1),
)
def emi() -> None:
    """Average gradients along the direction of the last one: EMI-FGSM, enhanced momentum."""
