"""Power spectra of clean images and of perturbations."""

import numpy as np
import pyarrow as pa

from src.measure.diagnostic import Diagnostic, DiagnosticInput
from src.measure.fourier import radial_bins, radial_power
from src.measure.predictions import to_lists, to_numpy

_ROUNDING = 1e-9
"""Largest power that is rounding of float32 pixels alone."""


class Spectra(Diagnostic):
    """Radial power spectra of clean images and of their perturbations of the reference budget."""

    table = "spectra"

    def __init__(self, reference_eps_255: float) -> None:
        self.reference_eps_255 = reference_eps_255

    def measure(self, inputs: DiagnosticInput) -> pa.Table:
        """Return one row per image: `index`, and the power of the image and of its perturbation.

        `image` and `perturbation` are lists of the power in each bin, see `radial_power`.
        """
        place = inputs.budgets.index(self.reference_eps_255)
        change = inputs.adversarial[place] - inputs.clean
        return pa.table(
            {
                "index": to_numpy(inputs.batch.index),
                "image": to_lists(radial_power(inputs.clean)),
                "perturbation": to_lists(radial_power(change)),
            }
        )


def mean_spectra(rows: pa.Table, side: int, reference_eps_255: float) -> pa.Table:
    """Return one row per kind and radial bin of images of a side, by ascending frequency.

    The columns are `kind` (`image` or `perturbation`), `eps_255` (0 for images), `frequency_low`
    and `frequency_high` (of the bin, in cycles per pixel; bins without any frequency but the
    constant are left out), `n` and `share` (mean over images of the bin's part of the image's
    power, see `radial_power`). Images without power, as where an attack found no gradient, are not
    among the n; if all are, the share is NaN.
    """
    edges, number = (part.numpy() for part in radial_bins(side, side))
    bins = np.unique(number.flatten()[1:])
    tables = []
    for kind, eps_255 in (("image", 0.0), ("perturbation", reference_eps_255)):
        flat = rows[kind].combine_chunks().flatten().to_numpy()
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
