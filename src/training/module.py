"""Lightning module that trains one classifier, and its augmented batches."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, Sampler, default_convert
from torchmetrics.classification import MulticlassAccuracy

from ..attacks import image_seeds
from ..config.sections import TrainingSettings
from ..data import Batch, ImageDataset, to_unit
from ..models import PixelClassifier
from ..utils import stopping
from ..utils.terminal import Progress


def augment(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Apply random crops and horizontal flips to images, uint8 (N, 3, H, W).

    Args:
        images: The images.
        padding: Zero pixels added on every side before a random crop to H x W; 0: no crop.
        flip: True: mirror a random half of the images left to right.
        generator: Random generator on the CPU.
    """
    count, _, height, width = images.shape
    rows = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator)
    columns = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator)
    rows = rows + torch.arange(height)
    columns = columns + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns[mirrored] = columns[mirrored].flip(1)
    padded = functional.pad(images, [padding] * 4)
    pick = torch.arange(count, device=images.device)[:, None, None]
    rows, columns = rows.to(images.device), columns.to(images.device)
    return padded[pick, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def make_loaders(
    train: ImageDataset, test: ImageDataset, settings: TrainingSettings, num_workers: int
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Return loaders of uint8 batches: shuffled training images, some test images, all test images.

    The second loader is for the test after each epoch. The order depends only on seed and epoch, so
    that a resumed run gives the same result.
    """
    options: dict[str, Any] = {"num_workers": num_workers, "collate_fn": default_convert}
    order: Sampler = DistributedSampler(train, num_replicas=1, rank=0, seed=settings.seed)
    size = min(settings.batch_size, len(train))
    # Batch norms cannot learn from a single image, and the last batch might have just one.
    shuffled = DataLoader(train, size, sampler=order, drop_last=True, **options)
    sample = test.subset(settings.evaluate_on, settings.seed)
    return shuffled, DataLoader(sample, size, **options), DataLoader(test, size, **options)


Craft = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
"""Maps model, images (N, 3, H, W) in [0, 1], labels and seeds (N,) to adversarial images."""
_EVALUATION = 1 / 3  # cost of an evaluated batch relative to a training batch
_FEWEST_STEPS = 5  # with fewer, the schedule has no warm-up


class FineTuning(pl.LightningModule):
    """Lightning module that trains a classifier in place with a one-cycle schedule.

    SGD uses Nesterov momentum. The schedule changes the momentum, or AdamW's first beta, from 0.95
    to 0.85 and back. Biases and norm layers have no weight decay. `gradient_clip` bounds the norm
    of all gradients together.

    Reference: Smith, Topin (2018), arXiv 1708.07120.
    """

    def __init__(
        self,
        classifier: PixelClassifier,
        num_classes: int,
        settings: TrainingSettings,
        progress: Progress,
        loaders: tuple[DataLoader, DataLoader, DataLoader],
        then: str,
        craft: Craft | None = None,
    ) -> None:
        super().__init__()
        self.craft = craft
        self.progress, self.then, self.work = progress, then, 0.0
        trained, tested, tested_at_end = map(len, loaders)
        self.epoch_work = trained + _EVALUATION * tested
        self.whole_work = settings.epochs * self.epoch_work + _EVALUATION * tested_at_end
        self.classifier = classifier.train()
        self.settings = settings
        for module in classifier.modules():
            if isinstance(module, nn.Dropout) and settings.dropout is not None:
                module.p = settings.dropout
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by seed and epoch, so that a resumed run gives the same result."""
        if batch_idx == 0 and self.current_epoch > 0:  # the first epoch uses the initial seed
            torch.manual_seed(self.settings.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the label-smoothed cross-entropy of a batch.

        The augmentation depends only on seed and step.
        """
        settings = self.settings
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.global_step)
        images = augment(batch.images, settings.crop_padding, settings.flip, generator)
        inputs = to_unit(images)
        if self.craft is not None:
            inputs = self._attack(self.craft, inputs, batch)
        if settings.noise:
            noise = torch.randn(inputs.shape, generator=generator).to(inputs)
            inputs = inputs + settings.noise / 255 * noise
        logits = self.classifier(inputs).float()
        smoothing = settings.label_smoothing
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
        self.log("train_loss", loss)
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        self._show(1)
        return loss

    def _attack(self, craft: "Craft", images: Tensor, batch: Batch) -> Tensor:
        """Attack the images of a batch, except the first `clean_share` of them.

        During the attack, batch norms and dropout are in evaluation mode.
        """
        settings, first = self.settings, round(self.settings.clean_share * len(images))
        seed = (settings.seed * 1_000_003 + self.global_step) % 2**32
        seeds = image_seeds(seed, batch.index)
        self.classifier.eval()
        attacked = craft(self.classifier, images[first:], batch.labels[first:], seeds[first:])
        self.classifier.train()
        return torch.cat([images[:first], attacked.detach()])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the accuracy on test images; it does not influence the training."""
        logits = self.classifier(to_unit(batch.images)).float()
        self.test_accuracy(logits, batch.labels)
        self.log("test_accuracy", self.test_accuracy, batch_size=len(batch.labels))
        loss = functional.cross_entropy(logits, batch.labels)
        self.log("val_loss", loss, batch_size=len(batch.labels))
        self._show(_EVALUATION)

    def _show(self, work: float) -> None:
        """Add work and show the progress, or stop if interrupted.

        Epochs of an earlier process do not count for the pace.
        """
        stopping.raise_if_interrupted()
        if not self.work:
            self.work = self.current_epoch * self.epoch_work
            self.progress.first = self.work / self.whole_work
        self.work += work
        epochs = self.settings.epochs
        done = f"epoch {min(self.current_epoch + 1, epochs)} of {epochs}"
        self.progress.update(self.work / self.whole_work, done, self.then)

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, with one step per batch."""
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        parameters = list(self.classifier.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer: torch.optim.Optimizer
        if self.settings.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, lr=rate)
        else:
            optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.95, nesterov=True)
        steps = max(int(self.trainer.estimated_stepping_batches), _FEWEST_STEPS)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=rate, total_steps=steps, pct_start=0.25
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
