"""Passes over a job's images with Lightning, on one device or several: attack, evaluate, store."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import distributed, nn
from tqdm.contrib.logging import logging_redirect_tqdm

from ..data import Batch, to_unit
from ..images.attacker import Attacker
from ..images.storage import COST, AdversarialBatch
from ..measure.attack_cost import AttackCost
from ..measure.protocol import EvaluatedBatch, Measurement
from ..models import PixelClassifier, choose_layout
from ..utils import stopping
from ..utils.devices import arithmetic, deterministic, is_out_of_memory
from ..utils.processes import is_first_process
from ..utils.terminal import Progress
from .stages import GRADIENT, JobContext, Part, StoredRows, Work, work_of
from .trainer import Batches, make_trainer, note

_PAUSE = 0.05  # seconds


class PassProgress:
    """Progress of a pass: finished images, gradients and time left, updated within a batch.

    Work is counted in forward passes; a gradient counts as `GRADIENT` of them. The work per image
    is the largest of finished batches or, before, the number that the attack states.

    Args:
        label: Name of the pass.
        work: Work of this pass.
        images: Number of images that lack rows, also after this pass.
        expected: Least work per image.
    """

    def __init__(
        self,
        label: str,
        work: Work,
        images: int,
        is_visible: bool,
        processes: int,
        on_first_batch: Callable[[float, float], None] | None,
        expected: float,
    ) -> None:
        self.bar, self.all = Progress(label, is_visible and is_first_process()), images
        self.work, self.processes, self.on_first_batch = work, processes, on_first_batch
        stated = GRADIENT * (work.gradients or 0) + work.predictions
        self.expected = max(expected, stated / max(1, work.images))
        self.start, self.seconds = time.perf_counter(), 0.0
        self.images = self.batch = self.gradients = 0  # images: in finished batches, in this one
        self.done = self.passes = 0  # work in finished batches, in this one

    def start_batch(self, images: int) -> None:
        """Remember the size of a batch that starts."""
        self.batch, self.passes = images, 0

    def end_batch(self) -> None:
        """Add the batch to the finished ones."""
        is_first = not self.images
        self.expected = max(self.expected, self.passes / self.batch)
        self.images, self.done = self.images + self.batch, self.done + self.passes
        self.batch, self.seconds = 0, time.perf_counter() - self.start
        if is_first and self.done and self.on_first_batch and self.processes == 1:
            left = self.done / GRADIENT / self.images * (self.all - self.images)
            self.on_first_batch(self.pace, left)

    def skip(self, seconds: float) -> None:
        """Leave some seconds out of the pace."""
        self.start += seconds
        self.bar.start += seconds

    @property
    def pace(self) -> float:
        """Seconds per gradient in the finished batches, with three forward passes for one."""
        return GRADIENT * self.seconds / self.done

    def count(self, gradients: int, forwards: int) -> None:
        """Add to the counts of gradients and of forward passes without a gradient."""
        self.gradients += gradients
        self.passes += GRADIENT * gradients + forwards
        expected = self.expected * self.batch
        part = min(1, self.passes / expected) if expected else 0
        images = min((self.images + part * self.batch) * self.processes, self.work.images)
        text = f"{images:.0f}/{self.work.images} images"
        if self.gradients:
            stated = f"{self.work.gradients:,.0f}" if self.work.gradients else "?"
            text += f", {self.gradients * self.processes:,}/{stated} gradients"
        self.bar.update(images / max(1, self.work.images), text)


class JobPass(pl.LightningModule):
    """The passes of a job: each batch is attacked, evaluated and stored, and then dropped.

    The processes of a pass end it together. They communicate by keys in the store of their process
    group. Unlike a collective operation, a key interrupts no process, and waiting for it has no
    time limit.

    Attributes:
        attacker: The attack; None: images of a saved set, or a job without an attack.
        crafted: Images of the first batch by budget and index, until they are evaluated.
        kernels: Names of kernels that are not deterministic.
    """

    def __init__(self, job: JobContext, stored: StoredRows) -> None:
        super().__init__()
        self.job, self.stored = job, stored
        self.attacker: Attacker | None = None
        self.crafted: dict[float, dict[int, np.ndarray]] = {}
        self.kernels = set[str]()
        self.expected = 0.0  # work per image of the first batch
        self.runner = make_trainer(job.trainer)

    def run_pass(
        self, job: JobContext, missing: Mapping[Part, np.ndarray], size: int, first: bool
    ) -> None:
        """Compute the rows of missing images, int64 (n,) by part, and store them.

        With `first`, each process computes its first batch, and its images stay in memory.

        Raises:
            RuntimeError: A batch is too large, in this process or another: see `is_out_of_memory`.
        """
        device = job.device.type
        self.job, self.missing, self.first = job, missing, first
        models = dict.fromkeys(model for part in missing for model in part.models)
        self.names, self.networks = [*models], nn.ModuleList(job.networks[name] for name in models)
        self.source = self.attacker and self.attacker.source  # Lightning moves it to the device
        for network in self.networks:
            choose_layout(network, device, job.trainer.precision)
        torch.cuda.empty_cache()  # after a failure: cuBLAS allocates outside PyTorch's allocator
        attacked = any(part.measurement.attacked for part in missing)
        # The label omits the targets: in 80 columns they would leave no room for the bar.
        label = f"{'first batch of ' * first}{job.name}" if attacked else "clean images"
        told = job.on_first_batch if attacked or not job.budgets else None
        is_visible, runner = job.trainer.progress_bar, self.runner
        batches, images = self._batches(size, first, attacked), job.images.indices
        if first:
            images = images[np.array(batches.positions[0], np.int64)]
        work = work_of(job, {part: np.intersect1d(at, images) for part, at in missing.items()})
        total = len(np.unique(np.concatenate([*missing.values()])))
        self.progress = PassProgress(
            label, work, total, is_visible, runner.world_size, told, self.expected
        )
        self._begin()
        with (
            stopping.plain_interrupts(),
            logging_redirect_tqdm(),  # log lines go above the bar
            deterministic(device, self.kernels),
            arithmetic(device, "32-true"),  # Lightning refuses others; the module sets its own
            self._counted(),
        ):
            try:
                runner.predict(self, batches, return_predictions=False)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    self.store.set(self.failed, "")
                    self._wait()
                raise
            self._wait()  # the first process reads the rows of all
            self._raise_if_failed()
        progress = self.progress
        counted = progress.gradients or (job.attack.function is None and progress.done)
        if counted and progress.processes == 1:
            note(job.cache_dir, job.speed_key, progress.pace)

    def _batches(self, size: int, first: bool, attacked: bool) -> Batches:
        """Return this process's batches; images in one lack rows at the same budgets."""
        job, indices = self.job, self.job.images.indices
        budgets = sorted({eps_255 for part in self.missing for eps_255 in part.budgets})
        lacking = np.zeros((len(indices), 1 + len(budgets)), bool)  # column 0: any row
        for part, index in self.missing.items():
            columns = [0, *(1 + budgets.index(eps_255) for eps_255 in part.budgets)]
            lacking[np.searchsorted(indices, index)[:, None], columns] = True
        _, groups = np.unique(lacking, axis=0, return_inverse=True)
        groups = np.where(lacking[:, 0], groups.reshape(-1), -1)
        paired = any(part.measurement.paired for part in self.missing)
        whole = attacked and (paired or not job.attack.keeps_images_apart)
        place = self.runner.world_size, self.runner.global_rank
        batches = Batches(job.images, size, *place, groups, whole)
        if first:
            batches.positions = [*filter(None, batches.positions)][:1] or [[]]
        return batches

    def predict_step(self, batch: Batch, batch_idx: int) -> int:
        """Attack a batch, compute its rows and store them; return its number of images."""
        stopping.raise_if_interrupted()
        self._raise_if_failed()
        if not len(batch.index):
            return 0
        # Seeds attacks that use PyTorch's global generator: independent of earlier batches.
        numbers = np.random.SeedSequence([self.job.attack.seed, int(batch.index[0])])
        pl.seed_everything(int(numbers.generate_state(1)[0]), verbose=False)
        self.progress.start_batch(len(batch.index))
        index = batch.index.tolist()
        parts = [part for part, lacking in self.missing.items() if np.isin(index, lacking).any()]
        with arithmetic(batch.images.device.type, self.job.trainer.precision):
            adversarial = self._craft(batch, parts)
            if self.attacker is not None:
                self.progress.skip(self.attacker.fit_seconds)
                self.attacker.fit_seconds = 0.0
            tables = self._rows(batch, parts, adversarial)
        self.stored.add(tables)
        if self.first and adversarial is not None:
            versions = zip(adversarial.budgets, adversarial.images.cpu().numpy(), strict=True)
            self.crafted = {eps: dict(zip(index, images, strict=True)) for eps, images in versions}
        elif adversarial and any({*index} & by_index.keys() for by_index in self.crafted.values()):
            self.crafted = {}
        self.progress.end_batch()
        self.expected = self.progress.expected if self.first else 0.0
        return len(index)

    def _craft(self, batch: Batch, parts: list[Part]) -> AdversarialBatch | None:
        """Return a batch's adversarial images, from memory, the saved set, the store or the attack.

        An image whose cost is unknown is attacked.
        """
        job, saved, apart = self.job, self.job.saved, self.job.attack.keeps_images_apart
        budgets = tuple(sorted({eps_255 for part in parts for eps_255 in part.budgets}))
        if not budgets or saved is not None:
            return saved.versions(batch, budgets) if saved and budgets else None
        assert self.attacker is not None
        budgets = budgets if apart else job.budgets
        images, index = to_unit(batch.images), batch.index.tolist()
        adversarial = images.new_empty(len(budgets), *images.shape)
        is_stored = torch.zeros(adversarial.shape[:2], dtype=torch.bool)
        for place, eps_255 in enumerate(budgets):
            if versions := self._known(index, eps_255):
                rows = torch.tensor([row for row, number in enumerate(index) if number in versions])
                stored = np.stack([versions[index[row]] for row in rows])
                adversarial[place, rows] = torch.from_numpy(stored).to(images)
                is_stored[place, rows] = True
        if not apart and not is_stored.all():
            is_stored[:] = False
        labels = self.attacker.target_labels(images, batch)
        cost = torch.full((len(COST), *is_stored.shape), torch.nan, dtype=torch.float64)
        for column in is_stored.unique(dim=1).T:  # images that lack the same budgets
            places = (~column).nonzero()[:, 0]
            rows = (is_stored == column[:, None]).all(dim=0).nonzero()[:, 0]
            if len(places):
                indices = rows.to(images.device)
                aims = None if labels is None else labels[indices]
                lacking = tuple(budgets[place] for place in places)
                part = Batch(*(values[indices] for values in batch))
                attacked: Any = self.attacker(images[indices], part, lacking, aims)
                adversarial[places[:, None].to(indices), indices] = attacked.images
                cost[:, places[:, None], rows] = attacked.cost
        return AdversarialBatch(adversarial, budgets, labels, cost)

    def _known(self, index: list[int], eps_255: float) -> Mapping[int, np.ndarray]:
        """Return images at a budget in memory or, unless their cost is missing, in the store."""
        crafted = self.crafted.get(eps_255, {})
        memory = {number: crafted[number] for number in index if number in crafted}
        costs = [part for part in self.missing if type(part.measurement) is AttackCost]
        new = [self.missing[part] for part in costs if part.budgets == (eps_255,)]
        others = np.setdiff1d(index, np.concatenate([[*memory], *new]))
        return {**memory, **self.stored.images(others.tolist(), eps_255)}

    def _rows(
        self, batch: Batch, parts: list[Part], adversarial: AdversarialBatch | None
    ) -> dict[Part, pa.Table]:
        """Return the rows of a batch by part."""
        networks = dict(zip(self.names, self.networks, strict=True))
        whole = EvaluatedBatch(batch, self.job, networks, adversarial)
        selected, tables = dict[int, EvaluatedBatch](), dict[Part, pa.Table]()
        groups = dict[tuple[Measurement, int, tuple[float, ...]], list[Part]]()
        for part in parts:
            groups.setdefault((part.measurement, id(part.index), part.budgets), []).append(part)
        for (measurement, number, budgets), alike in groups.items():
            if number not in selected:
                selected[number] = whole.select(alike[0].index)
            views = selected[number].of([part.target for part in alike], budgets)
            with isolate_rng():  # the draws of one measurement do not affect the next
                tables |= zip(alike, map(measurement.rows, views), strict=True)
        return tables

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count calls of the networks by the attack and by measurements; then remove the bar."""

        def count(network: Any, images: Any, logits: Any) -> None:
            if not torch.is_grad_enabled():  # the attack counts its gradients itself
                self.progress.count(0, len(logits))

        if self.attacker is not None:
            self.attacker.on_pass = self.progress.count
        with closing(self.progress.bar), ExitStack() as hooks:
            for network in self.networks.modules():
                if isinstance(network, PixelClassifier):
                    hooks.enter_context(network.register_forward_hook(count))
            yield

    def _begin(self) -> None:
        """Name the keys by which the processes of this pass communicate."""
        several = distributed.is_initialized()
        self.processes = distributed.get_world_size() if several else 1
        group = distributed.group.WORLD if several else None
        self.store = distributed.HashStore() if group is None else group.get_group_store()
        # Every process begins every pass once, and none before all have ended the previous one.
        number = (self.store.add("begun", 1) - 1) // self.processes
        self.failed, self.ended = f"out of memory {number}", f"ended {number}"

    def _raise_if_failed(self) -> None:
        """Raise torch.OutOfMemoryError if any process has run out of memory."""
        with _connected():
            failed = self.store.check([self.failed])
        if failed:
            raise torch.OutOfMemoryError("Another process of this job has run out of memory.")

    def _wait(self) -> None:
        """Wait until all processes have ended the pass."""
        with _connected():
            self.store.add(self.ended, 1)
            while self.store.add(self.ended, 0) < self.processes:
                stopping.raise_if_interrupted()
                time.sleep(_PAUSE)


@contextmanager
def _connected() -> Iterator[None]:
    """Name the cause if the store is lost: its process has ended."""
    try:
        yield
    except distributed.DistError as error:
        raise ValueError("Another process of this job has ended. See its message.") from error
