"""Changes of models' outputs by an attack on a single source."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from src.artifacts.tables import INDEX, LABEL, SINGLE, column
from src.measure.prediction_rows import image_rows
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.defended_names import Evaluated


class OutputChanges(Measurement):
    """Change of the logits of the source and of every target by the attack on a single source.

    `change` is a list of K numbers, one for each class: the logits for the clean image minus those
    for the unrounded adversarial image of the reference budget. A source of several models has no
    rows.

    Reference:
        Liang et al.: Uncovering the Connections Between Adversarial Transferability and Knowledge
        Transferability (2021), ICML 2021, arXiv 2006.14512, for what alpha and gamma are made of.
    """

    name = "output_changes"
    in_all = False
    schema = pa.schema([INDEX, LABEL, column("change", pa.list_(SINGLE))])

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell for the source and each target, behind no defence."""
        settings = job.settings
        facts: dict[str, Any] = {"budgets": (settings.reference,), "passes": 2}
        for name in settings.models if len(settings.source) == 1 else ():
            yield Cell(self.name, job.diagnosed.indices, Evaluated(name), **facts)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for cell in cells:
            clean = batch.classify(cell.target, batch.clean).float()
            change = clean - batch.logits(cell.target, *cell.budgets).float()
            yield image_rows(batch.batch, change=change)
