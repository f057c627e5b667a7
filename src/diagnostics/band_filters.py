"""Images without some of their frequencies, or with one band of a perturbation alone."""

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
"""Largest change, in [0, 1] units, that is rounding of float32 pixels and is not scaled up."""

BOUNDS: Mapping[str, tuple[float, float]] = {
    "all": (0.0, math.inf),
    "low": (0.0, 0.125),
    "mid": (0.125, 0.25),
    "high": (0.25, math.inf),
}
"""Frequencies [from, below) of each band in cycles per pixel; the constant is in `low`."""
CUTOFFS = (0.0625, 0.125, 0.1875, 0.25, 0.375)
"""Cutoffs of low-passed images, in cycles per pixel."""


class Filtered(Diagnostic):
    """Evaluate every target on the low, mid and high frequencies of the perturbations alone.

    The parts are those of `with_parts`, for the budget `reference_eps_255` and noise drawn by
    `seed`; of the band `all`, the whole perturbation, the predictions are the job's own.
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
    """Parts of random-sign noise, made by `with_parts`: the control of the perturbations' parts.

    The number of its band stands in the place of each part's budget. The noise has the budget
    `eps_255`, in units of 1/255, and is that of the control `noise`.
    """

    def __init__(self, eps_255: float, seed: int) -> None:
        super().__init__(range(len(BOUNDS)), "linf")
        self.eps_255, self.seed = eps_255, seed

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the clean images with each part of their noise."""
        noise = budget_noise(images, batch.index, self.eps_255, self.seed)
        return AdversarialBatch(with_parts(images, noise, noise))


class LowPassedImages(AdversarialSource):
    """Clean images without high frequencies, each with its cutoff in the place of its budget.

    Frequencies below the cutoff of the mirrored image stay; the result is clipped to [0, 1].
    """

    def __init__(self) -> None:
        super().__init__(CUTOFFS, "linf")

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the clean images below each cutoff."""
        parts = [low_passed(images, cutoff).clamp(0, 1) for cutoff in self.budgets]
        return AdversarialBatch(torch.stack(parts))


def budget_noise(clean: Tensor, index: Tensor, eps_255: float, seed: int) -> Tensor:
    """Return the change of images (N, 3, H, W), clipped to [0, 1], by random-sign noise."""
    return (clean + eps_255 / 255 * noise_signs(seed, index, clean)).clamp(0, 1) - clean


def with_parts(clean: Tensor, change: Tensor, noise: Tensor) -> Tensor:
    """Return clean images, float32 (N, 3, H, W), with each part of their perturbations alone.

    Each part is scaled to the length (L2 norm) of random-sign noise of the same budget, so that
    parts of all attacks, and of the noise itself, are equally strong. The whole stays as it is, and
    so does a part that is zero. The result, clipped to [0, 1], is of shape (B, N, 3, H, W), with
    the B bands of `BOUNDS`.
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

    The columns are `index`, `label`, `target`, `eps_255` (of the whole perturbation), `band`,
    `kind` (`attack`, or `noise`, its control), `frequency_low` and `frequency_high` (of the band,
    in cycles per pixel), and `predicted`, `confidence`, `true_confidence`, `top5_classes` and
    `top5_confidences`. In `rows` the column `eps_255` has the numbers of the bands.
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
