"""Perturbations by frequency: spectra, and predictions with filtered perturbations."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..artifacts.tables import EPS_255, FLOAT, INDEX, INTEGER, LABEL, PREDICTED, TEXT, column
from ..attacks import noise_signs
from .prediction_rows import Level, predict, prediction_rows, to_lists, to_numpy
from .protocol import EvaluatedBatch, Job, Measurement

CORNER = math.sqrt(0.5)
"""Highest frequency of a square grid of pixels, along its diagonal."""
FREQUENCIES = tuple(column(f"frequency_{end}", FLOAT, 0, CORNER) for end in ("low", "high"))
"""Columns of a band [low, high) of frequencies."""
_FINEST = 64
_ROUNDING = 1e-9  # keeps frequencies on a bound above it


def radii(height: int, width: int) -> Tensor:
    """Return the frequency of each Fourier coefficient, float64 (H, W), in cycles per pixel."""
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width)]
    return torch.hypot(axes[0][:, None], axes[1][None, :])


def radial_bins(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the bounds of radial bins, float64 (B + 1,), and each coefficient's bin, int64 (H, W).

    Bins are 1/64 cycle per pixel wide for images of at least 64 pixels. For smaller ones they are
    1/H wide, H being the shorter side: finer bins could be empty. The bounds go from 0 to
    sqrt(1/2), where the last bin is cut off.
    """
    bins = min(_FINEST, height, width)  # in one cycle per pixel
    edges = torch.arange(math.ceil(CORNER * bins) + 1, dtype=torch.float64) / bins
    number = (radii(height, width) * bins + _ROUNDING).long()
    return edges.clamp_max(CORNER), number.clamp_max(len(edges) - 2)


def radial_power(images: Tensor) -> Tensor:
    """Compute the power of images (N, 3, H, W) in each bin of `radial_bins`, float64 (N, B).

    Power is the mean over channels of |F|^2 without the constant term; F is the orthonormal
    two-dimensional Fourier transform of a channel. By Parseval, the power of all bins adds up to
    the mean over channels of the sum of squares about the channel's mean.
    """
    edges, number = radial_bins(*images.shape[-2:])
    spectra = torch.fft.fft2(images - images.mean(dim=(-2, -1), keepdim=True), norm="ortho")
    power = spectra.abs().square().mean(dim=1).flatten(1)
    power = (power.cpu() if power.device.type == "mps" else power).double()
    member = torch.nn.functional.one_hot(number.flatten(), len(edges) - 1)
    return power @ member.to(power)  # scattering would add in random order on a GPU


def band(images: Tensor, low: float, high: float) -> Tensor:
    """Return the frequencies in [low, high) of images (..., H, W), by an ideal filter.

    Adjacent bands have no frequency in common, so the bands of a partition add up to the image.
    """
    radius = radii(*images.shape[-2:]) + _ROUNDING
    mask = ((radius >= low) & (radius < high)).to(images.device)
    return torch.fft.ifft2(torch.fft.fft2(images) * mask).real.to(images.dtype)


def low_passed(images: Tensor, cutoff: float) -> Tensor:
    """Return images (..., H, W) without frequencies of `cutoff` or more.

    The images are first mirrored at their borders, as in a cosine transform. Otherwise the Fourier
    transform, which treats images as periodic, would mix opposite borders.
    """
    height, width = images.shape[-2:]
    beside = torch.cat([images, images.flip(-1)], dim=-1)
    mirrored = torch.cat([beside, beside.flip(-2)], dim=-2)
    return band(mirrored, 0, cutoff)[..., :height, :width]


_LEAST_SUM = 1e-9
"""Largest power that can come from the rounding of float32 pixels alone."""


