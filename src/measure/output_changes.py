"""Changes of model outputs under an attack on a single source."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from src.artifacts.tables import INDEX, LABEL, SINGLE, column
from src.measure.prediction_rows import image_rows
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.model_ref import ModelRef


class OutputChanges(Measurement):
    """Change of the logits of the source and every target under the attack on a single source.

    `change` is a list of K numbers, one per class: the logits for the clean image minus the logits
    for the unrounded adversarial image of the reference budget. A source of several models has no
    rows.

    Reference:
        Liang et al.: Uncovering the Connections Between Adversarial Transferability and Knowledge
        Transferability (2021), ICML 2021, arXiv 2006.14512, for the inputs of alpha and gamma.
    """

    name = "output_changes"
    in_all = False
    schema = pa.schema([INDEX, LABEL, column("change", pa.list_(SINGLE))])

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell for the source and for each target, without defences."""
        settings = job.settings
        facts: dict[str, Any] = {"budgets": (settings.reference,), "passes": 2}
        for name in settings.models if len(settings.source) == 1 else ():
            yield Cell(self.name, job.diagnosed.indices, ModelRef.parse(name), **facts)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for cell in cells:
            clean = batch.classify(cell.target, batch.clean).float()
            change = clean - batch.logits(cell.target, *cell.budgets).float()
            yield image_rows(batch.batch, change=change)
