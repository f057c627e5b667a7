"""A pass over images by Lightning, on one device or on several."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.contrib.logging import logging_redirect_tqdm

from src.config.settings import TrainerSettings
from src.data import ImageDataset
from src.run.batches import Batches
from src.run.lightning_module import CacheWriter, MeasuringModule
from src.run.trainer import make_trainer
from src.utils import stopping


def evaluate(
    images: ImageDataset,
    module: MeasuringModule,
    writer: CacheWriter,
    trainer: TrainerSettings,
    batch_size: int,
    label: str,
    only: Collection[int],
    pair_seed: int | None,
) -> None:
    """Measure the images among `only`; several devices share them.

    `label` names the progress bar. With a `pair_seed` images come in random pairs.

    Raises:
        ValueError: There are fewer batches than processes.
        torch.OutOfMemoryError: A batch is too large.
    """
    runner = make_trainer(trainer, label, writer)
    place = runner.world_size, runner.global_rank
    batches = Batches(images, batch_size, *place, shuffle_seed=pair_seed, only=only)
    loader = DataLoader(
        batches, batch_size=1, collate_fn=itemgetter(0), num_workers=trainer.num_workers
    )
    with (
        stopping.plain_interrupts(),
        logging_redirect_tqdm(),  # lines of the log stand above the bar
        _arithmetic(runner.strategy.root_device.type, trainer.precision == "32-true"),
    ):
        runner.predict(module, loader, return_predictions=False)
        runner.strategy.barrier()  # the first process reads what all have written


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
