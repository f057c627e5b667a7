"""Training of models without weights, and the cache of trained weights.

Interrupted trainings resume.
"""

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, Sampler, default_convert
from torchmetrics.classification import MulticlassAccuracy

from .attacks import image_seeds
from .config.sections import TrainerSettings, TrainingSettings
from .data import Batch, ImageDataset, to_unit
from .models import PixelClassifier, choose_layout, save_weights, use_channels_last
from .utils import stopping
from .utils.devices import computes_in_bfloat16, device_of
from .utils.files import atomic_write, in_turn, write_csv
from .utils.formats import format_cell
from .utils.processes import is_first_process
from .utils.terminal import Progress

log = logging.getLogger(__name__)


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
        # Other processes of a job wait for the file of the weights: nothing is shared with them.
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro", sync_on_compute=False)

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
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@dataclass(frozen=True)
class Training:
    """A training that starts if the file of its trained weights does not exist.

    Attributes:
        name: Name of the model.
        path: The `.safetensors` file; its name must identify model, data and settings.
        classifier: The model, which is trained in place.
        train: Training images.
        test: Test images.
        settings: Recipe of the training.
        trainer: Settings of the device.
        then: Names of the models that are trained next, for the log.
        craft: Makes adversarial images, for adversarial training; None: ordinary training.
    """

    name: str
    path: Path
    classifier: PixelClassifier
    train: ImageDataset
    test: ImageDataset
    settings: TrainingSettings
    trainer: TrainerSettings
    then: Sequence[str] = ()
    craft: Craft | None = None

    def run_once(self) -> None:
        """Train the model if the file of its weights is missing, and write it.

        If several processes need the file, one trains, on one device, and the others wait. An
        interrupted training resumes after its last complete epoch.
        """
        path = self.path
        if path.exists():
            return
        with in_turn(path.with_suffix(".lock"), f"train {self.name}"):
            if path.exists():
                return
            work, network = path.with_suffix(".training"), self.classifier.network
            correct = self._fit(work)
            share = f"{format_cell(correct, len(self.test))} of the test images correct"
            log.info("Trained %s: %s; weights: %s", self.name, share, path)
            with atomic_write(path) as temporary:
                save_weights(network, temporary, tested=f"{correct} / {len(self.test)}")
            shutil.rmtree(work)

    def _fit(self, work: Path) -> int:
        """Train the model, from the checkpoint in `work` if there is one.

        Returns:
            The number of test images that it then classifies correctly.
        """
        train, settings, trainer = self.train, self.settings, self.trainer
        resumed = _readable(work / "last.ckpt")
        epochs = f"{settings.epochs} epoch{'s' * (settings.epochs > 1)}"
        length = f"{len(train):,} images, {epochs}" + " (resuming)" * bool(resumed)
        after = f"; then {', '.join(self.then)}" * bool(self.then)
        log.info("Training %s: %s%s", self.name, length, after)
        pl.seed_everything(settings.seed, verbose=False)
        loaders = make_loaders(train, self.test, settings, trainer.num_workers)
        progress = Progress(self.name, trainer.progress_bar and is_first_process())
        use_channels_last(self.classifier, train.image_size)
        precision = choose_precision(settings.precision, trainer.accelerator)
        choose_layout(self.classifier, device_of(trainer.accelerator), precision)
        module = FineTuning(
            self.classifier, train.num_classes, settings, progress, loaders, after, self.craft
        )
        with stopping.plain_interrupts(), closing(progress):
            runner = _make_trainer(work, settings, trainer, len(loaders[0]))
            runner.fit(module, loaders[0], loaders[1], ckpt_path=resumed, weights_only=True)
            runner.validate(module, loaders[2], verbose=False)
        _write_metrics(work, self.path.with_suffix(".csv"))
        return round(float(runner.callback_metrics["test_accuracy"]) * len(self.test))


def _readable(checkpoint: Path) -> Path | None:
    """Return a checkpoint if it exists and can be read; remove a damaged one."""
    if not checkpoint.exists():
        return None
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        content["pytorch-lightning_version"]  # else it is none of Lightning's
    except Exception as error:  # its type depends on where the damage is
        # Not torch's words, which advise to unpickle anything.
        kind = type(error).__name__
        log.warning("%s is damaged (%s); training starts again.", checkpoint, kind)
        checkpoint.unlink()
        return None
    return checkpoint


def _write_metrics(work: Path, path: Path) -> None:
    """Write the metrics of a training by name and step, with those of interrupted processes."""
    files = [file for file in work.glob("*/*/metrics.csv") if file.stat().st_size]
    if files:  # Lightning writes none in another process than a job's first one
        parts = [pd.read_csv(file).melt("step") for file in files]
        table = pd.concat(parts).dropna().drop_duplicates().sort_values("step", kind="stable")
        write_csv(path, table[["variable", "value", "step"]])


def _make_trainer(
    work: Path, settings: TrainingSettings, trainer: TrainerSettings, steps: int
) -> pl.Trainer:
    """Return a trainer on one device that saves metrics and the last complete epoch in `work`."""
    keep_last = ModelCheckpoint(work, filename="last", enable_version_counter=False)
    return pl.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices[:1] if isinstance(trainer.devices, list) else 1,
        precision=choose_precision(settings.precision, trainer.accelerator),
        plugins=LightningEnvironment(),  # one process trains, whatever launcher started it
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip or None,
        callbacks=[keep_last],
        logger=CSVLogger(work, flush_logs_every_n_steps=1),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(10, steps)),
    )


def choose_precision(name: str, accelerator: str) -> Any:
    """Return Lightning's precision for `auto`: bf16-mixed if the device supports bfloat16."""
    if name != "auto":
        return name
    return "bf16-mixed" if computes_in_bfloat16(device_of(accelerator)) else "32-true"
