"""Gradient at the point that momentum or look-ahead names."""

from torch import Tensor

from src.attacks.interfaces import Gradient, State


def single_gradient(gradient: Gradient, state: State) -> Tensor:
    """Return the one gradient at `state.at`."""
    return gradient(state.at)
