"""Number of a job's images that are for tuning: a preset's settings were chosen on them."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..artifacts.card import read_facts
from ..artifacts.finished_job import FinishedJob
from ..artifacts.layout import PREDICTIONS
from ..config.fields import find_preset


def images_text(jobs: Iterable[FinishedJob]) -> str:
    """Say how many images of jobs beside a preset are for tuning; empty if none are."""
    texts = dict[str, None]()
    for job in jobs:
        if preset := job.record.config.get("beside"):
            images = {*job.read(PREDICTIONS)["image"].unique().to_pylist()}
            tuning = len(images & _tuning_images(find_preset(preset)))
            part = "all" if tuning == len(images) else f"{tuning} of them"
            texts |= {f"{len(images)} images, {part} for tuning": None} if tuning else {}
    return "; ".join(texts)


@cache
def _tuning_images(path: Path) -> set[str]:
    """Return the digests of a preset's images for tuning, without reading its jobs."""
    rows = pq.read_table(path, columns=["index", "image"], read_dictionary=["image"])
    tuning = pa.array(read_facts(path)["tuning"], pa.int64())
    return {*rows.filter(pc.is_in(rows["index"], tuning))["image"].unique().to_pylist()}
