"""Lightning trainer for a pass over the images, and what depends on the device: batches, speed."""

import json
import logging
import platform
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeFloat, TypeAdapter

from ..cache.keys import content_key
from ..config.sections import TrainerSettings
from ..config.settings import Settings
from ..data import Batch, ImageDataset
from ..utils.devices import device_of, free_gpu, is_cuda
from ..utils.files import WriteError, write_text
from ..utils.processes import is_first_process
from ..utils.refusals import first_line

log = logging.getLogger(__name__)

_CPU_BATCH, _GPU_BATCH = 50, 1000
_SPEEDS = "seconds.json"  # and gradients per image
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


_NOTES = TypeAdapter(dict[str, NonNegativeFloat])


def speed_key(settings: Settings, image_size: int) -> str:
    """Return the source, size of images, precision and device that a speed is noted for."""
    device = device_of(settings.trainer.accelerator)
    if is_cuda(device) and torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"{device} of {platform.node()} with {torch.get_num_threads()} threads"
    models = [settings.model[name] for name in settings.source]
    networks = [model.model_dump(include={"network", "input_size"}) for model in models]
    source = f"{settings.attack.kind} {settings.attacked} ({content_key(networks)})"
    return f"{source}, {image_size} pixels, {settings.trainer.attack_precision}, {device}"


def read_notes(cache_dir: Path) -> dict[str, float]:
    """Return what jobs have noted, by `speed_key` and `cost_key`; none if the file is damaged."""
    file = cache_dir / _SPEEDS
    try:
        return _NOTES.validate_json(file.read_bytes()) if file.is_file() else {}
    except (OSError, ValueError):
        return {}


def note(cache_dir: Path, key: str, number: float) -> None:
    """Note a job's seconds per gradient, or gradients per image, in the cache, for plans only."""
    notes = _NOTES.dump_json(read_notes(cache_dir) | {key: number}, indent=1)
    with suppress(WriteError):  # a read-only cache
        write_text(cache_dir / _SPEEDS, notes.decode())


_PART = 8  # images that a thread decodes in turn


class Batches:
    """Batches of one process.

    All batches are laid out first and then dealt to the processes in turn, so an image shares its
    batch with the same other images for any number of processes. Processes beyond the number of
    batches get an empty one.

    Args:
        dataset: The images.
        batch_size: Maximum number of images in a batch.
        processes: Number of processes that share the batches.
        rank: Number of this process.
        groups: Group of each image, int64 (n,). Batches are split by group, and images with a
            group below 0 are left out.
        whole_batches: True: keep a batch unsplit if any of its images is in a group of 0 or above.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        processes: int = 1,
        rank: int = 0,
        groups: np.ndarray | None = None,
        whole_batches: bool = False,
    ) -> None:
        self.dataset = dataset
        batches = layout(dataset.dealt.tolist(), batch_size)
        groups = np.zeros(len(dataset), np.int64) if groups is None else groups
        self.positions: list[list[int]] = []
        for batch in batches[rank::processes]:
            parts = defaultdict[int, list[int]](list)
            for at in batch:
                parts[int(groups[batch].max() if whole_batches else groups[at])].append(at)
            parts.pop(-1, None)
            self.positions += parts.values() or [[]]
        self.positions = self.positions or [[]]  # Lightning refuses a process without batches

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; while one is used, threads decode the next one."""
        threads, ahead = ThreadPoolExecutor(), deque[list[Future[Batch]]]()
        try:
            for positions in self.positions:
                parts = (positions[n : n + _PART] for n in range(0, len(positions), _PART))
                ahead.append([threads.submit(self.dataset.__getitem__, part) for part in parts])
                if len(ahead) > 1:
                    yield _joined(ahead.popleft())
            yield from map(_joined, ahead)
        finally:
            threads.shutdown(cancel_futures=True)


def _joined(parts: Sequence[Future[Batch]]) -> Batch:
    """Return a batch from its parts, in order."""
    if not parts:
        none = torch.zeros(0, dtype=torch.int64)
        return Batch(torch.zeros(0, 3, 1, 1, dtype=torch.uint8), none, none)
    columns = zip(*(part.result() for part in parts), strict=True)
    return Batch(*(torch.cat(column) for column in columns))


def layout(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return the images of each batch: an even number of neighbours in a dealt order.

    Neighbours swap perturbations in a control. The last of an odd number gets the first one's, so
    it is in the first batch. A batch has at least two images.
    """
    odd, size = len(order) % 2, 2 * max(1, batch_size // 2)
    rotated = [*order[len(order) - odd :], *order[: len(order) - odd]]
    first = max(3, (batch_size + 1) // 2 * 2 - 1) if odd else size
    starts = range(first, len(order), size)
    return [rotated[:first], *(rotated[start : start + size] for start in starts)]
