"""At which frequencies images and perturbations have their power."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from src.diagnostics.frequency import radial_edges, radial_power
from src.evaluation import Diagnostic, DiagnosticInput

_ROUNDING = 1e-12
"""Power, as a share of the whole, that float32 leaves where there is none."""


class Spectra(Diagnostic):
    """Average the radial power spectra of clean images and of perturbations.

    Args:
        targets: Names of the targets.
        reference_eps_255: The budget of the perturbations, in units of 1/255.
    """

    table = "spectra"

    def __init__(self, targets: Sequence[str], reference_eps_255: float) -> None:
        super().__init__(targets)
        self.reference_eps_255 = reference_eps_255
        self.height, self.width = 0, 0

    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        self.height, self.width = inputs.clean.shape[-2:]
        place = inputs.budgets.index(self.reference_eps_255)
        columns = []
        for images in (inputs.clean, inputs.adversarial[place] - inputs.clean):
            sums, self.coefficients, constant = radial_power(images)
            columns += [constant, sums]
        self.append([inputs.batch.index], columns)

    def compute(self) -> pa.Table:
        """Return one row per kind and radial bin, images first, by ascending frequency.

        The columns are `kind` (`image` or `perturbation`), `eps_255` (0 for images),
        `frequency_low` and `frequency_high` (of the bin, in cycles per pixel), `coefficients`
        (how many frequencies lie in it; bins without any are left out), `n`, `power` (mean over
        images and coefficients, see `radial_power`), `share` (mean over images of the bin's part
        of the image's power without the constant term) and `share_sd` (their standard deviation;
        NaN for one image). Images without power, as where an attack found no gradient, are not
        among the n; if all are, the averages are NaN.
        """
        _, real = self.rows(1)
        edges = radial_edges(self.height, self.width).numpy()
        coefficients = self.coefficients.numpy()
        held = coefficients > 0
        parts = [
            _averages(rows, coefficients)
            for rows in np.split(real, 2, axis=1)  # of images and of perturbations
        ]
        kinds = (("image", 0.0), ("perturbation", self.reference_eps_255))
        return pa.concat_tables(
            pa.table(
                {
                    "kind": [kind] * int(held.sum()),
                    "eps_255": np.full(held.sum(), eps_255),
                    "frequency_low": edges[:-1][held],
                    "frequency_high": edges[1:][held],
                    "coefficients": coefficients[held],
                    **{name: column[held] for name, column in columns.items()},
                }
            )
            for (kind, eps_255), columns in zip(kinds, parts, strict=True)
        )


def _averages(rows: np.ndarray, coefficients: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns that average over images.

    Args:
        rows: For each image the constant term's power and that of each bin, (N, 1 + B).
        coefficients: How many frequencies each bin holds, (B,).
    """
    constant, sums = rows[:, 0], rows[:, 1:]
    total = sums.sum(axis=1)
    some = total > _ROUNDING * (total + constant)
    n, bins = int(some.sum()), sums.shape[1]
    nothing = np.full(bins, np.nan)
    shares = sums[some] / total[some, None]
    return {
        "n": np.full(bins, n),
        "power": sums[some].mean(axis=0) / np.maximum(coefficients, 1) if n else nothing,
        "share": shares.mean(axis=0) if n else nothing,
        "share_sd": shares.std(axis=0, ddof=1) if n > 1 else nothing,
    }
