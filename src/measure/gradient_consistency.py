"""Consistency of a source's gradients near an image."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch

from src.artifacts.tables import FLOAT, INDEX, LABEL, column
from src.attacks import Philox, image_seeds
from src.measure.gradient_similarity import cosines, input_gradients
from src.measure.prediction_rows import image_rows
from src.measure.protocol import EvaluatedBatch, Job, Measurement, RowRequest
from src.utils.model_names import ModelRef

_POINTS, _RADIUS = 5, 1 / 255
_STREAM = 8  # of random numbers, separate from attacks, noise, target labels and defences


class GradientConsistency(Measurement):
    """Mean cosine between the source's gradients at x and at five points x + u, u in +-1/255.

    u is uniform. The gradients are those of the cross-entropy of the true class; an ensemble is
    differentiated as it is attacked. They are not counted as cost. `consistency` is NaN if one of
    them is zero everywhere.

    Reference:
        Scissors Effect (2026), arXiv 2606.22516, local gradient consistency.
    """

    name = "gradient_consistency"
    schema = pa.schema([INDEX, LABEL, column("consistency", FLOAT, -1, 1, nan=True)])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for the source."""
        source, key_parts = (
            ModelRef.parse(job.settings.source_name),
            (_POINTS, _RADIUS, job.settings.seed),
        )
        facts: dict[str, Any] = {"key_parts": key_parts, "passes": 3 * (1 + _POINTS)}
        yield RowRequest(self.name, job.diagnosed.indices, source, attacked=False, **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        (request,) = requests
        network, clean, labels = batch.networks[request.target], batch.clean, batch.batch.labels
        size = batch.gradient_batch
        seeds = image_seeds(batch.settings.seed, batch.batch.index)
        random = Philox(seeds, clean, _STREAM)
        start = input_gradients(network, clean, labels, size).flatten(1)
        similarities = []
        for _ in range(_POINTS):
            change = random.uniform(*clean.shape[1:], low=-_RADIUS, high=_RADIUS).to(clean)
            gradients = input_gradients(network, clean + change, labels, size)
            similarities.append(cosines(start, gradients.flatten(1)))
        yield image_rows(batch.batch, consistency=torch.stack(similarities).mean(dim=0))
