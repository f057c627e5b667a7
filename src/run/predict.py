"""Run a pass over images with Lightning, on one device or several, and show its progress."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.hooks import RemovableHandle
from tqdm.contrib.logging import logging_redirect_tqdm

from ..images.attacker import AdversarialSource
from ..measure.protocol import Measurement, RowRequest
from ..models import PixelClassifier, choose_layout
from ..utils import stopping
from ..utils.devices import arithmetic, deterministic, is_out_of_memory
from ..utils.processes import is_first_process
from ..utils.terminal import Progress
from .batches import Batches
from .hours import note_seconds
from .lightning_module import CacheWriter, MeasuringModule
from .shared_pass import SharedPass
from .stages import JobContext
from .trainer import make_trainer
from .work import GRADIENT, Work, work_of


class PassProgress(pl.Callback):
    """Progress of a pass: finished images, gradients and time left, updated within a batch.

    Work is counted in forward passes; a gradient counts as `GRADIENT` of them. The work per image
    is measured on finished batches. During the first batch it is the number the attack states.
    """

    def __init__(
        self,
        label: str,
        work: Work,
        shown: bool,
        on_first_batch: Callable[[float, float], None] | None = None,
    ) -> None:
        self.progress = Progress(label, shown and is_first_process())
        self.work, self.processes = work, 1
        self.on_first_batch, self.start, self.seconds = on_first_batch, 0.0, 0.0
        self.images = self.batch = self.gradients = 0  # images: in finished batches, in this one
        self.done = self.passes = 0  # work in finished batches, in this one
        self.hooks: list[RemovableHandle] = []

    def on_predict_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Count calls of the networks by the attack and by measurements."""

        def count(network: Any, images: Any, logits: Any) -> None:
            if not torch.is_grad_enabled():  # the attack counts its gradients itself
                self.count(0, len(logits))

        self.processes = trainer.world_size
        networks = filter(lambda part: isinstance(part, PixelClassifier), module.networks.modules())
        self.hooks = [network.register_forward_hook(count) for network in networks]
        if module.source is not None:
            module.source.on_pass = self.count

    def on_predict_batch_start(self, trainer: Any, module: Any, batch: Any, *others: Any) -> None:
        """Remember the size of the batch."""
        self.batch, self.passes = len(batch.index), 0
        self.start = self.start or time.perf_counter()

    def on_predict_batch_end(self, *arguments: Any) -> None:
        """Add the batch to the finished ones."""
        is_first = not self.images
        self.images, self.done = self.images + self.batch, self.done + self.passes
        self.batch, self.seconds = 0, time.perf_counter() - self.start
        if is_first and self.done and self.on_first_batch and self.processes == 1:
            left = self.done / GRADIENT / self.images * (self.work.images - self.images)
            self.on_first_batch(self.pace, left)

    @property
    def pace(self) -> float:
        """Seconds per gradient in the finished batches, with three forward passes for one."""
        return GRADIENT * self.seconds / self.done

    def on_predict_end(self, *arguments: Any) -> None:
        """Remove the progress bar."""
        self.progress.close()
        for hook in self.hooks:
            hook.remove()

    def on_exception(self, *arguments: Any) -> None:
        """Remove the progress bar, so that the error message starts on its own line."""
        self.on_predict_end()

    def count(self, gradients: int, forwards: int) -> None:
        """Add to the counts of gradients and of forward passes without a gradient."""
        self.gradients += gradients
        self.passes += GRADIENT * gradients + forwards
        if self.images:
            expected = self.done / self.images
        else:
            total = GRADIENT * (self.work.gradients or 0) + self.work.predictions.total()
            expected = total / max(1, self.work.images)
        part = min(1, self.passes / (expected * self.batch)) if expected and self.batch else 0
        images = min((self.images + part * self.batch) * self.processes, self.work.images)
        text = f"{images:.0f}/{self.work.images} images"
        if self.gradients:
            stated = f"{self.work.gradients:,.0f}" if self.work.gradients else "?"
            text += f", {self.gradients * self.processes:,}/{stated} gradients"
        self.progress.update(images / max(1, self.work.images), text)


def predict(
    job: JobContext,
    source: AdversarialSource | None,
    requests: Mapping[RowRequest, Measurement],
    missing: Mapping[RowRequest, np.ndarray],
    again: Mapping[RowRequest, np.ndarray],
    writer: CacheWriter,
    batch_size: int,
    kernels: set[str],
) -> None:
    """Compute the rows of missing images; the writer adds them to the cache.

    Several devices share the images, and end the pass together. Without a `source` the pass is over
    clean images. `again` holds the images that are attacked again, for the progress bar. `kernels`
    receives the names of kernels that are not deterministic.

    Raises:
        RuntimeError: A batch is too large, in this process or in another, see `is_out_of_memory`.
    """
    settings, asked = job.settings, dict[Measurement, list[RowRequest]]()
    for request, measurement in requests.items():
        if request in missing or request.also_store is not None:
            asked.setdefault(measurement, []).append(request)
    networks = {model: job.networks[model] for request in missing for model in request.models}
    device, precision = job.data.device.type, settings.trainer.precision
    for network in networks.values():
        choose_layout(network, device, precision)
    torch.cuda.empty_cache()  # after a failure: cuBLAS allocates outside PyTorch's allocator
    shared = SharedPass()
    module = MeasuringModule(settings, networks, source, missing, asked, shared)
    # The label omits the targets: in 80 columns they would leave no room for the bar.
    label = settings.job if source else "clean images"
    shown = settings.trainer.progress_bar
    on_first_batch = job.planned.on_first_batch if source or not settings.budgets else None
    progress = PassProgress(label, work_of(job, {**missing, **again}), shown, on_first_batch)
    runner = make_trainer(settings.trainer, progress, writer)
    place = runner.world_size, runner.global_rank
    whole_batches = source is not None and (
        not job.images_apart or any(request.paired for request in missing)
    )
    groups = _group(job.images.indices, missing)
    batches = Batches(job.images, batch_size, *place, groups, whole_batches)
    with (
        stopping.plain_interrupts(),
        logging_redirect_tqdm(),  # log lines go above the bar
        deterministic(device, kernels),
        arithmetic(device, "32-true"),  # Lightning refuses others; the module sets its own
    ):
        try:
            runner.predict(module, batches, return_predictions=False)
        except RuntimeError as error:
            if is_out_of_memory(error):
                shared.fail()
                shared.wait()
            raise
        shared.wait()  # the first process reads the rows of all
        shared.raise_if_failed()
    counted = progress.gradients or (settings.attack.kind != "crafted" and progress.done)
    if counted and progress.processes == 1:
        note_seconds(settings, job.images.image_size, progress.pace)


def _group(indices: np.ndarray, missing: Mapping[RowRequest, np.ndarray]) -> np.ndarray:
    """Return a group per image, int64 (n,): equal if the same budgets lack rows; -1: no budget."""
    budgets = sorted({eps_255 for request in missing for eps_255 in request.budgets})
    lacking = np.zeros((len(indices), 1 + len(budgets)), bool)  # column 0: any row
    for request, index in missing.items():
        columns = [0, *(1 + budgets.index(eps_255) for eps_255 in request.budgets)]
        lacking[np.searchsorted(indices, index)[:, None], columns] = True
    _, groups = np.unique(lacking, axis=0, return_inverse=True)
    return np.where(lacking[:, 0], groups.reshape(-1), -1)
