"""The tables that `diagnostics.tables` names, in the order in which a batch is measured."""

from .frequencies import BandFilters, LowPassed, Spectra
from .protocol import Measurement
from .similarity import GradientSimilarity
from .visibility import Visibility


def make_tables(eps_255: float, seed: int, max_batch: int) -> list[Measurement]:
    """Return the measurements of all tables.

    Args:
        eps_255: The reference budget, in units of 1/255.
        seed: Seed of the noise.
        max_batch: Largest number of images in a gradient batch.
    """
    filtered = [BandFilters(kind, eps_255, seed) for kind in ("attack", "noise")]
    return [Spectra(), Visibility(), *filtered, LowPassed(), GradientSimilarity(max_batch)]


TABLES = [*dict.fromkeys(table.name for table in make_tables(0, 0, 1))]
"""Names of the tables."""
