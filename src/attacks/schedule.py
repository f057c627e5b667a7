"""The steps of an attack: how many, how long, and where they start."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from src.attacks.per_image_random import PerImageRandom
from src.attacks.projection import NORMS, direction, project
from src.utils.checks import check_choice, check_number, check_whole_number

STARTS = (None, "uniform", "sign")


@dataclass(frozen=True)
class Schedule:
    """The settings of `iterate` that decide on its steps, which are explained there.

    Raises:
        ValueError: A value has no meaning.
    """

    steps: int
    step_size_255: float | None
    relative_step_size: float | None
    allow_overshoot: bool
    random_start: str | None
    start_radius: float
    restarts: int

    def __post_init__(self) -> None:
        """Check the values that do not depend on the budgets."""
        check_whole_number("attack.steps", self.steps, 1)
        check_whole_number("attack.restarts", self.restarts, 1)
        check_choice("attack.random_start", self.random_start, STARTS)
        check_number("attack.start_radius", self.start_radius, 0, 1)
        if self.step_size_255 is not None:
            check_number("attack.step_size_255", self.step_size_255, 0, 255, open_low=True)
        if self.relative_step_size is not None:
            check_number(
                "attack.relative_step_size", self.relative_step_size, 0, math.inf, open_low=True
            )
        if None not in (self.step_size_255, self.relative_step_size):
            raise ValueError(
                "attack.step_size_255 and attack.relative_step_size are both set; set one of them."
            )
        if self.restarts > 1 and self.random_start is None:
            raise ValueError(
                f"attack.restarts={self.restarts} needs a random start; set attack.random_start "
                "to uniform or sign."
            )

    def check(self, largest_255: float, norm: str) -> None:
        """Check what depends on the norm and on the largest budget, in units of 1/255.

        Raises:
            ValueError: A step is longer than it, and `allow_overshoot` does not say that it may be.
        """
        check_choice("attack.norm", norm, NORMS)
        if norm == "l2" and self.random_start == "sign":
            raise ValueError("attack.random_start=sign belongs to attack.norm=linf; use uniform.")
        if self.allow_overshoot or largest_255 == 0:
            return
        reason = "set attack.allow_overshoot=true if that is meant."
        if self.step_size_255 is not None and self.step_size_255 > largest_255 + 1e-4:
            raise ValueError(
                f"attack.step_size_255={self.step_size_255:g} is longer than the largest budget, "
                f"{largest_255:g}; {reason}"
            )
        if self.relative_step_size is not None and self.relative_step_size > 1:
            raise ValueError(
                f"attack.relative_step_size={self.relative_step_size:g} is longer than the "
                f"budget; {reason}"
            )

    def step_size(self, eps: Tensor) -> Tensor:
        """Return the length of a step for each budget, in [0, 1] units."""
        if self.step_size_255 is not None:
            return torch.full_like(eps, self.step_size_255 / 255)
        if self.relative_step_size is not None:
            return eps * self.relative_step_size
        return eps / self.steps

    def start(self, images: Tensor, eps: Tensor, norm: str, random: PerImageRandom) -> Tensor:
        """Return the first iterate.

        Args:
            images: Clean images, (K, N, 3, H, W), expanded over the budgets.
            eps: Budgets, (K, 1, 1, 1, 1) or (K, N, 1, 1, 1).
            norm: `linf` or `l2`.
            random: Random numbers for the N images, which all budgets share.
        """
        if self.random_start is None:
            return images
        radius = eps * self.start_radius
        shape = images.shape[2:]
        if norm == "l2":  # uniform in the ball: a direction, and a length of density r^(D - 1)
            length = random.uniform(1, 1, 1) ** (1 / math.prod(shape))
            noise = direction(random.normal(*shape), norm) * length
        elif self.random_start == "sign":
            noise = random.normal(*shape).sign()
        else:
            noise = random.uniform(*shape, low=-1.0, high=1.0)
        return project(images + radius * noise, images, eps, norm)
