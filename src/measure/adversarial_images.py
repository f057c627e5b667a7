"""Adversarial images themselves, before any rounding."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from src.artifacts.tables import INDEX, SINGLE, column
from src.measure.prediction_rows import to_lists, to_numpy
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement


class AdversarialImages(Measurement):
    """Images that a page shows or a set saves; of small jobs all, so later targets cost no attack.

    A job that takes less than `store.images_mb` is small.
    """

    name = "images"
    schema = pa.schema([INDEX, column("adversarial", pa.list_(SINGLE), 0, 1)])
    key = None

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell for each budget: of the example images, or of all that are to be saved."""
        settings, every = job.settings, job.images.indices
        if settings.attack.kind != "crafted":
            return
        wanted = every if settings.save_adversarial else np.array(sorted(examples(job)), np.int64)
        size = 4 * 3 * job.images.image_size**2 * len(settings.budgets) * len(every)
        small = size <= settings.store.images_mb * 1e6
        cached = every if small else None
        for eps_255 in settings.budgets:
            yield Cell(self.name, wanted, budgets=(eps_255,), cached=cached, large=True)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image that was attacked now: its 3 H W values in [0, 1]."""
        assert batch.adversarial is not None
        for cell in cells:
            rows = ~batch.adversarial.cost_of(*cell.budgets)[0].isnan()
            images = batch.version(*cell.budgets).adversarial[rows.to(batch.clean.device)]
            index = to_numpy(batch.batch.index)[rows.numpy()]
            yield pa.table({"index": index, "adversarial": to_lists(images.flatten(1).float())})


def examples(job: Job) -> list[int]:
    """Return the index of the report's example images: those named, and some of all classes."""
    images, report = job.images, job.settings.report
    if unknown := sorted({*report.images} - {*images.indices.tolist()}):
        raise ValueError(
            f"report.images: the job has no image {unknown[0]} among its {len(images)}."
        )
    by_class = images.indices[np.argsort(images.labels, kind="stable")]
    count = min(report.examples, len(images))
    spread = [int(by_class[position * len(images) // count]) for position in range(count)]
    return list(dict.fromkeys([*report.images, *spread]))
