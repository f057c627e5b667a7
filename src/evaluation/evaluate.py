"""Evaluate targets on a data set, on one device or on several."""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from src.config.settings import TrainerSettings
from src.data import ImageDataset
from src.evaluation.adversarial_source import AdversarialSource, CleanImages
from src.evaluation.batches import Batches
from src.evaluation.lightning_module import Evaluation, Transfer
from src.utils import stopping
from src.utils.checks import first_line
from src.utils.devices import computes_in_bfloat16, computes_in_tf32

log = logging.getLogger(__name__)

_CPU_BATCH, _GPU_BATCH = 50, 1000


class CountingBar(pl.Callback):
    """Progress bar of gradient evaluations, or where none are taken, of images of all processes."""

    def __init__(self, label: str, images: int) -> None:
        self.label, self.images = label, images

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar that the module updates."""
        each = getattr(pl_module, "gradients_per_image", 0)
        self.bar = tqdm(
            desc=self.label,
            total=math.ceil(self.images / trainer.world_size) * (each or 1),
            unit=" gradients" if each else " images",
            disable=not trainer.is_global_zero,
            file=sys.stdout,
            dynamic_ncols=True,
        )
        pl_module.progress = self.bar.update

    def on_predict_end(self, *arguments: Any) -> None:
        """Close the bar."""
        self.bar.close()

    def on_exception(self, *arguments: Any) -> None:
        """Remove the bar, so that it does not stand below the error message."""
        self.bar.leave = False
        self.bar.close()


class Pass(NamedTuple):
    """Duration of a pass over the images, and images per batch."""

    seconds: float
    batch_size: int


def evaluate(
    dataset: ImageDataset,
    module: Transfer,
    trainer: TrainerSettings,
    label: str,
    only: Collection[int] | None = None,
) -> Evaluation:
    """Attack images and evaluate the targets; see `pass_over`."""
    variants = module.variants
    shuffle_seed = variants.seed if variants.controls else None
    took = pass_over(dataset, module, trainer, label, shuffle_seed, only)
    return replace(module.found, seconds=took.seconds, batch_size=took.batch_size)


def pass_over(
    dataset: ImageDataset,
    module: pl.LightningModule,
    trainer: TrainerSettings,
    label: str,
    shuffle_seed: int | None = None,
    only: Collection[int] | None = None,
) -> Pass:
    """Pass over the images, on one device or on several; `label` names the progress bar.

    Of several devices each gets its share of all images, and leaves out those not among `only`.
    Where a GPU's memory does not suffice, the pass begins again with half the batch size.

    Raises:
        ValueError: There are fewer batches than processes; or the memory does not suffice for
            one image, or for a batch of several processes, which cannot halve it together.
    """
    while (seconds := _seconds(dataset, module, trainer, label, shuffle_seed, only)) is None:
        size = trainer.images_per_batch
        if size == 1 or trainer.distributed:
            raise ValueError(f"trainer.batch_size={size} needs more memory than the device has.")
        trainer = trainer.model_copy(update={"batch_size": size // 2})
        if isinstance(module, Transfer):
            module.adversarial_source.halve_gradient_batch()
        log.warning("Out of memory: going on with batches of %d images, not %d.", size // 2, size)
    return Pass(seconds, trainer.images_per_batch)


def _seconds(
    dataset: ImageDataset,
    module: pl.LightningModule,
    trainer: TrainerSettings,
    label: str,
    shuffle_seed: int | None,
    only: Collection[int] | None,
) -> float | None:
    """Return the duration of one pass over the images, None where memory does not suffice."""
    count = len(dataset) if only is None else len(only)
    bars = [CountingBar(label, count)] if trainer.progress_bar else []
    runner = make_trainer(trainer, bars)
    batches = Batches(
        dataset, trainer.images_per_batch, runner.world_size, runner.global_rank, shuffle_seed, only
    )
    loader = DataLoader(batches, batch_size=None, num_workers=trainer.workers)
    strict = trainer.precision == "32-true"  # on a GPU too, no shortened mantissas
    flags = {"benchmark": trainer.cudnn_benchmark, "deterministic": strict}
    start = time.perf_counter()
    try:
        with (
            stopping.insist(),
            logging_redirect_tqdm(),  # lines of the log stand above the bar
            torch.backends.cudnn.flags(enabled=True, allow_tf32=not strict, **flags),
        ):
            runner.predict(module, loader, return_predictions=False)
    except torch.OutOfMemoryError:
        return None
    return time.perf_counter() - start


def for_device(trainer: TrainerSettings, device: str) -> TrainerSettings:
    """Return settings with each `auto` replaced by what suits a device.

    Batches have 50 images on a CPU, which larger ones do not make faster, and on a GPU 1,000, or
    the largest half, quarter, ... of that for which its memory suffices. Attacks use bfloat16
    where the device computes in it, and float32 for `tf32` where it does not. For a GPU up to 8
    processes decode images, for a CPU none.
    """
    decided: dict[str, Any] = {}
    if trainer.num_workers == "auto":
        decided["num_workers"] = min(8, os.cpu_count() or 1) if device == "cuda" else 0
    if trainer.batch_size == "auto":
        decided["batch_size"] = _GPU_BATCH if device == "cuda" else _CPU_BATCH
    if trainer.attack_precision == "auto":
        decided["attack_precision"] = "bf16" if computes_in_bfloat16(device) else "32-true"
    if trainer.attack_precision == "tf32" and not computes_in_tf32(device):
        decided["attack_precision"] = "32-true"
    return trainer.model_copy(update=decided)


def score_clean(
    dataset: ImageDataset,
    targets: Mapping[str, nn.Module],
    trainer: TrainerSettings,
    *,
    source: AdversarialSource | None = None,
    label: str = "clean images",
    only: Collection[int] | None = None,
    keep: Callable[[pa.Table], None] = lambda table: None,
) -> pa.Table:
    """Return the models' predictions for the clean images.

    A `source` changes the clean images, in the same way for all models; `keep` gets the rows of
    finished images while a long pass lasts.
    """

    def keep_rows(parts: Mapping[str, pa.Table]) -> None:
        for rows in parts.values():
            keep(rows)

    module = Transfer(targets, source or CleanImages(), keep=keep_rows)
    (table,) = evaluate(dataset, module, trainer, label, only).tables.values()
    return table


def meet(trainer: TrainerSettings) -> None:
    """Let the processes that share a job find each other, before they have to agree on anything."""
    if trainer.distributed and not torch.distributed.is_initialized():
        make_trainer(trainer, []).predict(
            _Nothing(), DataLoader(TensorDataset(torch.zeros(1))), return_predictions=False
        )


class _Nothing(pl.LightningModule):
    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """Return the batch as it is."""
        return batch


def make_trainer(settings: TrainerSettings, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Return a Lightning trainer that leaves gradients possible while it predicts."""
    try:
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=settings.precision,
            use_distributed_sampler=False,  # `Batches` deals them out
            inference_mode=False,  # attacks need gradients, which inference mode forbids
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,  # `CountingBar` replaces it
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ImportError) as error:
        raise ValueError(f"trainer in the config: {first_line(error)}") from error


def renamed(table: pa.Table, name: str) -> pa.Table:
    """Return the rows under another target's name: a cache knows models by content."""
    position = table.schema.get_field_index("target")
    return table.set_column(position, "target", pa.array([name] * len(table)))
