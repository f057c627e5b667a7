"""Work needed for rows: gradients of the attack and forward passes of networks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..utils.model_names import ModelRef
from .stages import JobContext
from .stored_rows import Part

GRADIENT = 3
"""Cost of a gradient in forward passes, for a convolutional network."""


@dataclass(frozen=True)
class Work:
    """Gradients and predictions needed for missing rows.

    Attributes:
        images: Number of images that lack a row.
        gradients: Number of gradients, counted per member of an ensemble; None if the attack
            states no number.
        predictions: Number of predictions, including a defence's draws.
    """

    images: int
    gradients: float | None
    predictions: int


def work_of(job: JobContext, missing: Mapping[Part, np.ndarray]) -> Work:
    """Return the work for the missing images, from what attack and measurements state."""
    settings, members = job.settings, len(job.settings.source)
    predictions, runs, lacking = 0, Counter[int](), Counter[int]()  # runs: images by budgets
    for part, index in missing.items():
        measurement = part.measurement
        if measurement.name == "crafting":
            lacking.update(index.tolist())
        runs[1] += len(index) * measurement.attacks(settings)
        if part.target is not None:
            passes = measurement.passes(settings) * _passes_of(job, part.target)
            predictions += len(index) * passes
    images = len(np.unique(np.concatenate([*missing.values(), []])))
    runs.update(lacking.values())
    total = 0.0
    for budgets, count in runs.items():
        stated = settings.attack.gradients(budgets, members)
        if count and stated is None:
            return Work(images, None, predictions)
        total += count * (stated or 0) * members * settings.source_draws
    return Work(images, total, predictions)


def _passes_of(job: JobContext, target: ModelRef) -> int:
    """Return the number of forward passes per image that a target classifies."""
    members = len(target.members)
    if not target.is_defended:
        return members
    copies = int(getattr(job.planned.defences[target.defence], "copies", 1))
    return members * copies * job.settings.defence[target.defence].repeats
