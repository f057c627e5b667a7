"""Lightning trainer for a pass over the images, and settings that depend on the device."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from ..config.sections import TrainerSettings
from ..config.settings import Settings
from ..utils.devices import free_gpu, is_cuda
from ..utils.processes import is_first_process
from ..utils.refusals import first_line
from .batches import layout

log = logging.getLogger(__name__)

_CPU_BATCH, _GPU_BATCH = 50, 1000
_SHARED = 8  # batches of a job that processes share, at least


def make_trainer(settings: TrainerSettings) -> Any:
    """Return the Lightning trainer of all passes with these settings; it allows gradients.

    Raises:
        ValueError: Lightning refuses the settings.
    """
    keys = {"accelerator", "devices", "num_nodes", "strategy"}
    text = settings.model_dump_json(include=keys)
    return _make_trainer(text, settings.distributed)


@cache
def _make_trainer(keys: str, distributed: bool) -> Any:
    import pytorch_lightning as pl  # slow to import
    from pytorch_lightning.plugins.environments import LightningEnvironment
    from pytorch_lightning.utilities.exceptions import MisconfigurationException

    try:
        return pl.Trainer(
            **json.loads(keys),
            # Ignore a launcher's environment variables unless processes share the job.
            plugins=None if distributed else LightningEnvironment(),
            use_distributed_sampler=False,  # `Batches` distributes the images
            inference_mode=False,  # attacks need gradients, which inference mode forbids
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ImportError) as error:
        raise ValueError(f"trainer: {first_line(error)}") from error


def root_device(settings: TrainerSettings) -> torch.device:
    """Return the device of a pass in this process."""
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = settings.accelerator == "cpu" or (settings.accelerator == "auto" and not gpu)
    if on_cpu and settings.devices == 1 and not settings.distributed:
        return torch.device("cpu")  # Lightning, which also chooses GPUs, is slow to import
    return torch.device(make_trainer(settings).strategy.root_device)


@contextmanager
def on_free_gpu(settings: TrainerSettings) -> Iterator[TrainerSettings]:
    """Yield the settings with a GPU that no other job uses, if they ask for one GPU."""
    if not is_cuda(root_device(settings)) or settings.devices != 1 or settings.distributed:
        yield settings
    else:
        with free_gpu() as number:
            yield settings.model_copy(update={"devices": [number]})


def for_device(settings: Settings, images: int | None = None) -> Settings:
    """Return settings with `trainer.batch_size=auto` replaced by a size for the device.

    Batches have 50 images on a CPU, where larger ones are not faster, and 1,000 on a GPU. If
    processes share the job, they have at most an eighth of the images, for any number of processes.
    Processes without a batch are reported.

    Args:
        settings: Settings of the job.
        images: Number of its images; None: one process runs the job.
    """
    trainer = settings.trainer
    images = images if trainer.distributed else None
    if images is None and trainer.batch_size != "auto":
        return settings
    if trainer.batch_size == "auto":
        size = _GPU_BATCH if is_cuda(root_device(trainer)) else _CPU_BATCH
        size = size if images is None else min(size, -(-images // _SHARED))
        trainer = trainer.model_copy(update={"batch_size": size})
    if images is not None and is_first_process():
        batches = len(layout(range(images), int(trainer.batch_size)))
        processes = make_trainer(trainer).world_size
        if batches < processes:
            text = "%d of %d processes have no work: %d images are %d batches. Use fewer devices."
            log.warning(text, processes - batches, processes, images, batches)
    return settings.model_copy(update={"trainer": trainer})


def meet(trainer: TrainerSettings) -> None:
    """Start the communication between processes that share a job."""
    if trainer.distributed and not torch.distributed.is_initialized():
        import pytorch_lightning as pl  # slow to import
        from torch.utils.data import DataLoader, TensorDataset

        class Nothing(pl.LightningModule):
            def predict_step(self, batch: Any, batch_idx: int) -> Any:
                return batch

        loader = DataLoader(TensorDataset(torch.zeros(1)))
        make_trainer(trainer).predict(Nothing(), loader, return_predictions=False)
