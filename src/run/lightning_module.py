"""Lightning module that evaluates all targets on the same adversarial images."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

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
from src.measure.predictions import crafting_rows, prediction_rows, to_lists, to_numpy
from src.utils import stopping

_MOST_BYTES = 256e6  # of images that wait to be handed over
CRAFTING, IMAGES = "crafting", "images"
"""Tables of what attacks took, and of adversarial images."""


def total(crafting: pa.Table | None, name: str) -> int:
    """Return the sum of a column of `crafting_rows`; 0 where nothing was attacked."""
    return 0 if crafting is None else round(pc.sum(crafting[name]).as_py() or 0)


class Transfer(pl.LightningModule):
    """Lightning module that attacks each batch once and evaluates every target on the same images.

    Args:
        targets: Networks by name. Those behind a defence get the primary variant alone, and no
            diagnostics.
        diagnostics: Tables computed of each batch; their gradients do not count.
        diagnosed: Index of the images that diagnostics get; None: all.
        keep: Called after a batch, at most every `seconds`, with this process's rows since the
            last call, and the table `IMAGES`: newly attacked images before any rounding, float32
            of 3 K H W values in [0, 1] per row.
        kept_images: Index of the images in that table; None: all.
        seed: Seed, with a batch's first image, of what an attack draws from PyTorch's generators.

    Attributes:
        tables: Rows of all processes after a pass: `prediction_rows` by variant, those of
            diagnostics by their `table`, and `crafting_rows` where images were attacked.
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
        self.diagnostics = list(diagnostics)
        self.diagnosed = None if diagnosed is None else frozenset(diagnosed)
        self.keep = keep
        self.kept_images = None if kept_images is None else frozenset(kept_images)
        self.seed = seed
        self.tables: dict[str, pa.Table] = {}
        self._waiting = defaultdict[str, list[pa.Table]](list)  # rows by table until `keep`
        self._rows = defaultdict[str, list[pa.Table]](list)  # of this process, after it
        self._since = 0.0

    def on_predict_epoch_start(self) -> None:
        """Drop the rows of an earlier pass."""
        self._rows.clear()
        self._waiting.clear()
        self._since = time.monotonic()

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Attack a batch, add every target's predictions, and return its images' index."""
        stopping.raise_if_interrupted()
        if not len(batch.index):
            return batch.index
        drawn = np.random.SeedSequence([self.seed, int(batch.index[0])]).generate_state(1)
        pl.seed_everything(int(drawn[0]), verbose=False)  # for attacks that draw from PyTorch
        self._transfer(batch)
        size = sum(table.nbytes for table in self._waiting.get(IMAGES, ()))
        if time.monotonic() - self._since >= self.seconds or size > _MOST_BYTES:
            self.keep(self._take_waiting())
        return batch.index

    def on_predict_epoch_end(self) -> None:
        """Hand over the last images, and gather all processes' rows."""
        images = self._take_waiting().get(IMAGES)
        if images:
            self.keep({IMAGES: images})
        self.tables = _gather(self._rows)

    def _take_waiting(self) -> dict[str, pa.Table]:
        """Return the rows and images since the last call; note the rows for the end."""
        parts = {name: pa.concat_tables(tables) for name, tables in self._waiting.items()}
        for name, table in parts.items():
            if name != IMAGES:
                self._rows[name].append(table)
        self._waiting.clear()
        self._since = time.monotonic()
        return parts

    def _transfer(self, batch: Batch) -> None:
        """Attack a batch; add every target's predictions and the diagnostics' rows."""
        clean = to_unit(batch.images)
        source = self.adversarial_source
        adversarial: AdversarialBatch = source(clean, batch)
        per_budget = [
            AttackedBatch(clean, images, batch, eps_255, source.norm)
            for eps_255, images in zip(source.budgets, adversarial.images, strict=True)
        ]
        logits = self._evaluate(per_budget, adversarial.target_labels)
        if self.diagnostics:
            self._diagnose(clean, adversarial.images, batch, logits)
        if adversarial.counts is not None:
            self._waiting[CRAFTING].append(crafting_rows(batch.index, adversarial.counts))
            self._add_images(batch.index, adversarial.images)

    def _evaluate(
        self, per_budget: Sequence[AttackedBatch], target_labels: Tensor | None
    ) -> dict[str, Tensor]:
        """Add all predictions; return the logits of `float32` images, (K, N, C), by target."""
        unrounded: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for number, attacked in enumerate(per_budget):  # one at a time: a grid is large
            level = self.adversarial_source.levels.slice(number, 1)
            index, labels = attacked.batch.index, attacked.batch.labels
            for variant in self.variants.names:
                images = self.variants.make(variant, attacked)
                for name, network in self._named_networks():
                    defended = isinstance(network, Defended)
                    if defended and variant != self.variants.primary:
                        continue
                    logits = network(images, index) if defended else network(images)
                    rows = prediction_rows(name, level, index, labels, logits, target_labels)
                    self._waiting[variant].append(rows)
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
        if not len(rows):
            return
        inputs = DiagnosticInput(
            clean=clean[rows],
            adversarial=adversarial[:, rows],
            batch=Batch(*(column[rows] for column in batch)),
            budgets=self.adversarial_source.budgets,
            networks={
                name: network
                for name, network in self._named_networks()
                if not isinstance(network, Defended)
            },
            logits={name: values[:, rows] for name, values in logits.items()},
        )
        with isolate_rng():
            for diagnostic in self.diagnostics:
                self._waiting[diagnostic.table].append(diagnostic.measure(inputs))

    def _add_images(self, index: Tensor, adversarial: Tensor) -> None:
        """Add newly attacked images, which wait until they are handed over."""
        rows = _rows_among(index, self.kept_images)
        if len(rows):
            flat = adversarial[:, rows].transpose(0, 1).flatten(1)
            table = pa.table(
                {"index": to_numpy(index[rows]), "adversarial": to_lists(flat.float())}
            )
            self._waiting[IMAGES].append(table)


def _gather(rows: Mapping[str, Sequence[pa.Table]]) -> dict[str, pa.Table]:
    """Return the rows of all processes by table; a process may have none of a table."""
    parts: list[Any] = [{name: pa.concat_tables(tables) for name, tables in rows.items()}]
    if torch.distributed.is_initialized():
        (own,), parts = parts, [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, own)
    names = dict.fromkeys(name for tables in parts for name in tables)
    return {
        name: pa.concat_tables(tables[name] for tables in parts if name in tables).combine_chunks()
        for name in names
    }


def _rows_among(index: Tensor, wanted: Collection[int] | None) -> Tensor:
    """Return the places of a batch's images that are wanted; None: of all."""
    mask = [wanted is None or number in wanted for number in index.tolist()]
    return torch.tensor(mask, device=index.device).nonzero()[:, 0]
