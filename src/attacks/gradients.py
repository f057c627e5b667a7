"""Gradient estimators: the gradient of a step from gradients of the loss at several points."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from src.attacks.checked import checked
from src.attacks.per_image_random import PerImageRandom


@dataclass
class State:
    """State of an attack, which a gradient estimator reads and adds to.

    Attributes:
        iterate: x_t, shape (K, N, 3, H, W).
        at: Point at which the gradient is evaluated: x_t, or ahead of it.
        eps: Budgets in [0, 1] units, (K, 1, 1, 1, 1); (K, N, 1, 1, 1) if each image has its own.
        step_size: Length of a step in [0, 1] units, of the same shape.
        random: Random numbers for the N images.
        is_last_step: True if no step follows this one.
        last_gradient: The estimate of the step before, over its mean absolute value; 0 at first.
        kept: State of the estimator itself, kept from step to step; 0 at first.
    """

    iterate: Tensor
    at: Tensor
    eps: Tensor
    step_size: Tensor
    random: PerImageRandom
    is_last_step: bool = False
    last_gradient: Tensor | float = 0.0
    kept: Tensor | float = 0.0


Gradient = Callable[[Tensor], Tensor]
"""Images (K, N, 3, H, W) to the gradient of their loss, transforms and smoothing included."""
Estimator = Callable[[Gradient, State], Tensor]
"""A step's gradient function and state to its estimated gradient, (K, N, 3, H, W)."""


def single_gradient(gradient: Gradient, state: State) -> Tensor:
    """Return the one gradient at `state.at`."""
    return gradient(state.at)


@checked
class EnhancedMomentum:
    """Average the gradients at several points along the direction of the last one.

    g_t = mean over i of grad L(f(x_t + c_i * a * g_{t-1} / mean|g_{t-1}|), y), the c_i evenly
    spaced in [-radius, radius]. In the first step all points are one, and one gradient is taken.

    Args:
        samples: Number of points.
        radius: Half the length of the line, in steps.

    Reference:
        Wang et al.: Boosting Adversarial Transferability through Enhanced Momentum (2021),
        arXiv 2103.10609, with linear sampling.
    """

    samples: Annotated[int, Ge(2)] = 11
    radius: NonNegativeFloat = 7.0

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        """Return the averaged gradient."""
        if isinstance(state.last_gradient, float):
            return gradient(state.at)
        total = torch.zeros_like(state.last_gradient)
        for factor in torch.linspace(-self.radius, self.radius, self.samples).tolist():
            total = total + gradient(state.at + factor * state.step_size * state.last_gradient)
        return total / self.samples


@checked
class VarianceTuning:
    """Correct each gradient by how those around the last iterate differed from the one there.

    The estimate is g_t + v_{t-1}, with v_t = mean over i of grad L(f(x_t + r_i), y) - g_t and
    r_i ~ U(-radius * eps, radius * eps), with `norm=l2` too. The last v is not used, and not
    computed. Where g_t is taken ahead, the r_i stay around x_t, as in the authors' code.

    Args:
        neighbours: Number of r_i.
        radius: Half the side of their cube, as a share of the budget (beta).

    Reference:
        Wang, He: Enhancing the Transferability of Adversarial Attacks through Variance Tuning
        (2021), arXiv 2103.15571.
    """

    neighbours: PositiveInt = 20
    radius: NonNegativeFloat = 1.5

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        """Return the tuned gradient, and keep the variance."""
        current = gradient(state.at)
        tuned = current + state.kept
        if not state.is_last_step:
            total = torch.zeros_like(current)
            for _ in range(self.neighbours):
                noise = state.random.uniform(*current.shape[2:], low=-self.radius, high=self.radius)
                total = total + gradient(state.iterate + state.eps * noise)
            state.kept = total / self.neighbours - current
        return tuned
