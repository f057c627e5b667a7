"""The LightningModule that evaluates all targets on the same adversarial images."""

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
from src.evaluation.predictions import Crafting, Predictions, RowMetric, merged
from src.evaluation.variants import UNROUNDED, Attacked, Variants
from src.utils import stopping

log = logging.getLogger(__name__)


_MOST_BYTES = 256e6  # of images that wait to be handed over
CRAFTING, IMAGES = "crafting", "images"
"""Tables of what attacks took, and of adversarial images."""


@dataclass(frozen=True)
class Evaluation:
    """Results of a pass over the images.

    Attributes:
        tables: Rows of all processes: those of `Predictions` by variant, of diagnostics by their
            `table`, and of `Crafting` where images were attacked.
        examples: Adversarial images before any rounding, float32 (K, 3, H, W) in [0, 1], by index.
        seconds: Duration of the pass, diagnostics included.
    """

    tables: dict[str, pa.Table] = field(default_factory=dict)
    examples: dict[int, np.ndarray] = field(default_factory=dict)
    seconds: float = math.nan
    batch_size: int = 0

    @property
    def gradients(self) -> int:
        """Number of gradients that were taken."""
        return total(self.tables.get(CRAFTING), "gradients")

    @property
    def zero_gradients(self) -> int:
        """Number of gradients that were zero in every pixel."""
        return total(self.tables.get(CRAFTING), "zero_gradients")


def total(crafting: pa.Table | None, name: str) -> int:
    """Return the sum of a column of `Crafting`; 0 where nothing was attacked."""
    return 0 if crafting is None else round(pc.sum(crafting[name]).as_py() or 0)


