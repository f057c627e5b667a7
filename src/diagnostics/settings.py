"""Which diagnostics a job runs, and their settings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from src.utils.checks import check_choice

MOST_HALVINGS = 20
"""More would be finer than float32 pixels."""
HIGHEST_CUTOFF = 0.71
"""Beyond the highest frequency that there is, sqrt(1/2), in cycles per pixel."""


@dataclass(frozen=True)
class DiagnosticSettings:
    """What a job computes beside its predictions.

    Args:
        name: Of the settings, for people.
        bisection: How often the bracket of each image's smallest flipping budget is halved, 0 to
            20; 0: not at all.
        spectra: Whether power spectra of images and perturbations are computed.
        filters: Whether filtered perturbations, noise filtered likewise, and low-passed images are
            shown to the targets.
        similarity: Whether the source's gradients are compared with the targets'.
        bands: Bounds between low, mid and high, two rising numbers in (0, 0.5], in cycles per
            pixel.
        cutoffs: Of low-passed clean images, rising numbers in (0, 0.71], in cycles per pixel.

    Raises:
        ValueError: A value has no meaning.
    """

    name: str = "basic"
    bisection: int = 0
    spectra: bool = False
    filters: bool = False
    similarity: bool = False
    bands: Sequence[float] = (0.125, 0.25)
    cutoffs: Sequence[float] = (0.0625, 0.125, 0.1875, 0.25, 0.375)

    def __post_init__(self) -> None:
        """Check the values, and keep the lists as tuples."""
        halvings = self.bisection
        whole = isinstance(halvings, int) and not isinstance(halvings, bool)
        if not whole or not 0 <= halvings <= MOST_HALVINGS:
            raise ValueError(
                f"diagnostics.bisection must be a whole number from 0 to {MOST_HALVINGS}, "
                f"not {halvings}."
            )
        for key in ("spectra", "filters", "similarity"):
            check_choice(f"diagnostics.{key}", getattr(self, key), (True, False))
        object.__setattr__(self, "bands", _rising("bands", self.bands, 0.5, 2))
        object.__setattr__(self, "cutoffs", _rising("cutoffs", self.cutoffs, HIGHEST_CUTOFF))


def _rising(key: str, values: Any, high: float, count: int | None = None) -> tuple[float, ...]:
    """Return rising numbers in (0, high] as a tuple."""
    listed = list(values) if isinstance(values, list | tuple) else None
    if (
        not listed
        or not all(_is_number(value) and 0 < value <= high for value in listed)
        or any(low >= higher for low, higher in pairwise(listed))
        or count not in (None, len(listed))
    ):
        what = "one or more" if count is None else "two"
        raise ValueError(
            f"diagnostics.{key} must be {what} rising numbers in (0, {high:g}], not {values}."
        )
    return tuple(float(value) for value in listed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
