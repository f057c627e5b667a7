from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.attacks.projection import direction, project
from src.utils.checked_dataclass import checked


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

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        ball = (state.images, state.eps, state.norm)
        back = self.reverse_size * state.eps * direction(gradient(state.at), state.norm)
        point = project(state.at - back, *ball)
        momentum = state.memory.get("inner_momentum", 0.0)
        for member in range(state.members):
            # Divided by its RMS, not its L2 norm, to suit any number of pixels.
            step = direction(gradient(point, member=member), "l2")
            momentum = self.inner_decay * momentum + step
            point = project(point + self.inner_size * momentum, *ball)
        state.memory["inner_momentum"] = momentum
        return point - state.at


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

    Deviation: the momentum's terms are divided by the image's own mean (authors: by the L1 norm of
    the batch).
    """
