"""Power spectra of clean images and of perturbations."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from src.diagnostics.frequency import radial_bins, radial_power
from src.evaluation import Diagnostic, DiagnosticInput

_ROUNDING = 1e-9
"""Largest power that is rounding of float32 pixels alone."""


class Spectra(Diagnostic):
    """Mean radial power spectra of clean images and of perturbations of the reference budget."""

    table = "spectra"

    def __init__(self, targets: Sequence[str], reference_eps_255: float) -> None:
        super().__init__(targets)
        self.reference_eps_255 = reference_eps_255
        self.sides = torch.Size((0, 0))

    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        self.sides = inputs.clean.shape[-2:]
        place = inputs.budgets.index(self.reference_eps_255)
        change = inputs.adversarial[place] - inputs.clean
        self.append([inputs.batch.index], [radial_power(inputs.clean), radial_power(change)])

    def compute(self) -> pa.Table:
        """Return one row per kind and radial bin, images first, by ascending frequency.

        The columns are `kind` (`image` or `perturbation`), `eps_255` (0 for images),
        `frequency_low` and `frequency_high` (of the bin, in cycles per pixel; bins without any
        frequency but the constant are left out), `n` and `share` (mean over images of the bin's
        part of the image's power, see `radial_power`). Images without power, as where an attack
        found no gradient, are not among the n; if all are, the share is NaN.
        """
        _, power = self.rows(1)
        edges, number = (part.numpy() for part in radial_bins(*self.sides))
        bins = np.unique(number.flatten()[1:])
        tables = []
        kinds = (("image", 0.0), ("perturbation", self.reference_eps_255))
        for (kind, eps_255), sums in zip(kinds, np.split(power, 2, axis=1), strict=True):
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
