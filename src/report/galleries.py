"""Which images a report shows, by definition and not by hand."""

from collections.abc import Mapping

import pandas as pd
import pyarrow as pa

from src.analysis.trajectories import KINDS, gallery, trajectories
from src.record import JobRecord

EACH = 2
"""Most images of a kind in a pair's gallery."""


def chosen(images: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of the images to show, by kind; one image may be of several kinds.

    Args:
        images: Result of `src.analysis.trajectories.trajectories`, of one target.
    """
    return {kind: gallery(images, kind, EACH) for kind in KINDS if kind in images}


def gallery_images(
    predictions: pd.DataFrame, record: JobRecord, probes: Mapping[str, pa.Table]
) -> set[int]:
    """Return the index of every image that the galleries of a job's pairs will show.

    Args:
        predictions: Of the job.
        record: What the job was.
        probes: The tables that the job computed beside; `flips` refines the budgets.
    """
    flips = probes["flips"].to_pandas() if "flips" in probes else None
    wanted: set[int] = set()
    images = trajectories(
        predictions, record.source, record.targets, record.protocol, flips, record.norm
    )
    for _, its in images.groupby("target"):
        for rows in chosen(its).values():
            wanted.update(map(int, rows["index"]))
    return wanted
