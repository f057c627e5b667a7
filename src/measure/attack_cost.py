"""Cost of attacks: gradients, and forward passes beside them."""

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from src.artifacts.tables import FLOAT, INDEX, column
from src.measure.prediction_rows import to_numpy
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement

_COUNTS = ("gradients", "zero_gradients", "forwards")


class AttackCost(Measurement):
    """Gradients, those of them that were zero in every pixel, and forward passes of an image.

    What the attack took for several images and budgets at once is shared out evenly among them.
    """

    name = "crafting"
    schema = pa.schema([INDEX, *(column(name, FLOAT, 0) for name in _COUNTS)])
    key = None

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell of all images for each budget, unless they are saved ones."""
        if job.settings.attack.kind == "crafted":
            for eps_255 in job.settings.budgets:
                yield Cell(self.name, job.images.indices, budgets=(eps_255,))

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image that was attacked now."""
        assert batch.adversarial is not None
        for cell in cells:
            cost = batch.adversarial.cost_of(*cell.budgets)
            rows = ~cost[0].isnan()
            columns = dict(zip(_COUNTS, cost[:, rows].numpy(), strict=True))
            yield pa.table({"index": to_numpy(batch.batch.index)[rows.numpy()], **columns})

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return a row per image: what all budgets together take in one run of the attack.

        It is what the attack's file states; what an image really took may be more, where some
        budgets were added later. Of attacks whose files state nothing it is what it took.
        """
        sums = tables[name].group_by("index").aggregate([(count, "sum") for count in _COUNTS])
        sums = sums.rename_columns(["index", *_COUNTS])
        settings = job.settings
        members = len(settings.source)
        stated = settings.attack.gradients(len(settings.budgets), members)
        taken = sums["gradients"]
        if stated is None or not pc.all(pc.greater(taken, 0)).as_py():
            return sums
        share = pc.divide(stated * members * settings.source_draws, taken)
        for place, count in enumerate(_COUNTS, start=1):
            sums = sums.set_column(place, self.schema.field(count), pc.multiply(sums[count], share))
        return sums
