"""Cost of attacks: gradients, and forward passes beside them."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from src.artifacts.tables import FLOAT, INDEX, column
from src.measure.prediction_rows import to_numpy
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement

_COUNTS = ("gradients", "zero_gradients", "forwards")


class AttackCost(Measurement):
    """Gradients, those of them that were zero in every pixel, and forward passes of an image.

    They are those of all budgets together, and of a batch shared out evenly among its images.
    """

    name = "crafting"
    schema = pa.schema([INDEX, *(column(name, FLOAT, 0) for name in _COUNTS)])
    key = None

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell of all images, unless they are saved ones."""
        if job.settings.attack.kind == "crafted":
            yield Cell(self.name, job.images.indices)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image; none where the images were at hand."""
        assert batch.adversarial is not None
        counts, index = batch.adversarial.counts, to_numpy(batch.batch.index)
        if counts is None:
            return [self.schema.empty_table()]
        shares = {
            name: np.full(len(index), n / len(index))
            for name, n in zip(_COUNTS, counts, strict=True)
        }
        return [pa.table({"index": index, **shares})]
