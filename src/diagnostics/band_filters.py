"""Images that lack some of their frequencies, or have some of a perturbation's alone."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from src.attacks import noise_signs
from src.data import Batch
from src.diagnostics.frequency import CORNER, band, low_passed
from src.evaluation import AdversarialBatch, AdversarialSource, Diagnostic, DiagnosticInput
from src.evaluation.predictions import prediction_columns, top_predictions

_AXES = (-3, -2, -1)
_NOTHING = 1e-6
"""The largest change, in [0, 1] units, that is rounding of float32 pixels and is not scaled up."""

BOUNDS: Mapping[str, tuple[float, float]] = {
    "all": (0.0, math.inf),
    "low": (0.0, 0.125),
    "mid": (0.125, 0.25),
    "high": (0.25, math.inf),
}
"""Lowest frequency of each band and the one above it, in cycles per pixel; the constant is low."""
CUTOFFS = (0.0625, 0.125, 0.1875, 0.25, 0.375)
"""Of low-passed images, in cycles per pixel."""


class Filtered(Diagnostic):
    """Evaluate every target on the low, mid and high frequencies of the perturbations alone.

    The parts are those of `with_parts`; of the band `all`, the whole perturbation, the
    predictions are the job's own.

    Args:
        targets: Names of the targets.
        reference_eps_255: The budget of the perturbations, in units of 1/255.
        seed: Of the noise whose length the parts have.
    """

    table = "filtered"

    def __init__(self, targets: Sequence[str], reference_eps_255: float, seed: int = 0) -> None:
        super().__init__(targets)
        self.reference_eps_255, self.seed = reference_eps_255, seed

    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        index, labels, clean = inputs.batch.index, inputs.batch.labels, inputs.clean
        place = inputs.budgets.index(self.reference_eps_255)
        noise = budget_noise(clean, index, self.reference_eps_255, self.seed)
        parts = with_parts(clean, inputs.adversarial[place] - clean, noise)
        for target, (name, network) in enumerate(inputs.networks.items()):
            whole = inputs.logits[name][place]
            for number, images in enumerate(parts):
                known = number == 0 or not len(images)  # the whole perturbation, or no image
                logits = whole if known else network(images)
                top = top_predictions(name, logits, labels)
                keys = [torch.full_like(index, key) for key in (target, number)]
                self.append([*keys, index, labels, top.classes], [top.true, top.confidences])

    def compute(self) -> pa.Table:
        """Return one row per image, target and band; see `filtered_table`."""
        whole, real = self.rows(3)
        target, number, index, label = whole[:, :4].T
        rows = {
            "index": index,
            "label": label,
            "target": self.target_names(target),
            "eps_255": number,
            **prediction_columns(whole[:, 4:], real[:, 1:], real[:, 0]),
        }
        return filtered_table(pa.table(rows), self.reference_eps_255, "attack")


class NoiseParts(AdversarialSource):
    """The parts of random-sign noise, each under the number of its band in a budget's place.

    They are the control of the perturbations' parts, made by `with_parts` of the noise of the
    budget, clipped to [0, 1].

    Args:
        eps_255: The budget of the noise, in units of 1/255.
        seed: Of the noise, which is that of the control `noise`.
    """

    def __init__(self, eps_255: float, seed: int) -> None:
        super().__init__(range(len(BOUNDS)), "linf")
        self.eps_255, self.seed = eps_255, seed

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the clean images with each part of their noise."""
        noise = budget_noise(images, batch.index, self.eps_255, self.seed)
        return AdversarialBatch(with_parts(images, noise, noise))


class LowPassedImages(AdversarialSource):
    """The clean images without their high frequencies, each under its cutoff in a budget's place.

    Frequencies below a cutoff stay, of the image mirrored at its borders. Clipped to [0, 1]
    afterwards.
    """

    def __init__(self) -> None:
        super().__init__(CUTOFFS, "linf")

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the clean images below each cutoff."""
        parts = [low_passed(images, cutoff).clamp(0, 1) for cutoff in self.budgets]
        return AdversarialBatch(torch.stack(parts))


def budget_noise(clean: Tensor, index: Tensor, eps_255: float, seed: int) -> Tensor:
    """Return what random-sign noise of a budget changes in images (N, 3, H, W) in [0, 1]."""
    return (clean + eps_255 / 255 * noise_signs(seed, index, clean)).clamp(0, 1) - clean


def with_parts(clean: Tensor, change: Tensor, noise: Tensor) -> Tensor:
    """Return clean images with each part of their perturbations alone, clipped to [0, 1].

    Each part is scaled to the length (L2 norm) of the noise, so that parts of all attacks, and of
    the noise itself, are equally strong. The whole stays as it is, and so does a part that is zero.

    Args:
        clean: float32 (N, 3, H, W) in [0, 1].
        change: The perturbations, of the same shape.
        noise: Random-sign noise of the same budget, see `budget_noise`.

    Returns:
        Shape (B, N, 3, H, W), of the B bands of `BOUNDS`.
    """
    _, *bands = BOUNDS.values()
    parts = [change, *(rescaled(band(change, *ends), noise) for ends in bands)]
    return torch.stack([(clean + part).clamp(0, 1) for part in parts])


def rescaled(part: Tensor, whole: Tensor) -> Tensor:
    """Return parts (N, 3, H, W) of perturbations, each with the L2 norm of a whole one."""
    lengths = [torch.linalg.vector_norm(x, dim=_AXES, keepdim=True) for x in (whole, part)]
    factor = lengths[0] / lengths[1].clamp_min(_NOTHING)
    return part * torch.where(part.abs().amax(dim=_AXES, keepdim=True) > _NOTHING, factor, 1)


def filtered_table(rows: pa.Table, eps_255: float, kind: str) -> pa.Table:
    """Return rows of the table `filtered`: predictions for parts of perturbations.

    The columns are `index`, `label`, `target`, `eps_255`, `band`, `kind` (`attack`, or `noise`,
    its control), `frequency_low` and `frequency_high` (of the band, in cycles per pixel), and
    `predicted`, `confidence`, `true_confidence`, `top5_classes` and `top5_confidences`.

    Args:
        rows: Predictions, with the numbers of the bands in the column `eps_255`.
        eps_255: Budget of the whole perturbations, in units of 1/255.
        kind: Whose parts they are.
    """
    number = rows["eps_255"].to_numpy().astype(np.int64)
    low, high = np.array(list(BOUNDS.values())).T
    size = len(rows)
    columns = {name: rows[name] for name in ("index", "label", "target")}
    columns |= {
        "eps_255": pa.array([float(eps_255)] * size, pa.float64()),
        "band": pa.array(list(BOUNDS)).take(pa.array(number)),
        "kind": pa.array([kind] * size, pa.string()),
        "frequency_low": low[number],
        "frequency_high": np.minimum(CORNER, high)[number],
    }
    first = rows.column_names.index("predicted")
    return pa.table(columns | {name: rows[name] for name in rows.column_names[first:]})
