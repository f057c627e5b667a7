"""Predictions for perturbations and for images that lack some of their frequencies."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from src.attacks import noise_signs
from src.diagnostics.frequency import CORNER, band, low_passed
from src.evaluation import Diagnostic, DiagnosticInput
from src.evaluation.predictions import prediction_columns, top_predictions

_AXES = (-3, -2, -1)
_NOTHING = 1e-6
"""The largest change, in [0, 1] units, that is rounding of float32 pixels and is not scaled up."""


class _Filter(Diagnostic):
    """Predictions for variants of the images.

    Args:
        targets: Names of the targets.
        variants: Columns of the table that tell what each variant is.
    """

    def __init__(self, targets: Sequence[str], variants: Mapping[str, Sequence[Any]]) -> None:
        super().__init__(targets)
        self.variants = variants

    @abstractmethod
    def images(self, inputs: DiagnosticInput) -> Iterator[Tensor]:
        """Yield the images (N, 3, H, W) of each variant, clipped to [0, 1] afterwards."""

    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        index, labels = inputs.batch.index, inputs.batch.labels
        for variant, images in enumerate(self.images(inputs)):
            for number, (name, network) in enumerate(inputs.networks.items()):
                top = top_predictions(name, network(images.clamp(0, 1)), labels)
                keys = [torch.full_like(index, key) for key in (number, variant)]
                self.append([*keys, index, labels, top.classes], [top.true, top.confidences])

    def compute(self) -> pa.Table:
        """Return one row per image, target and variant, sorted by target, variant and index.

        The columns are `index`, `label`, `target`, those that tell what the variant is, and
        `predicted`, `confidence`, `true_confidence`, `top5_classes` and `top5_confidences`.
        """
        whole, real = self.rows(3)
        target, variant, index, label = whole[:, :4].T
        return pa.table(
            {
                "index": index,
                "label": label,
                "target": self.target_names(target),
                **{name: pa.array(values).take(variant) for name, values in self.variants.items()},
                **prediction_columns(whole[:, 4:], real[:, 1:], real[:, 0]),
            }
        )


class Filtered(_Filter):
    """Evaluate every target on the low, mid and high frequencies of the perturbations alone.

    Each part is scaled to the length (L2 norm) of the whole perturbation, added to the clean image
    and clipped to [0, 1]. The band `all` is the perturbation itself. A part that is zero stays
    zero. The control, of kind `noise`, is random-sign noise of the budget, clipped to [0, 1], of
    which the same parts are taken at the length of the attack's perturbation. `frequency_low` and
    `frequency_high`, in cycles per pixel, tell a band's bounds.

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
        self.reference_eps_255, self.seed = reference_eps_255, seed
        parts = zip(("low", "mid", "high"), pairwise([0.0, *bands, math.inf]), strict=True)
        self.bounds = {"all": (0.0, math.inf), **dict(parts)}
        names, kinds = zip(*product(self.bounds, ("attack", "noise")), strict=True)
        variants = {
            "eps_255": [float(reference_eps_255)] * len(names),
            "band": names,
            "norm": ["l2"] * len(names),  # in which the parts are as long as the whole
            "kind": kinds,
            "frequency_low": [self.bounds[name][0] for name in names],
            "frequency_high": [min(CORNER, self.bounds[name][1]) for name in names],
        }
        super().__init__(targets, variants)

    def images(self, inputs: DiagnosticInput) -> Iterator[Tensor]:
        """Yield the clean images with each part of the perturbations and of the noise."""
        clean, eps = inputs.clean, self.reference_eps_255 / 255
        change = inputs.adversarial[inputs.budgets.index(self.reference_eps_255)] - clean
        signs = noise_signs(self.seed, inputs.batch.index, clean)
        noise = (clean + eps * signs).clamp(0, 1) - clean
        for bounds, whole in product(self.bounds.values(), (change, noise)):
            yield clean + rescaled(band(whole, *bounds), change)


class LowPassed(_Filter):
    """Evaluate every target on the clean images without their high frequencies.

    Args:
        targets: Names of the targets.
        cutoffs: In cycles per pixel; frequencies below one stay, of the image mirrored at its
            borders. Clipped to [0, 1] afterwards.
    """

    table = "low_passed"

    def __init__(self, targets: Sequence[str], cutoffs: Sequence[float]) -> None:
        super().__init__(targets, {"cutoff": cutoffs})

    def images(self, inputs: DiagnosticInput) -> Iterator[Tensor]:
        """Yield the clean images below each cutoff."""
        for cutoff in self.variants["cutoff"]:
            yield low_passed(inputs.clean, cutoff)


def rescaled(part: Tensor, whole: Tensor) -> Tensor:
    """Return parts (N, 3, H, W) of perturbations, each with the L2 norm of a whole one."""
    lengths = [torch.linalg.vector_norm(x, dim=_AXES, keepdim=True) for x in (whole, part)]
    factor = lengths[0] / lengths[1].clamp_min(_NOTHING)
    return part * torch.where(part.abs().amax(dim=_AXES, keepdim=True) > _NOTHING, factor, 1)
