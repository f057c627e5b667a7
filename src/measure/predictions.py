"""Predictions for the adversarial images, in each storage format."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from src.artifacts.tables import PREDICTION_SCHEMA
from src.images.storage import STORED, AttackedImages
from src.measure.attack_cost import AttackCost
from src.measure.prediction_rows import prediction_rows, with_cost
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.model_ref import PLAIN, ModelRef


class Predictions(Measurement):
    """Predictions of every target without a defence, one table per storage format."""

    name = "predictions"
    schema = PREDICTION_SCHEMA
    order = ("eps_255", "index")
    key = None

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return cells of all images for each format, the primary one first."""
        settings = job.settings
        for storage in dict.fromkeys((settings.storage or STORED, *settings.variants)):
            yield from self.cells_of(job, storage, map(ModelRef.parse, settings.targets))

    def cells_of(
        self, job: Job, table: str, targets: Iterable[ModelRef], **facts: Any
    ) -> Iterator[Cell]:
        """Yield a table's cells of all images, one per target and budget."""
        for target in targets:
            for eps_255 in job.settings.budgets:
                yield Cell(table, job.images.indices, target, (eps_255,), **facts)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image."""
        tables, images = dict[Cell, pa.Table](), dict[tuple[str, float], Tensor]()
        for cell in sorted(cells, key=lambda cell: (cell.table, cell.budgets)):
            (eps_255,) = cell.budgets
            plain = cell.target.defence == PLAIN
            if cell.table == "float32" and plain:  # other tables need these logits
                logits = batch.logits(cell.target, eps_255)
            else:
                place = cell.table, eps_255
                if place not in images:
                    images = {place: self.make(cell.table, batch.version(eps_255), batch)}
                logits = batch.classify(cell.target, images[place])
            tables[cell] = prediction_rows(
                cell.target, batch.batch, logits, {"eps_255": eps_255}, batch.target_labels
            )
        return [tables[cell] for cell in cells]

    def make(self, table: str, version: AttackedImages, batch: EvaluatedBatch) -> Tensor:
        """Return the images of a table at a budget, float32 (N, 3, H, W) in [0, 1]."""
        return version.as_stored(table)

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return the predictions with the cost of each row's image, if it is known."""
        cost = {}
        if AttackCost.name in tables:
            total = AttackCost().finish(AttackCost.name, tables, job)
            places = pc.index_in(tables[name]["index"], total["index"])
            cost = {column: total[column].take(places) for column in ("gradients", "forwards")}
        return with_cost(tables[name], cost)
