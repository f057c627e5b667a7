"""Cache of trained weights, and trainings that go on after an interruption."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from torch import nn

from src.analysis import format_cell
from src.config.sections import TrainerSettings, TrainingSettings
from src.data import ImageDataset
from src.models import PixelClassifier, save_weights
from src.training.augmentation import make_loaders
from src.training.module import Craft, FineTuning
from src.utils import stopping
from src.utils.devices import computes_in_bfloat16
from src.utils.files import atomic_write
from src.utils.locks import is_held
from src.utils.processes import is_first_process
from src.utils.progress import Progress
from src.utils.refusals import first_line

log = logging.getLogger(__name__)

# Part of the names of trained weights. Raise it when equal settings should train other ones: after
# a change of this package, of images or networks, or of a default of `TrainingSettings`.
TRAINING = 1


def train_once(
    name: str,
    path: Path,
    classifier: PixelClassifier,
    train: ImageDataset,
    test: ImageDataset,
    settings: TrainingSettings,
    trainer: TrainerSettings,
    make_logger: Callable[[], Logger | None],
    then: Sequence[str] = (),
    craft: Craft | None = None,
) -> None:
    """Train a model if the file of its trained weights is not there.

    Of several processes that need the same file one trains, on one device and in place, and the
    others wait. An interrupted training goes on after its last whole epoch. The name of `path`, a
    `.safetensors` file, must tell model, data and settings. The models `then` come next.
    With `craft`, which makes adversarial images, the training is adversarial.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {epoch: after_epoch(path, epoch) for epoch in settings.keep_epochs}
    lock, files = path.with_suffix(".lock"), [path, *kept.values()]
    if all(file.exists() for file in files):
        return
    if is_held(lock):
        log.info("Waiting for another process that trains %s.", name)
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
        module = FineTuning(
            classifier, train.num_classes, settings, progress, loaders, after, craft
        )
        keep = _KeepEpochs(kept, classifier.network)
        runner = _make_trainer(work, settings, trainer, make_logger(), len(loaders[0]), keep)
        with stopping.plain_interrupts(), closing(progress):
            runner.fit(module, loaders[0], loaders[1], ckpt_path=resumed, weights_only=True)
            runner.validate(module, loaders[2], verbose=False)
        correct = round(float(runner.callback_metrics["test_accuracy"]) * len(test))
        share = f"{format_cell(correct, len(test))} of the test images correct"
        log.info("Trained %s: %s; weights: %s", name, share, path)
        with atomic_write(path) as temporary:
            save_weights(classifier.network, temporary, tested=f"{correct} / {len(test)}")
        shutil.rmtree(work)


def after_epoch(path: Path, epoch: int) -> Path:
    """Return the file of the weights after an epoch of the training that ends in another file."""
    return path.with_stem(f"{path.stem}-epoch{epoch}")


class _KeepEpochs(pl.Callback):
    """Keep the weights after some epochs, each in its file."""

    def __init__(self, files: Mapping[int, Path], network: nn.Module) -> None:
        self.files, self.network = files, network

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep an epoch's weights before the checkpoint from which a training goes on."""
        file = self.files.get(trainer.current_epoch + 1)
        if file is not None:
            with atomic_write(file) as temporary:
                save_weights(self.network, temporary)


def _readable(checkpoint: Path) -> Path | None:
    """Return a checkpoint if it is there; a damaged one is removed."""
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, depending on where the damage lies
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
    """Return a trainer on one device that keeps the last whole epoch in `work`."""
    keep_last = ModelCheckpoint(work, filename="last", enable_version_counter=False)
    return pl.Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices[:1] if isinstance(trainer.devices, list) else 1,
        precision=choose_precision(settings.precision, trainer.accelerator),
        plugins=LightningEnvironment(),  # one process trains, whatever launcher has started it
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
    """Turn `auto` into bf16-mixed where the device computes in bfloat16."""
    if name != "auto":
        return name
    device = "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    return "bf16-mixed" if computes_in_bfloat16(device) else "32-true"
