"""Changes of logits under an attack."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from src.artifacts.tables import INDEX, SINGLE, column
from src.measure.prediction_rows import to_lists, to_numpy
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.defended_names import Evaluated


class OutputChanges(Measurement):
    """Logits of the adversarial image at the reference budget minus those of the clean one.

    `change` has one value per class, for the source and for every target without a defence. Only
    jobs with one source have the table.

    Reference:
        Liang et al. (2021), arXiv 2006.14512: alpha and gamma are computed from these changes.
    """

    name = "output_changes"
    schema = pa.schema([INDEX, column("change", pa.list_(SINGLE))])
    in_all = False

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell for the source and for each target."""
        settings = job.settings
        if settings.attack.kind == "crafted" and len(settings.source) == 1:
            for name in dict.fromkeys((*settings.source, *settings.targets)):
                budgets = (settings.reference,)
                yield Cell(self.name, job.diagnosed.indices, Evaluated(name), budgets, passes=2)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for cell in cells:
            (eps_255,) = cell.budgets
            change = batch.logits(cell.target, eps_255) - batch.classify(cell.target, batch.clean)
            lists = to_lists(change.float()).cast(pa.list_(SINGLE))
            yield pa.table({"index": to_numpy(batch.batch.index), "change": lists})
