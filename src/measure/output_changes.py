"""Changes of model outputs under an attack on a single source."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from src.artifacts.tables import INDEX, LABEL, SINGLE, column
from src.measure.prediction_rows import image_rows
from src.measure.protocol import EvaluatedBatch, Job, Measurement, RowRequest
from src.utils.model_names import ModelRef


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

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for the source and for each target, without defences."""
        settings = job.settings
        facts: dict[str, Any] = {"budgets": (settings.reference,), "passes": 2}
        for name in settings.models if len(settings.source) == 1 else ():
            yield RowRequest(self.name, job.diagnosed.indices, ModelRef.parse(name), **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for request in requests:
            clean = batch.classify(request.target, batch.clean).float()
            change = clean - batch.logits(request.target, *request.budgets).float()
            yield image_rows(batch.batch, change=change)
