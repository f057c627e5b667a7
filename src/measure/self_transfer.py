"""Transfer from a source to resized copies of itself."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.functional import center_crop

from src.artifacts.tables import FLOAT, INDEX, LABEL, column
from src.measure.prediction_rows import image_rows
from src.measure.protocol import EvaluatedBatch, Job, Measurement, RowRequest
from src.utils.model_names import ModelRef

_SCALES = (0.6, 0.75, 0.9, 1.1, 1.3, 1.6)


class SelfTransfer(Measurement):
    """Share of resized copies of a single source that its adversarial image fools.

    A copy is the source, without a defence, on images that are resized by a factor and then cropped
    or zero-padded about the centre to their old side. Among the copies that classify the clean
    image correctly, `fooled` is the share that misclassifies the adversarial image of the reference
    budget: in [0, 1], or NaN if no copy is correct. A source of several models has no rows.

    Reference:
        Liu et al. (2024), arXiv 2410.13891, for self-transferability. The scales are our own.
    """

    name = "self_transfer"
    in_all = False
    schema = pa.schema([INDEX, LABEL, column("fooled", FLOAT, 0, 1, nan=True)])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for the source."""
        settings, passes = job.settings, 2 * len(_SCALES)
        facts: dict[str, Any] = {"budgets": (settings.reference,), "key_parts": _SCALES}
        for name in settings.source if len(settings.source) == 1 else ():
            yield RowRequest(
                self.name, job.diagnosed.indices, ModelRef.parse(name), passes=passes, **facts
            )

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        (request,) = requests
        versions = batch.clean, batch.version(*request.budgets).adversarial
        on_clean, on_adversarial = (
            torch.stack([_right(batch, request, images, scale) for scale in _SCALES])
            for images in versions
        )
        fooled = (on_clean & ~on_adversarial).sum(dim=0).double() / on_clean.sum(dim=0)
        yield image_rows(batch.batch, fooled=fooled)


def _right(batch: EvaluatedBatch, request: RowRequest, images: Tensor, scale: float) -> Tensor:
    """Return a CPU mask of images (N, 3, H, H) whose resized copies are classified correctly."""
    side = images.shape[-1]
    size = [round(scale * side)] * 2
    resized = functional.interpolate(images, size, mode="bilinear", antialias=True)
    logits = batch.classify(request.target, center_crop(resized, [side, side]))
    return (logits.argmax(dim=1) == batch.batch.labels).cpu()
