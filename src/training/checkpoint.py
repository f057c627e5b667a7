"""Cache of trained weights, and trainings that go on after an interruption."""

import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment

from src.config.sections import TrainerSettings, TrainingSettings
from src.data import ImageDataset
from src.models import PixelClassifier, save_weights
from src.training.augmentation import make_loaders
from src.training.module import FineTuning
from src.utils import stopping
from src.utils.devices import computes_in_bfloat16
from src.utils.files import atomic_write
from src.utils.refusals import first_line

log = logging.getLogger(__name__)

# Part of the names of trained weights. Raise it when equal settings should train other ones: after
# a change of this package, of images or networks, or of a default of `TrainingSettings`.
TRAINING = 1


def trained_weights(
    name: str,
    path: Path,
    classifier: PixelClassifier,
    train: ImageDataset,
    test: ImageDataset,
    settings: TrainingSettings,
    *,
    trainer: TrainerSettings,
    make_logger: Callable[[], Logger | None],
) -> Path:
    """Return the file of a model's trained weights, training it first if it is not there.

    Of several processes that need the same file one trains, on one device and in place, and the
    others wait. An interrupted training goes on after its last whole epoch. The name of `path`, a
    `.safetensors` file, must tell model, data and settings.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    if path.exists():
        return path
    log.info("Training %s, or waiting for another process that does.", name)
    with FileLock(lock):
        if path.exists():
            return path
        work = path.with_suffix(".training")
        work.mkdir(exist_ok=True)
        last = work / "last.ckpt"
        resumed = last if _is_readable(last) else None
        length = f"{len(train)} images for {settings.epochs} epochs"
        again = " (resuming)" if resumed else ""
        log.info("Training %s on %s%s; the result goes to %s.", name, length, again, path)
        pl.seed_everything(settings.seed, verbose=False)
        classifier.train()
        module = FineTuning(classifier, train.num_classes, settings)
        module.to(memory_format=torch.channels_last)
        batches = make_loaders(train, test, settings, trainer.num_workers)
        runner = _make_trainer(work, settings, trainer, make_logger(), len(batches[0]))
        with stopping.plain_interrupts():
            runner.fit(module, *batches, ckpt_path=resumed, weights_only=True)
        accuracy = float(runner.callback_metrics.get("test_accuracy", math.nan))
        log.info("Trained %s: %.2f%% of %d test images correct.", name, 100 * accuracy, len(test))
        classifier.eval()
        with atomic_write(path) as temporary:
            save_weights(classifier.network, temporary)
        shutil.rmtree(work)
    return path


def _is_readable(checkpoint: Path) -> bool:
    """Return True if there is a checkpoint; a damaged one is removed."""
    if not checkpoint.exists():
        return False
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, depending on where the damage lies
        log.warning("%s is damaged (%s); training begins anew.", checkpoint, first_line(error))
        checkpoint.unlink()
        return False
    return True


def _make_trainer(
    work: Path,
    settings: TrainingSettings,
    trainer: TrainerSettings,
    logger: Logger | None,
    steps: int,
) -> pl.Trainer:
    """Return a trainer on one device that keeps the last whole epoch in `work`."""
    keep_last = ModelCheckpoint(work, filename="last", enable_version_counter=False)
    bar = [TQDMProgressBar(refresh_rate=10)] if trainer.progress_bar else []
    return pl.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices[:1] if isinstance(trainer.devices, list) else 1,
        precision=choose_precision(settings.precision, trainer.accelerator),
        plugins=LightningEnvironment(),  # one process trains, whatever launcher has started it
        max_epochs=settings.epochs,
        gradient_clip_val=settings.gradient_clip or None,
        callbacks=[keep_last, *bar],
        logger=logger or False,
        enable_progress_bar=bool(bar),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=max(1, min(10, steps)),
    )


def choose_precision(name: str, accelerator: str) -> Any:
    """Turn `auto` into bf16-mixed where the device computes in bfloat16."""
    if name != "auto":
        return name
    device = "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    return "bf16-mixed" if computes_in_bfloat16(device) else "32-true"
