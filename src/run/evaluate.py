"""Evaluation of targets on a data set, on one device or on several."""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm.contrib.logging import logging_redirect_tqdm

from src.config.settings import TrainerSettings
from src.data import ImageDataset
from src.images.adversarial_source import Probe, clean_images
from src.images.variants import UNROUNDED
from src.run.batches import Batches
from src.run.lightning_module import Transfer
from src.run.trainer import make_trainer
from src.utils import stopping
from src.utils.defended_names import Evaluated

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Results of a pass over the images: rows of all processes, duration, and batch size."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    seconds: float = math.nan
    batch_size: int = 0


def evaluate(
    dataset: ImageDataset,
    module: Transfer,
    trainer: TrainerSettings,
    label: str = "images",
    only: Collection[int] | None = None,
) -> Evaluation:
    """Attack images and evaluate the targets; `label` names the progress bar.

    Several devices share all images, and leave out those not among `only`. Where a GPU's memory
    does not suffice, the pass begins again with half the batch size.

    Raises:
        ValueError: There are fewer batches than processes; or the memory does not suffice for
            one image, or for a batch of several processes.
    """
    variants, source, size = module.variants, module.adversarial_source, int(trainer.batch_size)
    size = min(size, source.max_images or size)
    shuffle_seed = variants.seed if variants.controls else None
    runner = make_trainer(trainer, label)
    batches = Batches(dataset, size, runner.world_size, runner.global_rank, shuffle_seed, only)
    loader = DataLoader(batches, batch_size=None, num_workers=trainer.num_workers)
    start = time.perf_counter()
    try:
        with (
            stopping.plain_interrupts(),
            logging_redirect_tqdm(),  # lines of the log stand above the bar
            _arithmetic(runner.strategy.root_device.type, trainer.precision == "32-true"),
        ):
            runner.predict(module, loader, return_predictions=False)
        return Evaluation(module.tables, time.perf_counter() - start, size)
    except torch.OutOfMemoryError as error:
        if size == 1 or trainer.distributed:
            text = f"trainer.batch_size={size} needs more memory than the device has."
            raise ValueError(text) from error
    log.warning("Out of memory: going on with batches of %d images, not %d.", size // 2, size)
    source.max_batch = source.max_batch and max(1, source.max_batch // 2)
    smaller = trainer.model_copy(update={"batch_size": size // 2})
    return evaluate(dataset, module, smaller, label, only)


@contextmanager
def _arithmetic(device: str, strict: bool) -> Iterator[None]:
    """Compute as the settings say, also under the caller's autocast and precision of products.

    With `strict` no mantissas are shortened, on a GPU either.
    """
    backends: Any = torch.backends
    matmuls = (backends.cuda.matmul, backends.mkldnn.matmul)
    before = [matmul.fp32_precision for matmul in matmuls]
    try:
        for matmul in matmuls:
            matmul.fp32_precision = "ieee"
        with (
            torch.autocast(device, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=not strict, deterministic=strict),
        ):
            yield
    finally:
        for matmul, precision in zip(matmuls, before, strict=True):
            matmul.fp32_precision = precision


def score_clean(
    dataset: ImageDataset,
    targets: Mapping[str, nn.Module],
    trainer: TrainerSettings,
    *,
    probe: Probe | None = None,
    label: str = "clean images",
    only: Collection[int] | None = None,
    keep: Callable[[pa.Table], None] = lambda table: None,
) -> pa.Table:
    """Return the models' predictions for the clean images, or for those that a `probe` makes.

    `keep` gets the rows of finished images while a long pass lasts.
    """
    name = UNROUNDED.primary
    module = Transfer(targets, probe or clean_images(), keep=lambda parts: keep(parts[name]))
    return evaluate(dataset, module, trainer, label, only).tables[name]


def with_names(table: pa.Table, pair: Evaluated) -> pa.Table:
    """Return one target's rows under its names: a pass has labels, and a cache knows contents."""
    position = table.schema.get_field_index("target")
    table = table.set_column(position, "target", pa.array([pair.target] * len(table)))
    return table.append_column("defence", pa.array([pair.defence] * len(table)))
