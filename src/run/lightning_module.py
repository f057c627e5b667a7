"""Lightning module that evaluates all targets on the same adversarial images."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from src.data import Batch, to_unit
from src.defences import Defended
from src.images.adversarial_source import AdversarialBatch, AdversarialSource
from src.images.variants import UNROUNDED, AttackedBatch, Variants
from src.measure.diagnostic import Diagnostic, DiagnosticInput
from src.measure.predictions import Crafting, Predictions, RowMetric, merged
from src.utils import stopping

_MOST_BYTES = 256e6  # of images that wait to be handed over
CRAFTING, IMAGES = "crafting", "images"
"""Tables of what attacks took, and of adversarial images."""


def total(crafting: pa.Table | None, name: str) -> int:
    """Return the sum of a column of `Crafting`; 0 where nothing was attacked."""
    return 0 if crafting is None else round(pc.sum(crafting[name]).as_py() or 0)


class Transfer(pl.LightningModule):
    """Lightning module that attacks each batch once and evaluates every target on the same images.

    Args:
        targets: Networks by name, of which those behind a defence get the primary variant alone,
            and no diagnostics.
        diagnostics: Tables computed of each batch, where float32 is a variant of its images; their
            gradients do not count.
        diagnosed: Index of the images that diagnostics get; None: all.
        keep: Called after a batch, at most every `seconds`, with this process's rows of the images
            finished since the last call, and with the table `IMAGES`: newly attacked images before
            any rounding, float32 of 3 K H W values in [0, 1] a row.
        kept_images: Index of the images in that table; None: all.
        seed: Seed, with a batch's first image, of what an attack draws from PyTorch's generators.

    Attributes:
        tables: Rows of all processes after a pass: of `Predictions` by variant, of diagnostics by
            their `table`, and of `Crafting` where images were attacked.
        seconds: Least time between two calls of `keep`; a killed pass loses a batch more.
    """

    seconds = 30.0

    def __init__(
        self,
        targets: Mapping[str, nn.Module],
        adversarial_source: AdversarialSource,
        variants: Variants = UNROUNDED,
        diagnostics: Sequence[Diagnostic] = (),
        diagnosed: Collection[int] | None = None,
        keep: Callable[[Mapping[str, pa.Table]], None] = lambda parts: None,
        kept_images: Collection[int] | None = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.names = tuple(targets)
        self.networks = nn.ModuleList(targets.values())
        self.adversarial_source = adversarial_source
        self.variants = variants
        levels = adversarial_source.levels
        names = variants.names if targets else ()
        self.predictions = {name: Predictions(self.names, levels) for name in names}
        self.diagnostics = list(diagnostics)
        self.diagnosed = None if diagnosed is None else frozenset(diagnosed)
        self.crafting = Crafting()
        self.metrics: dict[str, RowMetric] = {
            **self.predictions,
            **{one.table: one for one in self.diagnostics},
            CRAFTING: self.crafting,
        }
        self.on_device = nn.ModuleList(self.metrics.values())
        self.keep = keep
        self.kept_images = None if kept_images is None else frozenset(kept_images)
        self.seed = seed
        self.tables: dict[str, pa.Table] = {}

    def on_predict_epoch_start(self) -> None:
        """Drop the rows of an earlier pass."""
        for metric in self.metrics.values():
            metric.reset()
        self._mark()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Attack a batch, add every target's predictions, and return its images' index."""
        stopping.raise_if_interrupted()
        if not len(batch.index):
            return batch.index
        drawn = np.random.SeedSequence([self.seed, int(batch.index[0])]).generate_state(1)
        pl.seed_everything(int(drawn[0]), verbose=False)  # for attacks that draw from PyTorch
        self._transfer(batch)
        size = sum(flat.nbytes for _, flat in self._images)
        if time.monotonic() - self._since >= self.seconds or size > _MOST_BYTES:
            self._hand_over(
                {
                    name: metric.since(self._kept[name])
                    for name, metric in self.metrics.items()
                    if len(metric.whole) > self._kept[name]
                }
            )
        return batch.index

    def _mark(self) -> None:
        """Mark the rows and images from here on as not handed over."""
        self._since = time.monotonic()
        self._kept = {name: len(metric.whole) for name, metric in self.metrics.items()}
        self._images: list[tuple[np.ndarray, np.ndarray]] = []

    def _hand_over(self, parts: dict[str, pa.Table]) -> None:
        """Call `keep` with some rows, and the images that have not been handed over."""
        if self._images:
            index, flat = map(np.concatenate, zip(*self._images, strict=True))
            column = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])
            parts[IMAGES] = pa.table({"index": index, "adversarial": column})
        if parts:
            self.keep(parts)
        self._mark()

    def _transfer(self, batch: Batch) -> None:
        """Attack a batch; add every target's predictions and the diagnostics' rows."""
        clean = to_unit(batch.images)
        source = self.adversarial_source
        adversarial: AdversarialBatch = source(clean, batch)
        per_budget = [
            AttackedBatch(clean, images, batch, eps_255, source.norm)
            for eps_255, images in zip(source.budgets, adversarial.images, strict=True)
        ]
        if adversarial.counts is not None:
            self.crafting.add(batch.index, adversarial.counts)
            self._note_images(batch.index, adversarial.images)
        logits = self._evaluate(per_budget, adversarial.target_labels)
        if self.diagnostics:
            self._diagnose(clean, adversarial.images, batch, logits)

    def on_predict_epoch_end(self) -> None:
        """Merge the processes' rows."""
        self._hand_over({})
        self.tables = merged(self.metrics)

    def _evaluate(
        self, per_budget: Sequence[AttackedBatch], target_labels: Tensor | None
    ) -> dict[str, Tensor]:
        """Add all predictions; return the logits of `float32` images, (K, N, C), by target."""
        unrounded: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for level, attacked in enumerate(per_budget):  # one at a time: a grid is large
            index, labels = attacked.batch.index, attacked.batch.labels
            for variant in self.variants.names:
                images = self.variants.make(variant, attacked)
                for name, network in self._named_networks():
                    defended = isinstance(network, Defended)
                    if defended and variant != self.variants.primary:
                        continue
                    logits = network(images, index) if defended else network(images)
                    columns = (index, labels, logits, target_labels)
                    self.predictions[variant].add(name, level, *columns)
                    if variant == UNROUNDED.primary and not defended:
                        unrounded[name].append(logits)
        return {name: torch.stack(parts) for name, parts in unrounded.items() if parts}

    def _named_networks(self) -> list[tuple[str, nn.Module]]:
        return list(zip(self.names, self.networks, strict=True))

    def _diagnose(
        self, clean: Tensor, adversarial: Tensor, batch: Batch, logits: Mapping[str, Tensor]
    ) -> None:
        """Hand a batch to the diagnostics; their draws do not change later batches."""
        rows = _rows_among(batch.index, self.diagnosed)
        given = DiagnosticInput(
            clean=clean[rows],
            adversarial=adversarial[:, rows],
            batch=Batch(*(column[rows] for column in batch)),
            budgets=self.adversarial_source.budgets,
            networks={
                name: each
                for name, each in self._named_networks()
                if not isinstance(each, Defended)
            },
            logits={name: values[:, rows] for name, values in logits.items()},
        )
        with isolate_rng():
            for diagnostic in self.diagnostics:
                diagnostic.observe(given)

    def _note_images(self, index: Tensor, adversarial: Tensor) -> None:
        """Note newly attacked images until they are handed over."""
        rows = _rows_among(index, self.kept_images)
        if len(rows):
            flat = adversarial[:, rows].transpose(0, 1).flatten(1)
            self._images.append((index[rows].cpu().numpy(), flat.float().cpu().numpy()))


def _rows_among(index: Tensor, wanted: Collection[int] | None) -> Tensor:
    """Return the places of a batch's images that are wanted; None: of all."""
    mask = [wanted is None or number in wanted for number in index.tolist()]
    return torch.tensor(mask, device=index.device).nonzero()[:, 0]
