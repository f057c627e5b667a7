"""Similarity of the gradients of two models."""

from collections.abc import Mapping

import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from src.attacks import LOSSES, Model
from src.data import Batch, to_unit
from src.evaluation.predictions import RowMetric, merged
from src.models import Ensemble
from src.utils import stopping


class Similarity(pl.LightningModule):
    """Compare the gradients of models at the clean image, each computed once an image.

    They are of the cross-entropy of the true class; that of an ensemble is taken as it is
    attacked. These gradients are not counted.

    Args:
        pairs: Names of two models each, by the pair's own name.

    Attributes:
        table: Table of `Cosines`, after a pass.

    Reference:
        Liu, Chen, Liu, Song: Delving into Transferable Adversarial Examples and Black-Box Attacks
        (2017), arXiv 1611.02770, for the cosine.
    """

    table: pa.Table

    def __init__(
        self,
        models: Mapping[str, nn.Module],
        pairs: Mapping[str, tuple[str, str]],
        max_batch: int,
    ) -> None:
        super().__init__()
        needed = {name for pair in pairs.values() for name in pair}
        self.names = [name for name in models if name in needed]
        self.models = nn.ModuleList(models[name] for name in self.names)
        self.pairs, self.max_batch = pairs, max_batch
        self.cosines = Cosines(list(pairs))

    def on_predict_epoch_start(self) -> None:
        """Drop the rows of an earlier pass."""
        self.cosines.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add the cosines of a batch, and return its images' index."""
        stopping.check()
        if not len(batch.index):  # of images whose rows are known
            return batch.index
        found = [self._gradients(model, batch) for model in self.models]
        gradients = dict(zip(self.names, found, strict=True))
        for number, pair in enumerate(self.pairs.values()):
            self.cosines.update(number, batch, cosines(*(gradients[name] for name in pair)))
        return batch.index

    def on_predict_epoch_end(self) -> None:
        """Merge the processes' rows."""
        (self.table,) = merged({"similarity": self.cosines}).values()

    def _gradients(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return each image's gradient, float64 (N, 3 H W)."""
        model: Model = network.attacked if isinstance(network, Ensemble) else network
        columns = (to_unit(batch.images), batch.labels)
        parts = zip(*(column.split(self.max_batch) for column in columns), strict=True)
        gradient = torch.cat([_gradient(model, *part) for part in parts]).flatten(1)
        return (gradient.cpu() if gradient.device.type == "mps" else gradient).double()


class Cosines(RowMetric):
    """One row per image and pair of models."""

    def update(self, pair: int, batch: Batch, cosine: Tensor) -> None:
        """Add a batch's cosines of one pair."""
        index, labels = batch.index, batch.labels
        self.append([torch.full_like(index, pair), index, labels], [cosine])

    def compute(self) -> pa.Table:
        """Return the table, sorted by pair and index.

        The columns are `index`, `label`, `target` (the pair's name) and `cosine` (of the two
        gradients, in [-1, 1]; NaN where one is zero everywhere).
        """
        whole, real = self.rows(2)
        return pa.table(
            {
                "index": whole[:, 1],
                "label": whole[:, 2],
                "target": self.target_names(whole[:, 0]),
                "cosine": real[:, 0],
            }
        )


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
