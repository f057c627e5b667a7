"""Which images a report shows, by definition and not by hand."""

from collections.abc import Mapping, Sequence

import pandas as pd
import pyarrow as pa

from src.analysis.phenomena import gallery, phenomena

SHOWN = ("dip_and_recovery", "bounce_back", "ends_more_confident_wrong", "below_8_bits")
"""Kinds of images that have a gallery, in its order."""
EACH = 2
"""Most images of a kind in a pair's gallery."""


def chosen(images: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of the images to show, by kind; one image may be of several kinds.

    Args:
        images: Result of `src.analysis.phenomena.phenomena`.
    """
    return {kind: gallery(images, kind, EACH) for kind in SHOWN}


def gallery_images(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[str],
    protocol: str,
    probes: Mapping[str, pa.Table],
) -> set[int]:
    """Return the index of every image that the galleries of a job's pairs will show.

    Args:
        predictions: Of the job.
        source: Model that the adversarial images were made on.
        targets: Models that they were shown to.
        protocol: Which images are counted.
        probes: The tables that the job computed beside; `flips` refines the budgets.
    """
    flips = probes["flips"].to_pandas() if "flips" in probes else None
    wanted: set[int] = set()
    for target in targets:
        images = phenomena(predictions, source, target, protocol, flips)
        for rows in chosen(images).values():
            wanted.update(map(int, rows["index"]))
    return wanted