class Transfer(pl.LightningModule):
    """Lightning module that attacks each batch once and evaluates every target on the same images.

    Args:
        examples: Index of the images whose adversarial versions are results, too.
        diagnostics: Tables computed of each batch, where an attack makes the images and float32
            is a variant of them; their gradients do not count.
        diagnosed: Index of the images that diagnostics get; None: all.
        keep: Called before more than `seconds` of work would be lost, with this process's
            rows of the images finished since the last call.
        keep_images: Whether it gets all adversarial images, too, or the examples alone.
        seed: Seed, with a batch's first image, of what an attack draws from PyTorch's generators.

    Attributes:
        found: Results of the pass; on several processes each gets the merged ones.
        progress: Called with the number of gradient evaluations as they are taken, or of images
            where none are.
        seconds: Most work that a killed pass loses, unless one batch takes longer.
    """

    seconds = LIMIT

    def __init__(
        self,
        targets: Mapping[str, nn.Module],
        adversarial_source: AdversarialSource,
        variants: Variants = UNROUNDED,
        examples: Collection[int] = (),
        diagnostics: Sequence[Diagnostic] = (),
        diagnosed: Collection[int] | None = None,
        keep: Callable[[Mapping[str, pa.Table]], None] = lambda parts: None,
        keep_images: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.names = tuple(targets)
        self.networks = nn.ModuleList(targets.values())
        self.adversarial_source = adversarial_source
        self.variants = variants
        budgets = adversarial_source.budgets
        names = variants.names if targets else ()
        self.predictions = {name: Predictions(self.names, budgets) for name in names}
        self.diagnostics = list(diagnostics)
        self.diagnosed = None if diagnosed is None else frozenset(diagnosed)
        self.crafting = Crafting()
        self.metrics: dict[str, RowMetric] = {
            **self.predictions,
            **{one.table: one for one in self.diagnostics},
            CRAFTING: self.crafting,
        }
        self.on_device = nn.ModuleList(self.metrics.values())
        self.example_indices = frozenset(examples)
        self.examples: dict[int, np.ndarray] = {}
        self.keep, self.keep_images = keep, keep_images
        self.seed = seed
        self.progress: Callable[[int], None] = lambda count: None
        self.together: int | None = None  # images attacked at once; None: the whole batch
        adversarial_source.uncut = 3 if variants.controls else 1
        self.found = Evaluation()

    @property
    def gradients_per_image(self) -> int:
        """Gradient evaluations that an image takes; 0: none, or not known."""
        return self.adversarial_source.gradients_per_image

    def on_predict_epoch_start(self) -> None:
        """Drop the rows of an earlier pass."""
        for metric in self.metrics.values():
            metric.reset()
        self.examples = {}
        self.adversarial_source.reset()
        if self.gradients_per_image:
            self.adversarial_source.taken = self.progress
        self._mark()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Attack a batch, add every target's predictions, and return its images' index.

        A batch that would take longer than `LIMIT` is cut, so that a killed pass loses little.
        """
        rest = list(range(len(batch.index)))
        while rest:
            stopping.check()
            most = self.together or len(rest)
            count = cut(len(rest), most, self.variants.controls)
            part = Batch(*(column[rest[:count]] for column in batch))
            index, start = part.index.tolist(), time.monotonic()
            drawn = np.random.SeedSequence([self.seed, index[0]]).generate_state(1)
            pl.seed_everything(int(drawn[0]), verbose=False)  # for attacks that draw from PyTorch
            rows = self._rows()
            try:
                self._transfer(part)
            except SlowBatchError as slow:
                self._undo(rows, index)
                self._attack_together(slow.images)
                continue
            rest = rest[count:]
            took = time.monotonic() - start
            if took > LIMIT or self.together:
                self._attack_together(int(count * min(2, LIMIT / 2 / took)))
            if not self.gradients_per_image:
                self.progress(count)
            size = sum(image.nbytes for _, image in self._images)
            if time.monotonic() - self._since + took >= self.seconds or size > _MOST_BYTES:
                self._hand_over({name: each.since(self._kept[name]) for name, each in self._new()})
        return batch.index

    def _rows(self) -> dict[str, int]:
        """Return the number of batches that each table has rows of."""
        return {name: len(metric.whole) for name, metric in self.metrics.items()}

    def _new(self) -> list[tuple[str, RowMetric]]:
        """Return the tables that have rows since the last call of `keep`."""
        rows, every = self._rows(), self.metrics.items()
        return [(name, each) for name, each in every if rows[name] > self._kept[name]]

    def _mark(self) -> None:
        """Mark the rows and images from here on as not handed over."""
        self._since = time.monotonic()
        self._kept = self._rows()
        self._images: list[tuple[int, np.ndarray]] = []

    def _hand_over(self, parts: dict[str, pa.Table]) -> None:
        """Call `keep` with some rows, and the images that have not been handed over."""
        if self._images:
            index, images = zip(*self._images, strict=True)
            flat = np.stack(images).reshape(len(images), -1)
            column = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
            parts[IMAGES] = pa.table({"index": pa.array(index, pa.int64()), "adversarial": column})
        self.keep(parts)
        self._mark()

    def _attack_together(self, images: int) -> None:
        """Set the number of images that are attacked at once from here on."""
        if self.together is None:
            log.info("Batches that would take over %d seconds are cut from here on.", LIMIT)
        self.together = max(1, images)

    def _undo(self, rows: Mapping[str, int], index: Collection[int]) -> None:
        """Drop a given-up batch's images, and tables' rows after the first batches."""
        for name, metric in self.metrics.items():
            del metric.whole[rows[name] :], metric.real[rows[name] :]
        self.examples = {n: image for n, image in self.examples.items() if n not in index}
        self._images = [(n, image) for n, image in self._images if n not in index]

    def _transfer(self, batch: Batch) -> None:
        """Attack a batch; add every target's predictions and the diagnostics' rows."""
        clean = to_unit(batch.images)
        source = self.adversarial_source
        adversarial: AdversarialBatch = source(clean, batch)
        levels = [
            Attacked(clean, images, batch, eps_255, source.norm)
            for eps_255, images in zip(source.budgets, adversarial.images, strict=True)
        ]
        if adversarial.counts is not None:
            self.crafting.update(batch.index, adversarial.counts)
        self._note_images(batch.index, adversarial)
        logits = self._evaluate(levels, adversarial.target_labels)
        if self.diagnostics:
            self._diagnose(clean, adversarial, batch, logits)

    def on_predict_epoch_end(self) -> None:
        """Merge the processes' rows and examples."""
        self.adversarial_source.check()
        self._hand_over({})
        parts: list[Any] = [self.examples]
        if torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, self.examples)
        examples = {number: image for own in parts for number, image in own.items()}
        self.found = Evaluation(merged(self.metrics), examples)

    def _evaluate(
        self, levels: Sequence[Attacked], target_labels: Tensor | None
    ) -> dict[str, Tensor]:
        """Add all predictions; return the logits of `float32` images, (K, N, C), by target."""
        unrounded: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for level in levels:  # one at a time: a grid is large
            index, labels = level.batch.index, level.batch.labels
            for variant in self.variants.names:
                images = self.variants.make(variant, level)
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

    def _note_images(self, index: Tensor, adversarial: AdversarialBatch) -> None:
        """Note the examples, and what is to be kept of newly attacked images."""
        for position, number in enumerate(index.tolist()):
            example = number in self.example_indices
            if example or (self.keep_images and adversarial.counts is not None):
                image = adversarial.images[:, position].clone().float().cpu().numpy()  # no view
                if example:
                    self.examples[number] = image
                if adversarial.counts is not None:
                    self._images.append((number, image))


def cut(images: int, most: int, paired: bool) -> int:
    """Return how many of a batch's remaining images come next, `most` at most.

    Paired ones stay together, and so do the last three of an odd number.

    >>> [cut(7, 3, paired) for paired in (False, True)], cut(3, 1, True), cut(5, 9, True)
    ([3, 2], 3, 5)
    """
    if paired:
        most = max(2, most - most % 2)
    return images if images <= most + paired else most
