"""Success of an attack on resized copies of its source."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import center_crop

from src.artifacts.tables import FLOAT, INDEX, LABEL, column
from src.measure.prediction_rows import to_numpy
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.defended_names import Evaluated

SCALES = (0.6, 0.75, 0.9, 1.1, 1.3, 1.6)
"""Sizes of the copies' input, as shares of the image's."""


class SelfTransfer(Measurement):
    """Success at the reference budget on copies of the source that see a resized image.

    An image is resized (bilinear, antialiased), then cropped, or padded with zeros, at its centre
    to its own size. `fooled` is the share, of the copies of `SCALES` that are right about the
    clean image, that are wrong about the adversarial one; NaN if none is right. Only jobs with one
    source have the table.

    Reference:
        S4ST, arXiv 2410.13891: self-transferability.
    """

    name = "self_transfer"
    schema = pa.schema([INDEX, LABEL, column("fooled", FLOAT, 0, 1, nan=True)])
    in_all = False

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return the cell of the source."""
        settings = job.settings
        if settings.attack.kind == "crafted" and len(settings.source) == 1:
            source, budgets = Evaluated(settings.source_name), (settings.reference,)
            facts: dict[str, Any] = {"decides": SCALES, "passes": 2 * len(SCALES)}
            yield Cell(self.name, job.diagnosed.indices, source, budgets, **facts)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image."""
        (cell,) = cells
        labels = batch.batch.labels
        images = batch.clean, batch.version(*cell.budgets).adversarial
        right, still = (
            torch.stack([self._right(batch, cell, one, scale) for scale in SCALES])
            for one in images
        )
        fooled = (right & ~still).sum(dim=0).double() / right.sum(dim=0)  # 0 / 0 is NaN
        columns = {"index": batch.batch.index, "label": labels, "fooled": fooled}
        yield pa.table({name: to_numpy(values) for name, values in columns.items()})

    def _right(self, batch: EvaluatedBatch, cell: Cell, images: Tensor, scale: float) -> Tensor:
        """Return a mask of the images, (N,), whose true class a copy predicts."""
        logits = batch.classify(cell.target, resized(images, scale))
        return logits.argmax(dim=-1) == batch.batch.labels


def resized(images: Tensor, scale: float) -> Tensor:
    """Return images (N, 3, H, W) scaled about their centre, of the same size."""
    size = [round(scale * side) for side in images.shape[-2:]]
    scaled = functional.interpolate(images, size, mode="bilinear", antialias=True)
    return center_crop(scaled, list(images.shape[-2:]))