class Spectra(Measurement):
    """Radial power spectra of clean images and of their perturbations at the reference budget."""

    name = "spectra"
    counts = (column("n", INTEGER, 0), column("share", FLOAT, 0, 1 + 1e-9, nan=True))
    schema = pa.schema([column("kind", TEXT), EPS_255, *FREQUENCIES, *counts])
    by_target = False

    def budgets(self, job: Job) -> tuple[float, ...]:
        """Return the reference budget."""
        return (job.reference,)

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image: `clean` and `perturbation`, lists of the power in each bin.

        See `radial_power`.
        """
        change = batch.version(*batch.budgets).adversarial - batch.clean
        columns = {
            "index": to_numpy(batch.batch.index),
            "clean": to_lists(radial_power(batch.clean)),
            "perturbation": to_lists(radial_power(change)),
        }
        return pa.table(columns)

    def finish(self, table: pa.Table, job: Job) -> pa.Table:
        """Return the means over the images, see `mean_spectra`."""
        return mean_spectra(table, job.images.image_size, job.reference)


def mean_spectra(rows: pa.Table, side: int, reference_eps_255: float) -> pa.Table:
    """Compute one row per kind and radial bin, for images with `side` pixels, by frequency.

    The columns are `kind` (`image` or `perturbation`), `eps_255` (0 for images), `frequency_low`
    and `frequency_high` (of the bin, in cycles per pixel), `n` and `share` (the bin's share of the
    image's power, see `radial_power`, averaged over n images). Bins that contain no frequency
    except the constant are left out. Images without power, such as those for which an attack found
    no gradient, do not count in n; if no image counts, the share is NaN.
    """
    edges, number = (part.numpy() for part in radial_bins(side, side))
    bins = np.unique(number.flatten()[1:])
    tables = []
    for kind, eps_255, column_name in (
        ("image", 0.0, "clean"),
        ("perturbation", reference_eps_255, "perturbation"),
    ):
        flat = rows[column_name].combine_chunks().flatten().to_numpy()
        sums = flat.reshape(len(rows), -1)
        sums = sums[sums.sum(axis=1) > _LEAST_SUM]
        shares = sums / sums.sum(axis=1, keepdims=True)
        columns = {
            "kind": [kind] * len(bins),
            "eps_255": np.full(len(bins), eps_255),
            "frequency_low": edges[bins],
            "frequency_high": edges[bins + 1],
            "n": np.full(len(bins), len(sums)),
            "share": shares.mean(axis=0)[bins] if len(sums) else np.full(len(bins), np.nan),
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)


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
    parts = (column("band", TEXT), column("kind", TEXT), *FREQUENCIES)
    schema = pa.schema([INDEX, LABEL, EPS_255, *parts, *PREDICTED])
    order = ("frequency_low", "-frequency_high", "index")
    passes = len(BOUNDS)

    def __init__(self, kind: str, eps_255: float, seed: int) -> None:
        self.kind, self.attacked = kind, kind == "attack"
        self.eps_255, self.seed = eps_255, seed
        self.key_parts = [*BOUNDS.values()], eps_255, seed

    def budgets(self, job: Job) -> tuple[float, ...]:
        """Return the reference budget; the noise needs no adversarial images."""
        return (self.eps_255,) if self.attacked else ()

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image and band."""
        level: dict[str, Any] = {"kind": self.kind, "eps_255": self.eps_255}
        levels: list[Level] = [
            level | {"band": name, "frequency_low": low, "frequency_high": min(CORNER, high)}
            for name, (low, high) in BOUNDS.items()
        ]
        parts = batch.once("parts", partial(self._parts, batch))
        if not self.attacked:
            return predict(batch, levels, parts)
        assert batch.target is not None
        logits = batch.logits(*batch.budgets)  # those of the job
        whole = prediction_rows(batch.target, batch.batch, logits, levels[0])
        return pa.concat_tables([whole, predict(batch, levels[1:], parts[1:])])

    def _parts(self, batch: EvaluatedBatch) -> Tensor:
        """Return the images with single parts of the perturbation, see `with_parts`."""
        clean = batch.clean
        signs = noise_signs(self.seed, batch.batch.index, clean)
        noise = (clean + self.eps_255 / 255 * signs).clamp(0, 1) - clean
        change = batch.version(self.eps_255).adversarial - clean if self.attacked else noise
        return with_parts(clean, change, noise)


class LowPassed(Measurement):
    """Predictions of every target for clean images low-passed at each of `CUTOFFS`."""

    name = "low_passed"
    schema = pa.schema([INDEX, LABEL, column("cutoff", FLOAT, 0, CORNER), *PREDICTED])
    order = ("cutoff", "index")

    attacked = False
    key_parts = CUTOFFS
    passes = len(CUTOFFS)

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image and cutoff, in cycles per pixel."""
        levels: list[Level] = [{"cutoff": cutoff} for cutoff in CUTOFFS]
        filtered = [partial(_low_passed, batch.clean, cutoff) for cutoff in CUTOFFS]
        return predict(batch, levels, map(batch.once, CUTOFFS, filtered))


def _low_passed(clean: Tensor, cutoff: float) -> Tensor:
    """Return low-passed images in [0, 1]."""
    return low_passed(clean, cutoff).clamp(0, 1)


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
