"""Similarity of the gradients of source and targets."""

from collections.abc import Sequence
from functools import partial
from typing import cast

import pyarrow as pa
import torch
from torch import Tensor, nn

from ..artifacts.tables import FLOAT, INDEX, LABEL, column
from ..attacks import LOSSES, Model
from ..models import Ensemble
from ..utils.model_names import ModelRef
from .prediction_rows import image_rows
from .protocol import EvaluatedBatch, Job, Measurement


class GradientSimilarity(Measurement):
    """Cosine between the gradients of the source and of a target at the clean image.

    The gradients are those of the cross-entropy of the true class; an ensemble is differentiated as
    it is attacked. They are not counted as cost. The cosine is NaN if one of them is zero
    everywhere.

    Args:
        max_batch: Largest number of images in a gradient batch.

    Reference:
        Liu, Chen, Liu, Song: Delving into Transferable Adversarial Examples and Black-Box Attacks
        (2017), arXiv 1611.02770, for the cosine.
    """

    name = "similarity"
    schema = pa.schema([INDEX, LABEL, column("cosine", FLOAT, -1, 1, nan=True)])

    attacked = False
    passes = 3  # of a gradient

    def __init__(self, max_batch: int) -> None:
        self.max_batch = max_batch

    def others(self, job: Job) -> Sequence[ModelRef]:
        """Return the source."""
        return [job.source]

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per image."""
        models = (*self.others(batch.job), cast(ModelRef, batch.target))
        gradients = [batch.once(model, partial(self._gradients, batch, model)) for model in models]
        return image_rows(batch.batch, cosine=cosines(*gradients))

    def _gradients(self, batch: EvaluatedBatch, model: ModelRef) -> Tensor:
        """Return the gradients of a model at the clean images, float64 (N, D)."""
        images = batch.clean, batch.batch.labels, self.max_batch
        return input_gradients(batch.networks[model], *images).flatten(1)


def input_gradients(network: nn.Module, images: Tensor, labels: Tensor, size: int) -> Tensor:
    """Compute gradients of the cross-entropy with respect to the images, float64 (N, 3, H, W).

    At most `size` are computed at once. An ensemble is differentiated as it is attacked.
    """
    model: Model = network.attacked if isinstance(network, Ensemble) else network
    parts = zip(images.split(size), labels.split(size), strict=True)
    return to_float64(torch.cat([_gradient(model, *part) for part in parts]))


def to_float64(values: Tensor) -> Tensor:
    """Return values in float64, on the CPU if their device does not support it."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines between corresponding rows of two tables (N, D); NaN for zero rows."""
    first, second = (rows / rows.abs().amax(dim=1, keepdim=True) for rows in (first, second))
    products = (first * second).sum(dim=1)
    return (products / (first.norm(dim=1) * second.norm(dim=1))).clamp(-1, 1)


def _gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Return the gradients of the images' losses, averaged over several models."""
    with torch.enable_grad():
        variable = images.detach().requires_grad_()
        logits = model(variable)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = LOSSES["cross_entropy"](logits, labels.expand(logits.shape[:-1]), False)
        losses = losses.view(-1, len(images)).mean(dim=0)
        (gradient,) = torch.autograd.grad(losses.sum(), variable)
    return gradient
