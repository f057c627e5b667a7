"""Power spectra of clean images and of perturbations."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from ..artifacts.tables import EPS_255, FLOAT, INTEGER, TEXT, column
from .fourier import FREQUENCIES, radial_bins, radial_power
from .prediction_rows import to_lists, to_numpy
from .protocol import EvaluatedBatch, Job, Measurement, RowRequest

_ROUNDING = 1e-9
"""Largest power that can come from the rounding of float32 pixels alone."""


class Spectra(Measurement):
    """Radial power spectra of clean images and of their perturbations at the reference budget."""

    name = "spectra"
    counts = (column("n", INTEGER, 0), column("share", FLOAT, 0, 1 + 1e-9, nan=True))
    schema = pa.schema([column("kind", TEXT), EPS_255, *FREQUENCIES, *counts])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request of the diagnosed images."""
        yield RowRequest(self.name, job.diagnosed.indices, budgets=(job.settings.reference,))

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image: `clean` and `perturbation`, lists of the power in each bin.

        See `radial_power`.
        """
        change = batch.version(batch.settings.reference).adversarial - batch.clean
        columns = {
            "index": to_numpy(batch.batch.index),
            "clean": to_lists(radial_power(batch.clean)),
            "perturbation": to_lists(radial_power(change)),
        }
        return [pa.table(columns)]

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return the means over the images, see `mean_spectra`."""
        return mean_spectra(tables[name], job.images.image_size, job.settings.reference)


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
        sums = sums[sums.sum(axis=1) > _ROUNDING]
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
