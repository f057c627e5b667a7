"""The LightningModule that makes adversarial images and shows them to the targets."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from src.data import Batch, to_unit
from src.diagnostics import Diagnostic, DiagnosticInput
from src.evaluation.attacker import AdversarialBatch, AdversarialSource, Attacker
from src.evaluation.predictions import Predictions
from src.evaluation.variants import Shown, Variants
from src.sets import SetWriter, round_to_8_bits
from src.utils import stopping

CLEAN = "clean"
UNROUNDED = "float32"


class Transfer(pl.LightningModule):
    """Make a batch's adversarial images once and show the same ones to every target.

    Args:
        targets: The models that are shown the images, by name.
        maker: What makes the adversarial images; None shows the clean ones.
        forms: In which forms they are shown.
        keep: Index of the images whose adversarial versions are kept as examples, in the
            headline's form.
        writer: Where the adversarial images are saved, in 8 bits.
        diagnostics: What else looks at each batch.
        idle: Whether this process works along on a batch of another one; nothing that it finds
            counts.

    Raises:
        ValueError: There are diagnostics, but no attack or no unrounded images to look at.
    """

    def __init__(
        self,
        targets: Mapping[str, nn.Module],
        maker: AdversarialSource | None = None,
        forms: Variants | None = None,
        keep: Collection[int] = (),
        writer: SetWriter | None = None,
        diagnostics: Sequence[Diagnostic] = (),
        idle: bool = False,
    ) -> None:
        super().__init__()
        self.idle = idle
        self.names = tuple(targets)
        self.networks = nn.ModuleList(targets.values())
        self.maker = maker
        self.forms = forms or Variants()
        self.keep = frozenset(keep)
        self.writer = writer
        self.budgets = (0.0,) if maker is None else maker.budgets
        shown = (CLEAN,) if maker is None else self.forms.names
        self.predictions = nn.ModuleDict(
            {name: Predictions(self.names, self.budgets) for name in shown}
        )
        if diagnostics and not (isinstance(maker, Attacker) and UNROUNDED in shown):
            raise ValueError(f"diagnostics need an attack and the form {UNROUNDED}, not {shown}.")
        self.diagnostics = nn.ModuleList(diagnostics)
        self.probed: dict[str, pa.Table] = {}
        self.examples: dict[int, list[np.ndarray]] = {}
        self.tables: dict[str, pa.Table] = {}
        self.gradients = 0
        self.zero_gradients = 0

    def on_predict_start(self) -> None:
        """Make the files of the set, before any other process opens them."""
        if self.writer is None:
            return
        if self.trainer.is_global_zero:
            self.writer.create()
        self.trainer.strategy.barrier()
        if not self.trainer.is_global_zero:
            self.writer.open()

    def on_predict_epoch_start(self) -> None:
        """Forget an earlier pass."""
        for table in self._rows():
            table.reset()
        self.examples = {}
        if self.maker is not None:
            self.maker.gradients = self.maker.zero_gradients = 0

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Make and show a batch, note every target's answers, and return its images' index."""
        stopping.check()
        clean = to_unit(batch.images)
        if self.maker is None:
            self._show(CLEAN, clean, 0.0, batch, None)
            return batch.index
        made: AdversarialBatch = self.maker(clean, batch)
        said: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for number, eps_255 in enumerate(self.budgets):  # one at a time: a grid is large
            shown = Shown(clean, made.images[number], batch, eps_255, self.maker.norm)
            for name in self.forms.names:
                images = self.forms.show(name, shown)
                if name == self.forms.headline:
                    self._keep_examples(batch.index, images)
                answers = self._show(name, images, eps_255, batch, made.target_labels)
                if name == UNROUNDED and self._probes():
                    for target, answer in zip(self.names, answers, strict=True):
                        said[target].append(answer)
        if self._probes():
            logits = {target: torch.stack(parts) for target, parts in said.items()}
            self._probe(clean, made, batch, logits)
        if self.writer is not None and not self.idle:
            self.writer.write(batch.index, batch.images, self._rounded(made, batch))
        return batch.index

    def on_predict_epoch_end(self) -> None:
        """Merge the ranks' rows, gradient counts and examples, and let go of the set's files."""
        if self.writer is not None:
            self.writer.close()
        if self.idle:
            self._forget()
        self.tables = {name: table.compute() for name, table in self._predictions().items()}
        self.probed = {diagnostic.table: diagnostic.compute() for diagnostic in self._probes()}
        counts = (0, 0)
        if self.maker is not None:
            counts = (self.maker.gradients, self.maker.zero_gradients)
        parts: list[Any] = [(*counts, self.examples)]
        if torch.distributed.is_initialized():
            parts = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(parts, (*counts, self.examples))
        self.gradients = sum(part[0] for part in parts)
        self.zero_gradients = sum(part[1] for part in parts)
        self.examples = {index: image for part in parts for index, image in part[2].items()}

    def _forget(self) -> None:
        """Keep no row of what was worked on along with another process, but the rows' form."""
        for table in self._rows():
            table.whole = [rows[:0] for rows in table.whole]
            table.real = [rows[:0] for rows in table.real]
        self.examples = {}
        if self.maker is not None:
            self.maker.gradients = self.maker.zero_gradients = 0

    def _show(
        self, form: str, images: Tensor, eps_255: float, batch: Batch, goal: Tensor | None
    ) -> list[Tensor]:
        """Note every target's answers to one form of a batch, and return their logits."""
        table = self._predictions()[form]
        said = []
        for name, network in zip(self.names, self.networks, strict=True):
            said.append(network(images))
            table.update(name, eps_255, batch.index, batch.labels, said[-1], goal)
        return said

    def _probe(
        self, clean: Tensor, made: AdversarialBatch, batch: Batch, logits: Mapping[str, Tensor]
    ) -> None:
        """Let the diagnostics look at a batch; later batches do not notice, whatever they draw."""
        maker, goal = self.maker, made.target_labels
        assert isinstance(maker, Attacker)

        def attack(rows: Tensor, eps_255: Tensor) -> Tensor:
            part = Batch(*(column[rows] for column in batch))
            return maker.at(clean[rows], part, None if goal is None else goal[rows], eps_255)

        networks = dict(zip(self.names, self.networks, strict=True))
        seen = DiagnosticInput(
            clean, made.images, batch, self.budgets, maker.source, networks, logits, attack
        )
        with isolate_rng():
            for diagnostic in self._probes():
                diagnostic.update(seen)

    def _rounded(self, made: AdversarialBatch, batch: Batch) -> Tensor:
        assert self.maker is not None
        stored = [
            round_to_8_bits(images, batch.images, eps_255, self.maker.norm)
            for eps_255, images in zip(self.budgets, made.images, strict=True)
        ]
        return torch.stack(stored)

    def _rows(self) -> list[Predictions | Diagnostic]:
        return [*self._predictions().values(), *self._probes()]

    def _probes(self) -> list[Diagnostic]:
        return list(self.diagnostics)  # type: ignore[arg-type]

    def _predictions(self) -> dict[str, Predictions]:
        return dict(self.predictions.items())  # type: ignore[arg-type]

    def _keep_examples(self, index: Tensor, adversarial: Tensor) -> None:
        for position, number in enumerate(index.tolist()):
            if number in self.keep:
                image = adversarial[position].float().cpu().numpy()
                self.examples.setdefault(number, []).append(image)
