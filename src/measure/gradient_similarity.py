"""Similarity of the gradients of two models."""

from collections.abc import Mapping

import pyarrow as pa
import torch
from torch import Tensor, nn

from src.attacks import LOSSES, Model
from src.data import Batch
from src.measure.diagnostic import Diagnostic, DiagnosticInput
from src.measure.predictions import to_numpy
from src.models import Ensemble


class Similarity(Diagnostic):
    """Compare the gradients of networks at the clean image, each computed once an image.

    They are of the cross-entropy of the true class; that of an ensemble is taken as it is
    attacked. These gradients are not counted.

    Args:
        pairs: Names of two networks each, by the pair's own name.
        max_batch: Most images in one gradient batch.

    Reference:
        Liu, Chen, Liu, Song: Delving into Transferable Adversarial Examples and Black-Box Attacks
        (2017), arXiv 1611.02770, for the cosine.
    """

    table = "similarity"

    def __init__(self, pairs: Mapping[str, tuple[str, str]], max_batch: int) -> None:
        self.pairs, self.max_batch = pairs, max_batch

    def measure(self, inputs: DiagnosticInput) -> pa.Table:
        """Return one row per image and pair.

        The columns are `index`, `label`, `target` (the pair's name) and `cosine` (of the two
        gradients, in [-1, 1]; NaN where one is zero everywhere).
        """
        index, labels = inputs.batch.index, inputs.batch.labels
        gradients = {
            name: self._gradients(network, inputs.clean, inputs.batch)
            for name, network in inputs.networks.items()
        }
        return pa.concat_tables(
            pa.table(
                {
                    "index": to_numpy(index),
                    "label": to_numpy(labels),
                    "target": pa.repeat(name, len(index)),
                    "cosine": to_numpy(cosines(gradients[first], gradients[second])),
                }
            )
            for name, (first, second) in self.pairs.items()
        )

    def _gradients(self, network: nn.Module, clean: Tensor, batch: Batch) -> Tensor:
        """Return each image's gradient, float64 (N, 3 H W)."""
        model: Model = network.attacked if isinstance(network, Ensemble) else network
        parts = zip(clean.split(self.max_batch), batch.labels.split(self.max_batch), strict=True)
        gradient = torch.cat([_gradient(model, *part) for part in parts]).flatten(1)
        return (gradient.cpu() if gradient.device.type == "mps" else gradient).double()


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines between the rows of two tables (N, D), NaN for rows of zeros."""
    first, second = (rows / rows.abs().amax(dim=1, keepdim=True) for rows in (first, second))
    products = (first * second).sum(dim=1)
    return (products / (first.norm(dim=1) * second.norm(dim=1))).clamp(-1, 1)


def _gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Return images' gradients; of several models the sum, which has the mean's direction."""
    with torch.enable_grad():
        variable = images.detach().requires_grad_()
        logits = model(variable)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = LOSSES["cross_entropy"](logits, labels.expand(logits.shape[:-1]), False)
        (gradient,) = torch.autograd.grad(losses.sum(), variable)
    return gradient
