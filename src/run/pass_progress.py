"""Progress of a pass over the images, counted from calls of the networks."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.hooks import RemovableHandle

from ..models import PixelClassifier
from ..utils.processes import is_first_process
from ..utils.terminal import Progress
from .work import GRADIENT, Work


class PassProgress(pl.Callback):
    """Progress of a pass: finished images, gradients and time left, updated within a batch.

    Work is counted in forward passes; a gradient counts as `GRADIENT` of them. The work per image
    is measured on finished batches. During the first batch it is the number the attack states.
    """

    def __init__(self, label: str, work: Work, shown: bool) -> None:
        self.progress = Progress(label, shown and is_first_process())
        self.work, self.processes = work, 1
        self.images = self.batch = self.gradients = 0  # images: in finished batches, in this one
        self.done = self.passes = 0  # work in finished batches, in this one
        self.hooks: list[RemovableHandle] = []

    def on_predict_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Count calls of the networks by the attack and by measurements."""

        def count(network: Any, images: Any, logits: Any) -> None:
            if not torch.is_grad_enabled():  # the attack counts its gradients itself
                self.count(0, len(logits))

        self.processes = trainer.world_size
        networks = filter(lambda part: isinstance(part, PixelClassifier), module.networks.modules())
        self.hooks = [network.register_forward_hook(count) for network in networks]
        if module.source is not None:
            module.source.on_pass = self.count

    def on_predict_batch_start(self, trainer: Any, module: Any, batch: Any, *others: Any) -> None:
        """Remember the size of the batch."""
        self.batch, self.passes = len(batch.index), 0

    def on_predict_batch_end(self, *arguments: Any) -> None:
        """Add the batch to the finished ones."""
        self.images, self.done = self.images + self.batch, self.done + self.passes
        self.batch = 0

    def on_predict_end(self, *arguments: Any) -> None:
        """Remove the progress bar."""
        self.progress.close()
        for hook in self.hooks:
            hook.remove()

    def on_exception(self, *arguments: Any) -> None:
        """Remove the progress bar, so that the error message starts on its own line."""
        self.on_predict_end()

    def count(self, gradients: int, forwards: int) -> None:
        """Add to the counts of gradients and of forward passes without a gradient."""
        self.gradients += gradients
        self.passes += GRADIENT * gradients + forwards
        if self.images:
            expected = self.done / self.images
        else:
            total = GRADIENT * (self.work.gradients or 0) + self.work.predictions.total()
            expected = total / max(1, self.work.images)
        part = min(1, self.passes / (expected * self.batch)) if expected and self.batch else 0
        images = min((self.images + part * self.batch) * self.processes, self.work.images)
        text = f"{images:.0f}/{self.work.images} images"
        if self.gradients:
            stated = f"{self.work.gradients:,.0f}" if self.work.gradients else "?"
            text += f", {self.gradients * self.processes:,}/{stated} gradients"
        self.progress.update(images / max(1, self.work.images), text)
