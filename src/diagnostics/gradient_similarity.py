"""How similar the gradients of source and targets are."""

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor, nn

from src.attacks import LOSSES, Model
from src.evaluation import Diagnostic, DiagnosticInput
from src.models import Ensemble


class Similarity(Diagnostic):
    """Compare the gradient of the source with that of each target, at the clean image.

    Both are of the cross-entropy of the true class; that of an ensemble is taken as it is
    attacked. These gradients are not counted.

    Args:
        targets: Names of the targets.
        max_batch: Most images in one gradient batch; None: no limit.

    Reference:
        Liu, Chen, Liu, Song: Delving into Transferable Adversarial Examples and Black-Box Attacks
        (2017), arXiv 1611.02770, section 4.4, for the cosine.
    """

    table = "similarity"

    def __init__(self, targets: Sequence[str], max_batch: int | None = None) -> None:
        super().__init__(targets)
        self.max_batch = max_batch

    def update(self, inputs: DiagnosticInput) -> None:
        """Add one batch."""
        index, labels = inputs.batch.index, inputs.batch.labels
        of_source = self._gradient(inputs.source, inputs)
        for number, network in enumerate(inputs.networks.values()):
            same = network is inputs.source
            pair = of_source, of_source if same else self._gradient(network, inputs)
            whole = [torch.full_like(index, number), index, labels]
            self.append(whole, [cosines(*pair)])

    def compute(self) -> pa.Table:
        """Return one row per image and target, sorted by target and index.

        The columns are `index`, `label`, `target` and `cosine` (of the two gradients, in [-1, 1];
        NaN where one is zero everywhere).
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

    def _gradient(self, network: nn.Module, inputs: DiagnosticInput) -> Tensor:
        """Return each image's gradient, float64 (N, 3 H W)."""
        model: Model = network.attacked if isinstance(network, Ensemble) else network
        size = self.max_batch or len(inputs.clean)
        parts = zip(inputs.clean.split(size), inputs.batch.labels.split(size), strict=True)
        gradient = torch.cat([_gradient(model, *part) for part in parts]).flatten(1)
        return (gradient.cpu() if gradient.device.type == "mps" else gradient).double()


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosines between the rows of two tables (N, D), NaN for rows of zeros."""
    first, second = (rows / rows.abs().amax(dim=1, keepdim=True) for rows in (first, second))
    products = (first * second).sum(dim=1)
    return (products / (first.norm(dim=1) * second.norm(dim=1))).clamp(-1, 1)


def _gradient(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Return each image's gradient; of several models the sum, which has the same direction."""
    with torch.enable_grad():
        variable = images.detach().requires_grad_()
        logits = model(variable)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = LOSSES["cross_entropy"](logits, labels.expand(logits.shape[:-1]), False)
        (gradient,) = torch.autograd.grad(losses.sum(), variable)
    return gradient
