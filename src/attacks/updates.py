"""Updates: steps made of the momentum."""

from torch import Tensor

from src.attacks.parts import State
from src.attacks.projection import direction


def steepest_ascent(momentum: Tensor, state: State) -> Tensor:
    """Return a step of full length: along the signs or, for L2, along the momentum."""
    return state.step_size * direction(momentum, state.norm)
