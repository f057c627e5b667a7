"""The LightningModule that attacks the source and shows the result to the targets."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from src.attacks import box
from src.data import Batch, to_unit
from src.evaluation.predictions import Predictions

Attack = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor], Tensor]


class GradientCount:
    """A model that counts the images of which it is asked a gradient."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.images = 0

    def __call__(self, images: Tensor) -> Tensor:
        """Return the model's logits, and count the images if a gradient may be taken."""
        if images.requires_grad and torch.is_grad_enabled():
            self.images += len(images)
        logits: Tensor = self.model(images)
        return logits


class Transfer(pl.LightningModule):
    """Attack one model once per budget and show the same adversarial batch to every target.

    What an attack returns is clipped to the ball and to [0, 1], so that no result can come from a
    larger budget than it is reported under. Without an attack, the clean images are shown.

    Args:
        targets: The models that are shown the images, by name.
        source: The model that is attacked; None with `attack=None`.
        attack: Function of (model, images, labels, eps) that returns (K, N, 3, H, W).
        budgets: The K budgets in units of 1/255.
        keep: Index of the images whose adversarial versions are kept as examples.
    """

    def __init__(
        self,
        targets: Mapping[str, nn.Module],
        source: nn.Module | None = None,
        attack: Attack | None = None,
        budgets: Sequence[float] = (0.0,),
        keep: Collection[int] = (),
    ) -> None:
        super().__init__()
        self.names = tuple(targets)
        self.networks = nn.ModuleList(targets.values())
        self.source = source
        self.attack = attack
        self.budgets = tuple(budgets)
        self.keep = frozenset(keep)
        self.predictions = Predictions(self.names, self.budgets)
        self.gradients = 0
        self.examples: dict[int, np.ndarray] = {}
        self.table: pa.Table | None = None

    def on_predict_epoch_start(self) -> None:
        """Forget an earlier pass."""
        self.predictions.reset()
        self.gradients = 0
        self.examples = {}

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Attack a batch, note every target's answers, and return which images it held."""
        images = to_unit(batch.images)
        if self.attack is None or self.source is None:
            shown = images[None]
        else:
            counted = GradientCount(self.source)
            eps = torch.tensor(self.budgets, device=images.device) / 255
            lower, upper = box(images, eps.reshape(-1, 1, 1, 1, 1))
            shown = self.attack(counted, images, batch.labels, eps).clamp(lower, upper)
            self.gradients += counted.images
            self._keep_examples(batch.index, shown)
        for name, network in zip(self.names, self.networks, strict=True):
            for budget, adversarial in zip(self.budgets, shown, strict=True):
                logits = network(adversarial)
                self.predictions.update(name, budget, batch.index, batch.labels, logits)
        return batch.index

    def on_predict_epoch_end(self) -> None:
        """Merge the ranks' rows, gradient counts and examples."""
        self.table = self.predictions.compute()
        if torch.distributed.is_initialized():
            parts: list = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, (self.gradients, self.examples))
            self.gradients = sum(count for count, _ in parts)
            self.examples = {index: image for _, part in parts for index, image in part.items()}

    def _keep_examples(self, index: Tensor, adversarial: Tensor) -> None:
        for position, number in enumerate(index.tolist()):
            if number in self.keep:
                self.examples[number] = adversarial[:, position].float().cpu().numpy()
