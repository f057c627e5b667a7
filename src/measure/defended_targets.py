"""Predictions of targets behind defences for the adversarial images."""

from collections.abc import Iterable

import pyarrow as pa

from src.images.storage import STORED
from src.measure.predictions import Predictions
from src.measure.protocol import Cell, Job
from src.utils.model_ref import PLAIN


class DefendedTargets(Predictions):
    """Predictions behind every defence, for the primary variant only, whose table they share."""

    name = "defended targets"

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return cells of all images for every target behind a defence."""
        targets = [target for target in job.settings.evaluated if target.defence != PLAIN]
        yield from self.cells_of(job, job.settings.storage or STORED, targets)
