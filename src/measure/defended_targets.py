"""Predictions of targets behind defences for the adversarial images."""

from collections.abc import Iterable

import pyarrow as pa

from src.images.storage import AS_SAVED
from src.measure.predictions import Predictions
from src.measure.protocol import Job, RowRequest
from src.utils.model_names import NO_DEFENCE


class DefendedTargets(Predictions):
    """Predictions behind every defence, for the primary variant only, whose table they share."""

    name = "defended targets"

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return requests of all images for every target behind a defence."""
        targets = [target for target in job.settings.evaluated if target.defence != NO_DEFENCE]
        yield from self.requests_for(job, job.settings.storage or AS_SAVED, targets)
