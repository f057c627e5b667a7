"""Smoothness of a source's loss at an image."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch

from src.artifacts.tables import FLOAT, INDEX, LABEL, column
from src.attacks import Philox, image_seeds
from src.measure.gradient_similarity import input_gradients, to_float64
from src.measure.prediction_rows import image_rows
from src.measure.protocol import EvaluatedBatch, Job, Measurement, RowRequest
from src.utils.devices import arithmetic
from src.utils.model_names import ModelRef

# A distance of 0.01 is local: 1/170 of the L2 norm of a change by 8/255 on 32 x 32 pixels. Float32
# rounding, about 1e-6 of the logits' gradients, grows to 1e-4 of them in a product.
_DISTANCE, _ITERATIONS = 0.01, 8
_STREAM = 9  # of random numbers, separate from all others


class Smoothness(Measurement):
    """Curvature of the source's loss at the clean image: the lower, the smoother.

    `curvature` is the largest absolute eigenvalue of the Hessian of the cross-entropy of the true
    class with respect to the image, per squared L2 distance in [0, 1] pixels. It is computed by
    power iteration on central differences of gradients; an ensemble is differentiated as it is
    attacked. The gradients are not counted as cost, and their images may leave [0, 1]. With ReLUs,
    `curvature` is measured over a distance of 0.02, because a kink has no Hessian.

    Reference:
        Zhang et al.: Why Does Little Robustness Help? (2024), S&P 2024, arXiv 2307.07873, for the
        eigenvalue as the smoothness of a source.
    """

    name = "smoothness"
    in_all = False
    schema = pa.schema([INDEX, LABEL, column("curvature", FLOAT, 0)])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return a request for the source."""
        source, gradients = ModelRef.parse(job.settings.source_name), 2 * _ITERATIONS
        key_parts = (_DISTANCE, _ITERATIONS, job.settings.seed)
        facts: dict[str, Any] = {"key_parts": key_parts, "attacked": False, "passes": 3 * gradients}
        yield RowRequest(self.name, job.diagnosed.indices, source, **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        (request,) = requests
        network, clean, labels = batch.networks[request.target], batch.clean, batch.batch.labels
        size = batch.gradient_batch
        random = Philox(image_seeds(batch.settings.seed, batch.batch.index), clean, _STREAM)
        product = to_float64(random.normal(*clean.shape[1:])).flatten(1)
        least = torch.finfo(product.dtype).tiny  # a product of zeros stays zero
        with arithmetic(clean.device.type, "32-true"):  # others are too coarse for differences
            for _ in range(_ITERATIONS):
                direction = product / product.norm(dim=1, keepdim=True).clamp_min(least)
                step = (_DISTANCE * direction).view_as(clean).to(clean)
                ends = (input_gradients(network, clean + s * step, labels, size) for s in (1, -1))
                product = torch.sub(*ends).flatten(1) / (2 * _DISTANCE)
        # Unlike v H v, the norm is also correct next to an eigenvalue of the opposite sign, and if
        # kinks make the differences asymmetric.
        yield image_rows(batch.batch, curvature=product.norm(dim=1))
