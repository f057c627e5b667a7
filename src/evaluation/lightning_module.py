"""The LightningModule that evaluates all targets on the same adversarial images."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from src.data import Batch, to_unit
from src.evaluation.adversarial_source import (
    LIMIT,
    AdversarialBatch,
    AdversarialSource,
    SlowBatchError,
)
from src.evaluation.diagnostic import Diagnostic, DiagnosticInput
from src.evaluation.image_shards import SavedImagesWriter
from src.evaluation.partial_rows import PartialRows
from src.evaluation.predictions import Predictions, RowMetric
from src.evaluation.variants import UNROUNDED, Attacked, Variants
from src.utils import stopping

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Results of a pass over the images.

    Attributes:
        tables: Rows of `Predictions` by variant, the primary one first.
        examples: Adversarial versions, float32 (K, 3, H, W) in [0, 1], by image index.
        zero_gradients: Number of the `gradients` that were zero in every pixel.
        seconds: Duration of the pass, diagnostics included.
        unsteady: Models that give equal images unequal logits.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    diagnostics: dict[str, pa.Table] = field(default_factory=dict)
    examples: dict[int, np.ndarray] = field(default_factory=dict)
    gradients: int = 0
    zero_gradients: int = 0
    seconds: float = math.nan
    batch_size: int = 0
    unsteady: Sequence[str] = ()

    @property
    def zero_share(self) -> float:
        """Share of gradients that were zero in every pixel; NaN without a gradient."""
        return self.zero_gradients / self.gradients if self.gradients else math.nan


class Transfer(pl.LightningModule):
    """Lightning module that attacks each batch once and evaluates every target on the same images.

    Args:
        examples: Index of the images whose adversarial versions are kept.
        diagnostics: Tables computed of each batch, where an attack makes the images and float32
            is a variant of them; their gradients do not count.
        diagnosed: Index of the images that diagnostics get; None: all.
        partial: Store of the rows and examples of finished images; None: they are not stored.
        seed: Seed, with a batch's first image, of what an attack draws from PyTorch's generators.

    Attributes:
        found: Results of the pass; on several processes each gets the merged ones.
        progress: Called with the number of gradient evaluations as they are taken, or of images
            where none are.
    """

    def __init__(
        self,
        targets: Mapping[str, nn.Module],
        adversarial_source: AdversarialSource,
        variants: Variants = UNROUNDED,
        examples: Collection[int] = (),
        writer: SavedImagesWriter | None = None,
        diagnostics: Sequence[Diagnostic] = (),
        diagnosed: Collection[int] | None = None,
        partial: PartialRows | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.names = tuple(targets)
        self.networks = nn.ModuleList(targets.values())
        self.adversarial_source = adversarial_source
        self.variants = variants
        self.writer = writer
        budgets = adversarial_source.budgets
        self.predictions = {name: Predictions(self.names, budgets) for name in variants.names}
        self.diagnostics = list(diagnostics)
        self.diagnosed = None if diagnosed is None else frozenset(diagnosed)
        self.metrics: Sequence[RowMetric] = [*self.predictions.values(), *self.diagnostics]
        self.on_device = nn.ModuleList(self.metrics)
        self.example_indices = frozenset(examples)
        self.examples: dict[int, list[np.ndarray]] = {}
        self.partial = partial
        self.seed = seed
        self.progress: Callable[[int], None] = lambda count: None
        self.finished: frozenset[int] = frozenset()
        self.together: int | None = None  # images attacked at once; None: the whole batch
        adversarial_source.uncut = 3 if variants.controls else 1
        self.found = Evaluation()

    @property
    def gradients_per_image(self) -> int:
        """Gradient evaluations that an image takes; 0: none, or not known."""
        return self.adversarial_source.gradients_per_image

    def on_predict_start(self) -> None:
        """Remove an earlier set of saved images, before any process writes."""
        if self.writer is not None:
            if self.trainer.is_global_zero:
                self.writer.start()
            self.trainer.strategy.barrier()

    def on_predict_epoch_start(self) -> None:
        """Drop the rows of an earlier pass; restore those of a killed one."""
        for metric in self.metrics:
            metric.reset()
        self.examples = {}
        self.finished = frozenset()
        self.adversarial_source.reset()
        if self.partial is not None:
            names = self.trainer.strategy.broadcast(self.partial.whole_files())
            process = self.trainer.global_rank, self.trainer.world_size
            self.finished, self.examples = self.partial.restore(
                names, self.metrics, self.adversarial_source, process
            )
        if self.gradients_per_image:
            self.adversarial_source.taken = self.progress
        done = len(self.finished) // self.trainer.world_size
        self.progress(done * (self.gradients_per_image or 1))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Attack a batch, add every target's predictions, and return its images' index.

        A batch that would take longer than `LIMIT` is cut, so that a killed pass loses little.
        """
        source = self.adversarial_source
        rest = [row for row, i in enumerate(batch.index.tolist()) if i not in self.finished]
        while rest:
            stopping.check()
            most = self.together or len(rest)
            count = cut(len(rest), most, self.variants.controls)
            part = Batch(*(column[rest[:count]] for column in batch))
            index, start = part.index.tolist(), time.monotonic()
            drawn = np.random.SeedSequence([self.seed, index[0]]).generate_state(1)
            pl.seed_everything(int(drawn[0]), verbose=False)  # for attacks that draw from PyTorch
            rows = [len(metric.whole) for metric in self.metrics]
            counts = source.gradients, source.zero_gradients
            try:
                self._transfer(part)
            except SlowBatchError as slow:
                self._undo(rows, index)
                source.gradients, source.zero_gradients = counts
                self._attack_together(slow.images)
                continue
            rest = rest[count:]
            took = time.monotonic() - start
            if took > LIMIT or self.together:
                self._attack_together(int(count * min(2, LIMIT / 2 / took)))
            if not self.gradients_per_image:
                self.progress(count)
            if self.partial is not None:
                self.partial.add(index, self.metrics, source, self.examples, took)
        return batch.index

    def _attack_together(self, images: int) -> None:
        """Set the number of images that are attacked at once from here on."""
        if self.together is None:
            log.info("Batches that would take over %d seconds are cut from here on.", LIMIT)
        self.together = max(1, images)

    def _undo(self, rows: Sequence[int], index: Sequence[int]) -> None:
        """Drop a given-up batch's examples, and metrics' rows after the first `rows`."""
        for metric, count in zip(self.metrics, rows, strict=True):
            del metric.whole[count:], metric.real[count:]
        for number in index:
            self.examples.pop(number, None)

    def _transfer(self, batch: Batch) -> None:
        """Attack a batch; add every target's predictions and the diagnostics' rows."""
        clean = to_unit(batch.images)
        source = self.adversarial_source
        adversarial: AdversarialBatch = source(clean, batch)
        levels = [
            Attacked(clean, images, batch, eps_255, source.norm)
            for eps_255, images in zip(source.budgets, adversarial.images, strict=True)
        ]
        logits = self._evaluate(levels, adversarial.target_labels)
        if self.diagnostics:
            self._diagnose(clean, adversarial, batch, logits)
        if self.writer is not None:
            rounded = torch.stack([level.rounded(level.adversarial) for level in levels])
            self.writer.write(batch, rounded, adversarial.target_labels)

    def on_predict_epoch_end(self) -> None:
        """Merge the processes' rows, gradient counts and examples."""
        source = self.adversarial_source
        source.check()
        parts: list[Any] = [(source.gradients, source.zero_gradients, self.examples)]
        if torch.distributed.is_initialized():
            (own,), parts = parts, [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, own)
        gradients, zeros, examples = zip(*parts, strict=True)
        with warnings.catch_warnings():  # where a killed pass had finished all of a process
            warnings.filterwarnings("ignore", "The ``compute`` method of metric")
            tables = {name: table.compute() for name, table in self.predictions.items()}
            diagnostics = {one.table: one.compute() for one in self.diagnostics}
        self.found = Evaluation(
            tables=tables,
            diagnostics=diagnostics,
            examples={i: np.stack(images) for part in examples for i, images in part.items()},
            gradients=sum(gradients),
            zero_gradients=sum(zeros),
        )

    def _evaluate(
        self, levels: Sequence[Attacked], target_labels: Tensor | None
    ) -> dict[str, Tensor]:
        """Add all predictions; return the logits of `float32` images, (K, N, C), by target."""
        unrounded: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for level in levels:  # one at a time: a grid is large
            index, labels = level.batch.index, level.batch.labels
            for variant in self.variants.names:
                images = self.variants.make(variant, level)
                if variant == self.variants.primary:
                    self._keep_examples(index, images)
                for name, network in zip(self.names, self.networks, strict=True):
                    logits = network(images)
                    columns = (index, labels, logits, target_labels)
                    self.predictions[variant].update(name, level.eps_255, *columns)
                    if variant == UNROUNDED.primary:
                        unrounded[name].append(logits)
        return {name: torch.stack(parts) for name, parts in unrounded.items() if parts}

    def _diagnose(
        self,
        clean: Tensor,
        adversarial: AdversarialBatch,
        batch: Batch,
        logits: Mapping[str, Tensor],
    ) -> None:
        """Hand a batch to the diagnostics; their draws do not change later batches."""
        attack = adversarial.at
        assert attack is not None  # diagnostics need an attacker
        wanted = [self.diagnosed is None or i in self.diagnosed for i in batch.index.tolist()]
        rows = torch.tensor(wanted, device=clean.device).nonzero()[:, 0]
        given = DiagnosticInput(
            clean=clean[rows],
            adversarial=adversarial.images[:, rows],
            batch=Batch(*(column[rows] for column in batch)),
            budgets=self.adversarial_source.budgets,
            networks=dict(zip(self.names, self.networks, strict=True)),
            logits={name: values[:, rows] for name, values in logits.items()},
            attack=lambda own, eps_255: attack(rows[own], eps_255),
        )
        with isolate_rng():
            for diagnostic in self.diagnostics:
                diagnostic.update(given)

    def _keep_examples(self, index: Tensor, adversarial: Tensor) -> None:
        for position, number in enumerate(index.tolist()):
            if number in self.example_indices:
                image = adversarial[position].clone().float().cpu().numpy()  # no view of the batch
                self.examples.setdefault(number, []).append(image)


def cut(images: int, most: int, paired: bool) -> int:
    """Return how many of a batch's remaining images come next, `most` at most.

    Paired ones stay together, and so do the last three of an odd number.

    >>> [cut(7, 3, paired) for paired in (False, True)], cut(3, 1, True), cut(5, 9, True)
    ([3, 2], 3, 5)
    """
    if paired:
        most = max(2, most - most % 2)
    return images if images <= most + paired else most
