import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.attacks.projection import mean_size
from src.utils.checked_dataclass import Share, checked


@checked
class PenalisedGradientNorm:
    """Average the gradients around x_t, each mixed with the gradient one step down the loss.

    g_t = mean over i of (1 - delta) * grad L(f(a_i), y) + delta * grad L(f(b_i), y), with
    a_i = x_t + U(-zeta * eps, zeta * eps) and b_i = a_i - a * g / mean|g|, g being the gradient at
    a_i and a the step size. Neither point is clipped.

    Args:
        samples: Number of points a_i.
        zeta: Half the side of the cube of points, as a share of the budget.
        delta: Weight of the gradients at the points b_i.

    Reference: Ge et al. (2023), arXiv 2306.05225.

    Deviation: transforms and backward rules draw the same numbers at a_i and b_i, and b_i starts
    from a_i itself (TransferAttack: from the transformed a_i, and it is transformed again).
    """

    samples: PositiveInt = 20
    zeta: NonNegativeFloat = 3.0
    delta: Share = 0.5

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        total = torch.zeros_like(state.images)
        for _ in range(self.samples):
            noise = state.random.uniform(*total.shape[2:], low=-self.zeta, high=self.zeta)
            near = state.at + state.eps * noise
            drawn = state.random.drawn
            here = gradient(near)
            state.random.drawn = drawn  # the next gradient gets the same numbers
            below = gradient(near - state.step_size * here / mean_size(here))
            total = total + (1 - self.delta) * here + self.delta * below
        return total / self.samples


@attack(
    estimator=PenalisedGradientNorm,
    decay=1.0,
    gradients=lambda n: 2 * n.samples * n.budgets * n.steps,
)
def pgn() -> None:
    """Penalise the gradient norm nearby: PGN, towards a high and flat loss, with momentum."""
