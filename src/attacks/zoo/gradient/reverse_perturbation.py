from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.attacks.projection import direction, project
from src.utils.checked_dataclass import checked


@checked
class ReversePerturbation:
    """Take the gradient at x_t + n, where n lowers the cross-entropy in a ball around x_t.

    With b = inner_radius * eps and projections to the ball of radius b around x_t and to the pixel
    range, n starts at project(x_t + U(-b, b)) - x_t and takes `inner_steps` S steps::

        x_t + n = project(x_t + n - b / S * sign(grad CE(f(x_t + n), y)))

    With target labels, CE is the negative cross-entropy of the target. The search uses CE whatever
    loss the attack maximises.

    Args:
        inner_radius: Radius of the searched ball, as a share of the budget.
        inner_steps: Number S of search steps.
        late_start: Number of first steps without a search (n = 0).

    Reference: Qin et al. (2022), arXiv 2210.05968 (RAP; with late_start = 100 RAP-LS).

    Deviation: lengths are proportional to the budget (authors: fixed).
    """

    inner_radius: NonNegativeFloat = 1.0
    inner_steps: PositiveInt = 8
    late_start: NonNegativeInt = 0

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        if state.step < self.late_start:
            return gradient(state.at)
        ball = (state.at, self.inner_radius * state.eps, state.norm)
        noise = state.random.uniform(*state.at.shape[2:], low=-1.0, high=1.0)
        point = project(state.at + ball[1] * noise, *ball)
        for _ in range(self.inner_steps):
            way = direction(gradient(point, loss="cross_entropy"), state.norm)
            point = project(point - ball[1] / self.inner_steps * way, *ball)
        return gradient(point)


@attack(
    estimator=ReversePerturbation,
    steps=400,
    relative_step_size=0.125,
    gradients=lambda n: (
        n.budgets * (n.steps + n.inner_steps * (n.steps - n.late_start))
        - (n.budgets - 1) * (n.late_start > 0)
    ),
)
def rap() -> None:
    """Take gradients at the worst point nearby, 400 steps: RAP, steps of eps / 8, no momentum."""
