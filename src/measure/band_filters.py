"""Images without some of their frequencies, or with one band of a perturbation alone."""

import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from src.attacks import noise_signs
from src.images.adversarial_source import Probe
from src.measure.diagnostic import Diagnostic, DiagnosticInput
from src.measure.fourier import CORNER, band, low_passed
from src.measure.predictions import prediction_rows

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

    def __init__(self, reference_eps_255: float, seed: int = 0) -> None:
        self.levels = _bands(reference_eps_255, "attack")
        self.reference_eps_255, self.seed = reference_eps_255, seed

    def measure(self, inputs: DiagnosticInput) -> pa.Table:
        """Return one row per image, target and band.

        The columns are `index`, `label`, `target`, `eps_255` (of the whole perturbation), `band`,
        `kind` (`attack`, or `noise`, its control), `frequency_low` and `frequency_high` (of the
        band, in cycles per pixel), and those of a prediction.
        """
        index, labels, clean = inputs.batch.index, inputs.batch.labels, inputs.clean
        place = inputs.budgets.index(self.reference_eps_255)
        noise = _budget_noise(clean, index, self.reference_eps_255, self.seed)
        parts = with_parts(clean, inputs.adversarial[place] - clean, noise)
        tables = []
        for name, network in inputs.networks.items():
            for number, images in enumerate(parts):
                logits = network(images) if number else inputs.logits[name][place]
                level = self.levels.slice(number, 1)
                tables.append(prediction_rows(name, level, index, labels, logits))
        return pa.concat_tables(tables).drop_columns(["target_label", "draws", "draws_correct"])


def noise_parts(eps_255: float, seed: int) -> Probe:
    """Return the control of `Filtered`: the same parts of random-sign noise of a budget."""

    def make(images: Tensor, index: Tensor) -> Tensor:
        noise = _budget_noise(images, index, eps_255, seed)
        return with_parts(images, noise, noise)

    return Probe(_bands(eps_255, "noise"), make)


def low_passed_images() -> Probe:
    """Return clean images without their frequencies from each of `CUTOFFS` on, in [0, 1]."""

    def make(images: Tensor, index: Tensor) -> Tensor:
        return torch.stack([low_passed(images, cutoff).clamp(0, 1) for cutoff in CUTOFFS])

    return Probe(pa.table({"cutoff": CUTOFFS}), make)


def _bands(eps_255: float, kind: str) -> pa.Table:
    """Return the columns of `filtered` that tell the bands of a kind apart."""
    low, high = np.array(list(BOUNDS.values())).T
    return pa.table(
        {
            "eps_255": [float(eps_255)] * len(BOUNDS),
            "band": list(BOUNDS),
            "kind": [kind] * len(BOUNDS),
            "frequency_low": low,
            "frequency_high": np.minimum(CORNER, high),
        }
    )


def _budget_noise(clean: Tensor, index: Tensor, eps_255: float, seed: int) -> Tensor:
    """Return the change of images (N, 3, H, W), clipped to [0, 1], by random-sign noise."""
    return (clean + eps_255 / 255 * noise_signs(seed, index, clean)).clamp(0, 1) - clean


def with_parts(clean: Tensor, change: Tensor, noise: Tensor) -> Tensor:
    """Return clean images, float32 (N, 3, H, W), with each part of their perturbations alone.

    Each part is scaled to the length (L2 norm) of random-sign noise of the same budget: parts of
    all attacks are equally strong. The whole, and a part that is zero, stay as they are. The
    result, clipped to [0, 1], is of shape (B, N, 3, H, W), with the B bands of `BOUNDS`.
    """
    _, *bands = BOUNDS.values()
    parts = [change, *(rescaled(band(change, *ends), noise) for ends in bands)]
    return torch.stack([(clean + part).clamp(0, 1) for part in parts])


def rescaled(part: Tensor, whole: Tensor) -> Tensor:
    """Return parts (N, 3, H, W) of perturbations, each with the L2 norm of a whole one."""
    lengths = [torch.linalg.vector_norm(x, dim=_AXES, keepdim=True) for x in (whole, part)]
    factor = lengths[0] / lengths[1].clamp_min(_NOTHING)
    return part * torch.where(part.abs().amax(dim=_AXES, keepdim=True) > _NOTHING, factor, 1)
