"""Images without some of their frequencies, or with a single band of the perturbation."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from ..artifacts.tables import EPS_255, FLOAT, INDEX, LABEL, PREDICTED, TEXT, column
from ..attacks import noise_signs
from ..utils.model_names import ModelRef
from .fourier import CORNER, FREQUENCIES, band, low_passed
from .prediction_rows import Level, predict
from .protocol import EvaluatedBatch, Job, Measurement, RowRequest

_AXES = (-3, -2, -1)
_NOTHING = 1e-6
"""Largest change, in [0, 1] units, that counts as rounding of float32 pixels: not scaled up."""

BOUNDS: Mapping[str, tuple[float, float]] = {
    "all": (0.0, math.inf),
    "low": (0.0, 0.125),
    "mid": (0.125, 0.25),
    "high": (0.25, math.inf),
}
"""Frequencies [from, below) of each band in cycles per pixel; the constant belongs to `low`."""
CUTOFFS = (0.0625, 0.125, 0.1875, 0.25, 0.375)
"""Cutoffs of low-passed images, in cycles per pixel."""


class BandFilters(Measurement):
    """Predictions for images with only the low, mid or high frequencies of the perturbation.

    The perturbations are the attack's at the reference budget (`kind` `attack`) and, as a control,
    random-sign noise of that budget (`noise`). `with_parts` makes the parts. The columns are
    `eps_255` (of the whole perturbation), `frequency_low` and `frequency_high` (of the band, in
    cycles per pixel). For the band `all`, the attack's predictions are those of the job.
    """

    name = "filtered"
    schema = pa.schema(
        [
            INDEX,
            LABEL,
            EPS_255,
            column("band", TEXT),
            column("kind", TEXT),
            *FREQUENCIES,
            *PREDICTED,
        ]
    )
    order = ("frequency_low", "-frequency_high", "index")

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return two requests per target: for the attack and for the noise."""
        settings, index = job.settings, job.diagnosed.indices
        for target in map(ModelRef.parse, settings.targets):
            budgets, bands = (settings.reference,), [*BOUNDS.values()]
            attack, noise = (bands, settings.seed), (*budgets, bands, settings.seed)
            facts: dict[str, Any] = {"target": target, "passes": len(bands)}
            yield RowRequest(self.name, index, budgets=budgets, key_parts=attack, **facts)
            yield RowRequest(self.name, index, key_parts=noise, attacked=False, **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image and band."""
        eps_255, clean = batch.settings.reference, batch.clean
        noise = _budget_noise(clean, batch.batch.index, eps_255, batch.settings.seed)
        attacked = batch.source is not None
        change = batch.version(eps_255).adversarial - clean if attacked else noise
        parts = with_parts(clean, change, noise)
        versions: list[tuple[Level, Callable[[ModelRef], Tensor]]] = []
        for (name, (low, high)), images in zip(BOUNDS.items(), parts, strict=True):
            level = {"band": name, "kind": "attack" if attacked else "noise", "eps_255": eps_255}
            level |= {"frequency_low": low, "frequency_high": min(CORNER, high)}
            versions.append((level, partial(batch.classify, images=images)))
        if attacked:  # the job's own logits
            versions[0] = versions[0][0], partial(batch.logits, eps_255=eps_255)
        return predict(batch, requests, versions)


class LowPassed(Measurement):
    """Predictions of every target for clean images low-passed at each of `CUTOFFS`."""

    name = "low_passed"
    schema = pa.schema([INDEX, LABEL, column("cutoff", FLOAT, 0, CORNER), *PREDICTED])
    order = ("cutoff", "index")

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for each target."""
        facts: dict[str, Any] = {"key_parts": CUTOFFS, "attacked": False, "passes": len(CUTOFFS)}
        for target in map(ModelRef.parse, job.settings.targets):
            yield RowRequest(self.name, job.diagnosed.indices, target, **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image and cutoff, in cycles per pixel."""
        versions = (
            ({"cutoff": cutoff}, partial(batch.classify, images=images.clamp(0, 1)))
            for cutoff in CUTOFFS
            for images in [low_passed(batch.clean, cutoff)]
        )
        return predict(batch, requests, versions)


def _budget_noise(clean: Tensor, index: Tensor, eps_255: float, seed: int) -> Tensor:
    """Return the change of images (N, 3, H, W) by random-sign noise, after clipping to [0, 1]."""
    return (clean + eps_255 / 255 * noise_signs(seed, index, clean)).clamp(0, 1) - clean


def with_parts(clean: Tensor, change: Tensor, noise: Tensor) -> Tensor:
    """Add single parts of the perturbations to clean images, float32 (N, 3, H, W).

    Each part is scaled to the L2 norm of random-sign noise of the same budget, so that the parts of
    all attacks are equally strong. The whole perturbation and parts that are zero are not scaled.
    The result, clipped to [0, 1], has shape (B, N, 3, H, W) for the B bands of `BOUNDS`.
    """
    _, *bands = BOUNDS.values()
    parts = [change, *(rescaled(band(change, *ends), noise) for ends in bands)]
    return torch.stack([(clean + part).clamp(0, 1) for part in parts])


def rescaled(part: Tensor, perturbation: Tensor) -> Tensor:
    """Scale parts of perturbations, (N, 3, H, W), to the L2 norms of `perturbation`."""
    lengths = [torch.linalg.vector_norm(x, dim=_AXES, keepdim=True) for x in (perturbation, part)]
    factor = lengths[0] / lengths[1].clamp_min(_NOTHING)
    return part * torch.where(part.abs().amax(dim=_AXES, keepdim=True) > _NOTHING, factor, 1)
