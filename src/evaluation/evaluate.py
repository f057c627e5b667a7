"""Evaluate targets on a data set, on one device or on several."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader

from src.config.settings import TrainerSettings
from src.data import ImageDataset
from src.evaluation.adversarial_source import AdversarialSource, CleanImages
from src.evaluation.batches import Batches
from src.evaluation.lightning_module import Evaluation, Transfer
from src.evaluation.partial_rows import PartialRows
from src.utils import stopping
from src.utils.cache import cache_entry, is_cached
from src.utils.checks import first_line
from src.utils.devices import computes_in_bfloat16
from src.utils.processes import is_first_process
from src.utils.tables import read_table

log = logging.getLogger(__name__)

_CPU_BATCH, _GPU_BATCH = 50, 1000


class LabelledProgressBar(TQDMProgressBar):
    """Count batches beside a label that says what is being done."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def on_predict_batch_start(self, *arguments: Any, **keywords: Any) -> None:
        """Set the label, which Lightning sets to the number of the data loader."""
        super().on_predict_batch_start(*arguments, **keywords)
        self.predict_progress_bar.set_description(self.label)


class Pass(NamedTuple):
    """How long a pass over the images took, and how many images its batches had."""

    seconds: float
    batch_size: int


def evaluate(
    dataset: ImageDataset, module: Transfer, trainer: TrainerSettings, label: str
) -> Evaluation:
    """Attack the images and evaluate the targets, as `pass_over`."""
    variants = module.variants
    shuffle_seed = variants.seed if variants.controls else None
    took = pass_over(dataset, module, trainer, label, shuffle_seed)
    if module.finished:  # by a killed pass, whose time is not known
        took = took._replace(seconds=math.nan)
    return replace(module.found, **took._asdict())


def pass_over(
    dataset: ImageDataset,
    module: pl.LightningModule,
    trainer: TrainerSettings,
    label: str,
    shuffle_seed: int | None = None,
) -> Pass:
    """Pass over the images, on one device or on several.

    Where a GPU's memory does not suffice, the pass begins again with half the batch size.

    Args:
        dataset: The images.
        module: What is done with each batch.
        trainer: The device and the batches.
        label: What the progress bar says.
        shuffle_seed: See `Batches`.

    Raises:
        ValueError: There are fewer batches than processes; or the memory does not suffice for
            one image, or for a batch of several processes, which cannot halve it together.
    """
    while (seconds := _seconds(dataset, module, trainer, label, shuffle_seed)) is None:
        size = trainer.images_per_batch
        if size == 1 or trainer.distributed:
            raise ValueError(f"trainer.batch_size={size} needs more memory than the device has.")
        trainer = trainer.model_copy(update={"batch_size": size // 2})
        if isinstance(module, Transfer):
            module.adversarial_source.halve_gradient_batch()
            if module.partial is not None:  # its batches are others
                module.partial = PartialRows(module.partial.folder / str(size // 2))
        log.warning("Out of memory: going on with batches of %d images, not %d.", size // 2, size)
    return Pass(seconds, trainer.images_per_batch)


def _seconds(
    dataset: ImageDataset,
    module: pl.LightningModule,
    trainer: TrainerSettings,
    label: str,
    shuffle_seed: int | None,
) -> float | None:
    """Pass over the images once; return the time it took, None where memory does not suffice."""
    runner = make_trainer(trainer, [LabelledProgressBar(label)] if trainer.progress_bar else [])
    batches = Batches(
        dataset, trainer.images_per_batch, runner.world_size, runner.global_rank, shuffle_seed
    )
    loader = DataLoader(batches, batch_size=None, num_workers=trainer.num_workers)
    start = time.perf_counter()
    try:
        with stopping.insist():
            runner.predict(module, loader, return_predictions=False)
    except torch.OutOfMemoryError:
        return None
    return time.perf_counter() - start


def for_device(trainer: TrainerSettings, device: str) -> TrainerSettings:
    """Return settings with what a device decides in the place of `auto`.

    Batches have 50 images on a CPU, which larger ones do not make faster, and on a GPU 1,000, or
    the largest half, quarter, ... of that for which its memory suffices. Attacks use bfloat16
    where the device computes in it.
    """
    decided: dict[str, Any] = {}
    if trainer.batch_size == "auto":
        decided["batch_size"] = _GPU_BATCH if device == "cuda" else _CPU_BATCH
    if trainer.attack_precision == "auto":
        decided["attack_precision"] = "bf16" if computes_in_bfloat16(device) else "32-true"
    return trainer.model_copy(update=decided)


def score_clean(
    dataset: ImageDataset,
    targets: Mapping[str, nn.Module],
    trainer: TrainerSettings,
    cache: Mapping[str, Path],
    *,
    refresh: bool = False,
    source: AdversarialSource | None = None,
    label: str = "clean images",
) -> pa.Table:
    """Return the models' predictions for the clean images, computed once per model and data.

    Args:
        dataset: The images.
        targets: The models, by name.
        trainer: The device and the batches.
        cache: See `computed_once`.
        refresh: See `computed_once`.
        source: What makes other images of the clean ones, whatever the model; None: nothing.
        label: What the progress bar says.

    Returns:
        The rows of all targets, in their order.
    """

    def compute(missing: Sequence[str]) -> pa.Table:
        module = Transfer({name: targets[name] for name in missing}, source or CleanImages())
        (table,) = evaluate(dataset, module, trainer, label).tables.values()
        return table

    return computed_once(compute, {name: cache[name] for name in targets}, refresh=refresh)


def computed_once(
    compute: Callable[[Sequence[str]], pa.Table],
    cache: Mapping[str, Path],
    *,
    refresh: bool = False,
) -> pa.Table:
    """Return the rows of some models or pairs, computed once and kept.

    Args:
        compute: Names to a table with their rows, whose column `target` has the names.
        cache: Where the rows of each name are kept; the path must tell what they depend on.
        refresh: Compute them all anew. Required where processes share a job: a cache hit on one
            of them only would deadlock.

    Returns:
        The rows of all names, in their order.
    """
    missing = [name for name in cache if refresh or not is_cached(cache[name])]
    found = cache.keys() - set(missing)
    rows = {name: renamed(read_table(cache[name]), name) for name in found}
    if missing:
        table = compute(missing)
        for name in missing:
            rows[name] = table.filter(pc.equal(table["target"], name))
            if is_first_process():
                with cache_entry(cache[name]) as temporary:
                    pq.write_table(rows[name], temporary)
    return pa.concat_tables(rows[name] for name in cache)


def make_trainer(settings: TrainerSettings, callbacks: Sequence[pl.Callback]) -> pl.Trainer:
    """Return a Lightning trainer that leaves gradients possible while it predicts.

    Raises:
        ValueError: This machine lacks what the settings ask for.
    """
    if settings.precision == "32-true":  # the reference: on a GPU too, no shortened mantissas
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
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
            enable_progress_bar=any(isinstance(one, TQDMProgressBar) for one in callbacks),
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ImportError) as error:
        raise ValueError(f"trainer in the config: {first_line(error)}") from error


def renamed(table: pa.Table, name: str) -> pa.Table:
    """Return the rows under another target's name: a cache knows models by content."""
    position = table.schema.get_field_index("target")
    return table.set_column(position, "target", pa.array([name] * len(table)))
