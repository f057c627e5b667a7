"""Cache of trained weights; interrupted trainings resume."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn

from ..analysis import format_cell
from ..config.sections import TrainerSettings, TrainingSettings
from ..data import ImageDataset
from ..models import PixelClassifier, choose_layout, save_weights, use_channels_last
from ..utils import stopping
from ..utils.devices import computes_in_bfloat16, device_of
from ..utils.files import atomic_write, is_held
from ..utils.processes import is_first_process
from ..utils.refusals import first_line
from ..utils.terminal import Progress
from .module import Craft, FineTuning, make_loaders

log = logging.getLogger(__name__)

# Part of the names of weight files. Raise it if equal settings give different weights than before:
# after a change to this package, to images or networks, or to a default in `TrainingSettings`.
TRAINING = 1


def train_once(
    name: str,
    path: Path,
    classifier: PixelClassifier,
    train: ImageDataset,
    test: ImageDataset,
    settings: TrainingSettings,
    trainer: TrainerSettings,
    make_logger: Callable[[], AbstractContextManager[Logger | None]],
    then: Sequence[str] = (),
    craft: Craft | None = None,
) -> None:
    """Train a model in place if the file of its trained weights does not exist.

    If several processes need the same file, one trains, on one device, and the others wait. An
    interrupted training resumes after its last complete epoch.

    Args:
        name: Name of the model.
        path: The `.safetensors` file; its name must identify model, data and settings.
        classifier: The model.
        train: Training images.
        test: Test images.
        settings: Recipe of the training.
        trainer: Settings of the device.
        make_logger: Gives Lightning's logger, or None, for the time of the training.
        then: Names of the models that are trained next, for the log.
        craft: Makes adversarial images, for adversarial training; None: ordinary training.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    epoch_paths = {epoch: after_epoch(path, epoch) for epoch in settings.keep_epochs}
    lock, files = path.with_suffix(".lock"), [path, *epoch_paths.values()]
    if all(file.exists() for file in files):
        return
    if is_held(lock):
        log.info("Waiting for another process to train %s.", name)
    with FileLock(lock):
        if all(file.exists() for file in files):
            return
        work = path.with_suffix(".training")
        resumed = _readable(work / "last.ckpt")
        after = f"; then {', '.join(then)}" if then else ""
        epochs = f"{settings.epochs} epoch{'s' * (settings.epochs > 1)}"
        length = f"{len(train):,} images, {epochs}" + " (resuming)" * bool(resumed)
        log.info("Training %s: %s%s", name, length, after)
        pl.seed_everything(settings.seed, verbose=False)
        loaders = make_loaders(train, test, settings, trainer.num_workers)
        progress = Progress(name, trainer.progress_bar and is_first_process())
        use_channels_last(classifier, train.image_size)
        precision = choose_precision(settings.precision, trainer.accelerator)
        choose_layout(classifier, device_of(trainer.accelerator), precision)
        module = FineTuning(
            classifier, train.num_classes, settings, progress, loaders, after, craft
        )
        keep = _KeepEpochs(epoch_paths, classifier.network)
        with make_logger() as logger, stopping.plain_interrupts(), closing(progress):
            runner = _make_trainer(work, settings, trainer, logger, len(loaders[0]), keep)
            runner.fit(module, loaders[0], loaders[1], ckpt_path=resumed, weights_only=True)
            runner.validate(module, loaders[2], verbose=False)
        correct = round(float(runner.callback_metrics["test_accuracy"]) * len(test))
        share = f"{format_cell(correct, len(test))} of the test images correct"
        log.info("Trained %s: %s; weights: %s", name, share, path)
        with atomic_write(path) as temporary:
            save_weights(classifier.network, temporary, tested=f"{correct} / {len(test)}")
        shutil.rmtree(work)


def after_epoch(path: Path, epoch: int) -> Path:
    """Return the file for the weights after an epoch; `path` is the file after the last epoch."""
    return path.with_stem(f"{path.stem}-epoch{epoch}")


class _KeepEpochs(pl.Callback):
    """Callback that saves the weights after some epochs, one file per epoch."""

    def __init__(self, files: Mapping[int, Path], network: nn.Module) -> None:
        self.files, self.network = files, network

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save an epoch's weights, before Lightning writes the checkpoint for resuming."""
        file = self.files.get(trainer.current_epoch + 1)
        if file is not None:
            with atomic_write(file) as temporary:
                save_weights(self.network, temporary)


def _readable(checkpoint: Path) -> Path | None:
    """Return a checkpoint if it exists and can be read; remove a damaged one."""
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # its type depends on where the damage is
        log.warning("%s is damaged (%s); training starts again.", checkpoint, first_line(error))
        checkpoint.unlink()
        return None
    return checkpoint


def _make_trainer(
    work: Path,
    settings: TrainingSettings,
    trainer: TrainerSettings,
    logger: Logger | None,
    steps: int,
    keep: pl.Callback,
) -> pl.Trainer:
    """Return a trainer on one device that saves the last complete epoch in `work`."""
    keep_last = ModelCheckpoint(work, filename="last", enable_version_counter=False)
    return pl.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices[:1] if isinstance(trainer.devices, list) else 1,
        precision=choose_precision(settings.precision, trainer.accelerator),
        plugins=LightningEnvironment(),  # one process trains, whatever launcher started it
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip or None,
        callbacks=[keep, keep_last],
        logger=logger or False,
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
