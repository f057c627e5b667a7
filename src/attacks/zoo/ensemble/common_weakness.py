"""Walks through an ensemble's members, towards what is a weakness of all."""

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from src.attacks.define import published
from src.attacks.parts import Gradient, State
from src.attacks.projection import direction, project
from src.utils.checked_dataclass import checked


@checked
class CommonWeakness:
    """Return the way to b_E, which a step back and one step for each of E members lead to.

    With g the ensemble's gradient at x_t, g_k that of member k at b_{k-1} and projections to the
    ball and to the pixel range::

        b_0 = project(x_t - reverse_size * eps * sign(g))
        u   = inner_decay * u + g_k / rms(g_k),  b_k = project(b_{k-1} + inner_size * u)

    and the estimate is b_E - x_t. u goes on from step to step. The members come in their order.

    Args:
        reverse_size: Length of the step back, as a share of the budget.
        inner_size: Root mean square of a member's step without momentum, in [0, 1] units.
        inner_decay: Decay of the momentum u of the members' steps.

    Reference:
        Chen et al.: Rethinking Model Ensemble in Transfer-based Adversarial Attacks (2024),
        arXiv 2303.09105, MI-CWA (there 250 times a gradient over its L2 norm, which is an RMS of
        0.644 for 224 x 224 pixels).

    Deviation: the ensemble's gradient is that of its own average (authors: of the sum of logits);
    lengths follow the budget and the number of pixels (authors: fixed).
    """

    images_kept = 1
    reverse_size: NonNegativeFloat = 1 / 15
    inner_size: PositiveFloat = 0.644
    inner_decay: NonNegativeFloat = 1.0

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        """Return the way from `state.at`, and keep the members' momentum."""
        ball = (state.images, state.eps, state.norm)
        back = self.reverse_size * state.eps * direction(gradient(state.at), state.norm)
        point = project(state.at - back, *ball)
        momentum = state.kept.get("inner_momentum", 0.0)
        for member in range(state.members):
            # Over its RMS, as over its L2 norm, but for any number of pixels.
            own = direction(gradient(point, member=member), "l2")
            momentum = self.inner_decay * momentum + own
            point = project(point + self.inner_size * momentum, *ball)
        state.kept["inner_momentum"] = momentum
        return point - state.at


@published(estimator=CommonWeakness, decay=1.0, relative_step_size=0.2)
def cwa() -> None:
    """Common weakness of an ensemble (MI-CWA): `mi` along the ways that its members' steps lead.

    Deviation: the momentum's terms are divided by an image's own mean (authors: by the L1 norm of
    the batch).
    """
