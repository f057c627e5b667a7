"""Cost of attacks: gradients and other forward passes."""

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts.tables import FLOAT, INDEX, column
from .prediction_rows import to_numpy
from .protocol import EvaluatedBatch, Job, Measurement, RowRequest

_COUNTS = ("gradients", "zero_gradients", "forwards")


class AttackCost(Measurement):
    """Gradients per image, how many were zero in every pixel, and forward passes.

    The cost of attacking several images and budgets at once is divided evenly among them.
    """

    name = "crafting"
    schema = pa.schema([INDEX, *(column(name, FLOAT, 0) for name in _COUNTS)])
    switched_by = None

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return one request of all images per budget, unless the images come from a saved set."""
        if job.settings.attack.kind == "crafted":
            for eps_255 in job.settings.budgets:
                yield RowRequest(self.name, job.images.indices, budgets=(eps_255,))

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per newly attacked image."""
        assert batch.adversarial is not None
        for request in requests:
            cost = batch.adversarial.cost_of(*request.budgets)
            rows = ~cost[0].isnan()
            columns = dict(zip(_COUNTS, cost[:, rows].numpy(), strict=True))
            yield pa.table({"index": to_numpy(batch.batch.index)[rows.numpy()], **columns})

    def finish(self, name: str, tables: Mapping[str, pa.Table], job: Job) -> pa.Table:
        """Return a row per image: the cost of all budgets together in one run of the attack.

        The attack's file states this cost. The actual cost may be higher if budgets were added
        later. It is returned for attacks whose files state no cost.
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
