"""Predictions of targets behind defences for the adversarial images."""

from collections.abc import Iterable

import pyarrow as pa

from ..images.storage import AS_SAVED
from ..utils.model_names import NO_DEFENCE
from .predictions import Predictions
from .protocol import Job, RowRequest


class DefendedTargets(Predictions):
    """Predictions behind every defence, for the primary variant only, whose table they share."""

    name = "defended targets"

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return requests of all images for every target behind a defence."""
        targets = [target for target in job.settings.evaluated if target.defence != NO_DEFENCE]
        yield from self.requests_for(job, job.settings.storage or AS_SAVED, targets)
