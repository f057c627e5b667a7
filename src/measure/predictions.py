"""Targets on the adversarial images, in each of the formats that a file may store them in."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from src.artifacts.tables import PREDICTION_SCHEMA
from src.images.storage import STORED, AttackedImages
from src.measure.attack_cost import AttackCost
from src.measure.prediction_rows import Level, predict, with_cost
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.defended_names import Evaluated


class Predictions(Measurement):
    """Predictions of every target behind no defence, a table for each storage format."""

    name = "predictions"
    schema = PREDICTION_SCHEMA
    order = ("eps_255", "index")
    key = None

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell of all images for each target and format, the primary one first."""
        settings = job.settings
        for storage in dict.fromkeys((settings.storage or STORED, *settings.variants)):
            for target in map(Evaluated, settings.targets):
                yield Cell(storage, job.images.indices, target)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image and budget."""
        by_table: dict[str, list[Cell]] = {}
        for cell in cells:
            by_table.setdefault(cell.table, []).append(cell)
        tables = {
            table: iter(predict(batch, same, self._versions(table, batch), batch.target_labels))
            for table, same in by_table.items()
        }
        return [next(tables[cell.table]) for cell in cells]

    def _versions(
        self, table: str, batch: EvaluatedBatch
    ) -> Iterator[tuple[Level, Callable[[Evaluated], Tensor]]]:
        """Yield a table's images of each budget."""
        for place, version in enumerate(batch.versions):
            if table == "float32":  # of which others need the logits, too
                yield {"eps_255": version.eps_255}, partial(batch.logits, place=place)
            else:
                images = self.make(table, version, batch)
                yield {"eps_255": version.eps_255}, partial(batch.classify, images=images)

    def make(self, table: str, version: AttackedImages, batch: EvaluatedBatch) -> Tensor:
        """Return the images of a table at a budget, float32 (N, 3, H, W) in [0, 1]."""
        return version.as_stored(table)

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return the predictions with what the images of each row took, where that is known."""
        cost = {}
        if crafting := tables.get(AttackCost.name):
            places = pc.index_in(tables[name]["index"], crafting["index"])
            cost = {column: crafting[column].take(places) for column in ("gradients", "forwards")}
        return with_cost(tables[name], cost)
