import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.attacks.projection import mean_size
from src.utils.checked_dataclass import checked


@checked
class ExpectedFlatness:
    """Average the gradients at random points, each shifted by a memory of its own gradients.

    g_t = mean over i of h_i, the gradient at x_t + U(-radius * eps, radius * eps) + shift * eps *
    p_i. Then p_i = h_i / mean|h_i| - inner_decay * p_i; all p_i start at 0. No point is clipped.

    Args:
        samples: Number of points.
        radius: Half the side of the cube of points, as a share of the budget.
        shift: Length of the shift by a memory of mean 1, as a share of the budget.
        inner_decay: Share of the old memory that is subtracted from the new one.

    Reference: Qiu et al. (2024), arXiv 2405.16181.

    Deviation: a transform changes each point once (TransferAttack: the perturbation twice, and then
    the point).
    """

    samples: PositiveInt = 20
    radius: NonNegativeFloat = 2.0
    shift: NonNegativeFloat = 0.15
    inner_decay: NonNegativeFloat = 0.9

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        total = torch.zeros_like(state.images)
        memories = state.memory.setdefault("memories", [0.0] * self.samples)
        for i in range(self.samples):
            noise = state.random.uniform(*total.shape[2:], low=-self.radius, high=self.radius)
            near = gradient(state.at + state.eps * (noise + self.shift * memories[i]))
            memories[i] = near / mean_size(near) - self.inner_decay * memories[i]
            total = total + near
        return total / self.samples


@attack(
    estimator=ExpectedFlatness,
    decay=0.5,
    steps=20,
    relative_step_size=0.1,
    gradients=lambda n: n.samples * n.budgets * n.steps,
)
def mef() -> None:
    """Average gradients at points that past gradients shift: MEF, momentum 0.5, 20 steps."""
