"""Predictions for perturbations and for images that lack some of their frequencies."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from src.attacks import NORMS, noise_signs
from src.diagnostics.frequency import CORNER, band, low_passed
from src.evaluation import Diagnostic, DiagnosticInput
from src.evaluation.predictions import top_predictions

KINDS = ("attack", "noise")
_AXES = (-3, -2, -1)
_NOTHING = 1e-6
"""The largest change, in [0, 1] units, that is rounding of float32 pixels and is not scaled up."""


class _Filter(Diagnostic):
    """Predictions for variants of the images, which are told apart by their numbers."""

    def _append(self, inputs: DiagnosticInput, logits: Mapping[str, Tensor], variant: int) -> None:
        """Append every target's predictions for a variant."""
        index, labels = inputs.batch.index, inputs.batch.labels
        for number, name in enumerate(inputs.networks):
            top = top_predictions(name, logits[name], labels)
            keys = [torch.full_like(index, key) for key in (number, variant)]
            self.append([*keys, index, labels, top.predicted], [top.confidences[:, 0], top.true])

    def _table(self, variants: Mapping[str, Sequence[Any]]) -> pa.Table:
        """Return the table, sorted by target, variant and index.

        Args:
            variants: Columns that tell what each variant is.
        """
        whole, real = self.rows(3)
        target, variant, index, label, predicted = whole.T
        return pa.table(
            {
                "index": index,
                "label": label,
                "target": self.target_names(target),
                **{name: pa.array(values).take(variant) for name, values in variants.items()},
                "predicted": predicted,
                "confidence": real[:, 0].astype(np.float32),
                "true_confidence": real[:, 1].astype(np.float32),
            }
        )


class Filtered(_Filter):
    """Evaluate every target on the low, middle and high frequencies of the perturbations alone.

    Each part is scaled to the strength of a whole perturbation, added to the clean image and
    clipped to [0, 1]. With `linf` its largest absolute value becomes the budget, whatever the
    norm of the attack; with `l2` its length becomes that of the perturbation before the filter.
    The band `all` is the perturbation itself, scaled likewise: with `l2` it is the job's own
    adversarial image. A part that is zero stays zero.

    The control is random-sign noise of the budget, clipped to [0, 1], of which the same parts are
    taken at the same strengths: with `l2` the length of the attack's perturbation.

    Args:
        targets: Names of the targets.
        reference_eps_255: The budget of the perturbations, in units of 1/255.
        bands: Bounds between low and mid, and between mid and high, in cycles per pixel; a
            frequency on a bound belongs above it, the constant term to low.
        seed: Of the noise, which is that of the control `noise`.
    """

    table = "filtered"

    def __init__(
        self,
        targets: Sequence[str],
        reference_eps_255: float,
        bands: Sequence[float],
        seed: int = 0,
    ) -> None:
        super().__init__(targets)
        self.reference_eps_255 = reference_eps_255
        self.seed = seed
        low, high = bands
        bounds = {"all": (0, CORNER), "low": (0, low), "mid": (low, high), "high": (high, CORNER)}
        self.variants = [
            (norm, name, kind, *bounds[name])
            for norm, name, kind in itertools.product(NORMS, bounds, KINDS)
        ]

    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        place = inputs.budgets.index(self.reference_eps_255)
        eps = self.reference_eps_255 / 255
        change = inputs.adversarial[place] - inputs.clean
        signs = noise_signs(self.seed, inputs.batch.index, inputs.clean)
        noise = (inputs.clean + eps * signs).clamp(0, 1) - inputs.clean
        for number, (norm, name, kind, *bounds) in enumerate(self.variants):
            if (norm, name, kind) == ("l2", "all", "attack"):
                logits = {target: of_grid[place] for target, of_grid in inputs.logits.items()}
            else:
                whole = change if kind == "attack" else noise
                part = whole if name == "all" else split(whole, *bounds)
                scaled = rescaled(part, change, eps, norm)
                logits = _logits(inputs, (inputs.clean + scaled).clamp(0, 1))
            self._append(inputs, logits, number)

    def compute(self) -> pa.Table:
        """Return one row per image, target, norm, band and kind, sorted by these but the image.

        The columns are `index`, `label`, `target`, `eps_255`, `band` (`all`, `low`, `mid` or
        `high`), `norm` (`linf` or `l2`), `kind` (`attack` or `noise`), `frequency_low` and
        `frequency_high` (in cycles per pixel), `predicted`, `confidence` and `true_confidence`.
        """
        norms, names, kinds, lows, highs = zip(*self.variants, strict=True)
        return self._table(
            {
                "eps_255": [float(self.reference_eps_255)] * len(norms),
                "band": names,
                "norm": norms,
                "kind": kinds,
                "frequency_low": list(map(float, lows)),
                "frequency_high": list(map(float, highs)),
            }
        )


class LowPassed(_Filter):
    """Evaluate every target on the clean images without their high frequencies.

    Args:
        targets: Names of the targets.
        cutoffs: In cycles per pixel; frequencies below one stay, of the image mirrored at its
            borders. Clipped to [0, 1] afterwards.
    """

    table = "low_passed"

    def __init__(self, targets: Sequence[str], cutoffs: Sequence[float]) -> None:
        super().__init__(targets)
        self.cutoffs = tuple(cutoffs)

    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        for place, cutoff in enumerate(self.cutoffs):
            logits = _logits(inputs, low_passed(inputs.clean, cutoff).clamp(0, 1))
            self._append(inputs, logits, place)

    def compute(self) -> pa.Table:
        """Return one row per image, target and cutoff, sorted by target and cutoff.

        The columns are `index`, `label`, `target`, `cutoff` (in cycles per pixel), `predicted`,
        `confidence` and `true_confidence`.
        """
        return self._table({"cutoff": self.cutoffs})


def split(change: Tensor, low: float, high: float) -> Tensor:
    """Return the part of changes (..., H, W) in [low, high), up to the corner if that is high."""
    return band(change, low, math.inf if high == CORNER else high)


def rescaled(part: Tensor, whole: Tensor, eps: float, norm: str) -> Tensor:
    """Return parts of perturbations, each at the strength of a whole one.

    Args:
        part: Shape (N, 3, H, W).
        whole: The perturbations that they are parts of.
        eps: The budget in [0, 1] units, which `linf` makes the largest absolute value.
        norm: `linf`; or `l2`: the length of the whole perturbation.
    """
    size = part.abs().amax(dim=_AXES, keepdim=True)
    if norm == "linf":
        factor = eps / size.clamp_min(_NOTHING)
    else:
        lengths = [torch.linalg.vector_norm(x, dim=_AXES, keepdim=True) for x in (whole, part)]
        factor = lengths[0] / lengths[1].clamp_min(_NOTHING)
    return part * torch.where(size > _NOTHING, factor, 1)


def _logits(inputs: DiagnosticInput, images: Tensor) -> dict[str, Tensor]:
    """Return every target's logits, (N, C)."""
    return {name: network(images) for name, network in inputs.networks.items()}
