"""Estimators and updates of the loop itself: one gradient, and steps along the momentum."""

from dataclasses import dataclass

from torch import Tensor

from .parts import Gradient, Problem, State
from .projection import direction


def single_gradient(gradient: Gradient, state: State) -> Tensor:
    """Return the gradient at `state.at`: the default estimator."""
    return gradient(state.at)


def steepest_ascent(momentum: Tensor, state: State) -> Tensor:
    """Return a step of full length: along the signs for L-infinity, along the momentum for L2."""
    return state.step_size * direction(momentum, state.norm)


GAMMA = 1.8
"""Size of a normalised momentum above which `DecayingSteps` shortens the steps of a value."""


@dataclass(frozen=True)
class DecayingSteps:
    """Return a step along the momentum, shorter for good where the momentum was large.

    With momentum m_t, step size a, delta_t = x_t - x and d_0 = 1, for each value of an image::

        d_t = min(d_{t-1}, 1.8 / |m_t|)
        delta_{t+1} = (delta_t + a * d_t * m_t) / sqrt(d_t)

    Reference: The Power of Decaying Steps (CVPR 2026), arXiv 2602.19096. The authors' code (MDCS,
    https://github.com/AndssY/MDCS_attack) has gamma = 1.8.
    """

    def init(self, problem: Problem) -> Tensor:
        """Return d_0."""
        return problem.images.new_ones(())

    def step(self, momentum: Tensor, state: State, decay: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step and d_t, both (K, N, 3, H, W)."""
        decay = (GAMMA / momentum.abs()).minimum(decay)  # infinite where the momentum is 0
        change = state.iterate - state.images
        moved = (change + state.step_size * decay * momentum) / decay.sqrt()
        return moved - change, decay
