"""Attacks that combine the members of an ensemble."""

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from .. import Gradient, Problem, State, attack, checked, direction, mean_size, project


@checked
class CommonWeakness:
    """Take one step back and one step per member; the estimate for E members is b_E - x_t.

    With g the ensemble's gradient at x_t and g_k the gradient of member k at b_{k-1}::

        b_0 = project(x_t - reverse_size * eps * sign(g))
        u   = inner_decay * u + g_k / rms(g_k),  b_k = project(b_{k-1} + inner_size * u)

    u carries over from step to step. The members are used in their order.

    Args:
        reverse_size: Length of the step back, as a share of the budget.
        inner_size: Root mean square of a member's step without momentum, in [0, 1] units.
        inner_decay: Decay of the momentum u of the members' steps.

    Reference: Chen et al. (2024), arXiv 2303.09105, MI-CWA (there 250 times a gradient over its L2
    norm, which is an RMS of 0.644 for 224 x 224 pixels).

    Deviation: the ensemble's gradient is that of its own average (authors: of the sum of logits);
    lengths depend on the budget and the number of pixels (authors: fixed).
    """

    reverse_size: NonNegativeFloat = 1 / 15
    inner_size: PositiveFloat = 0.644
    inner_decay: NonNegativeFloat = 1.0

    def init(self, problem: Problem) -> Tensor:
        """Return u before the first step."""
        return problem.images.new_zeros(())

    def step(self, gradient: Gradient, state: State, momentum: Tensor) -> tuple[Tensor, Tensor]:
        """Return the estimate and u."""
        ball = (state.images, state.eps, state.norm)
        back = self.reverse_size * state.eps * direction(gradient(state.at), state.norm)
        point = project(state.at - back, *ball)
        for member in range(state.members):
            # Divided by its RMS, not its L2 norm, to suit any number of pixels.
            step = direction(gradient(point, member=member), "l2")
            momentum = self.inner_decay * momentum + step
            point = project(point + self.inner_size * momentum, *ball)
        return point - state.at, momentum


@attack(
    estimator=CommonWeakness,
    decay=1.0,
    relative_step_size=0.2,
    gradients=lambda n: 1 + n.budgets * (2 * n.steps - 1),
    norms="linf",
    members=2,
)
def cwa() -> None:
    """Step back, then along each member's gradient: common weakness (MI-CWA), followed by `mi`.

    Name: Common Weakness Attack.

    Deviation: the momentum's terms are divided by the image's own mean (authors: by the L1 norm of
    the batch).
    """


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
                picked = state.random.shared.integers(0, state.members)
                for member in picked.unique().tolist():  # one, unless the batch mixes runs
                    corrected = gradient(point, member=member) - here[member] + full_gradient
                    chosen = (picked == member)[:, None, None, None]
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
    """Take inner steps with random members and reduced variance: SVRE, with momentum.

    Name: Stochastic Variance Reduced Ensemble.
    """
