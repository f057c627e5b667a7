import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.attacks.projection import direction, mean_size, project
from src.utils.checked_dataclass import checked


@checked
class VarianceReduction:
    """Return the momentum of inner steps with single members and reduced variance.

    With g the ensemble's gradient at x_t, g_k the gradient of member k, b_1 = x_t and k drawn for
    each j::

        q_j = g_k(b_j) - g_k(x_t) + g,  u_j = inner_decay * u_{j-1} + q_j / mean|q_j|
        b_{j+1} = project(b_j + a * sign(u_j))

    The estimate is the last u. u_0 = 0 in every step. q_1 = g needs no further gradient.

    Args:
        inner_steps: Number of inner steps per member of the ensemble.
        inner_decay: Decay of the momentum u.

    Reference: Xiong et al. (2022), arXiv 2111.10752.

    Deviation: g is the gradient of the ensemble's own average (authors: of logits); auxiliary
    heads have no loss.
    """

    inner_steps: PositiveInt = 4
    inner_decay: NonNegativeFloat = 1.0

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        point, full_gradient = state.at, gradient(state.at)
        here = [gradient(state.at, member=member) for member in range(state.members)]
        momentum, estimate = torch.zeros_like(full_gradient), full_gradient
        for step in range(self.inner_steps * state.members):
            if step > 0:
                drawn = state.random.shared.integers(0, state.members)
                for member in drawn.unique().tolist():  # one, unless the batch mixes runs
                    corrected = gradient(point, member=member) - here[member] + full_gradient
                    chosen = (drawn == member)[:, None, None, None]
                    if not chosen.all():
                        corrected = torch.where(chosen.to(point.device), corrected, estimate)
                    estimate = corrected
            momentum = self.inner_decay * momentum + estimate / mean_size(estimate)
            ahead = point + state.step_size * direction(momentum, state.norm)
            point = project(ahead, state.images, state.eps, state.norm)
        return momentum


@attack(
    estimator=VarianceReduction,
    decay=1.0,
    gradients=lambda n: 2 + n.budgets * ((2 + n.inner_steps - 1 / n.members) * n.steps - 2),
    members=2,
)
def svre() -> None:
    """Take inner steps with random members and reduced variance: SVRE, with momentum."""
