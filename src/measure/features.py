"""Features of the clean images in each model."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from torch import Tensor

from ..artifacts.tables import INDEX, LABEL, SINGLE, column
from ..attacks import Source
from ..utils.model_names import ModelRef
from .prediction_rows import image_rows
from .protocol import EvaluatedBatch, Job, Measurement, RowRequest


class Features(Measurement):
    """Output of each model's feature layer for the clean image, averaged over positions.

    `features` is a list of C numbers. Outputs (N, C, H, W) and (N, H, H, C), the latter of a Swin
    transformer for example, are averaged over both sides, outputs (N, T, C) over T; outputs (N, C)
    stay unchanged. A model without a `feature_layer` has no rows.
    """

    name = "features"
    in_all = False
    schema = pa.schema([INDEX, LABEL, column("features", pa.list_(SINGLE))])

    def requests(self, job: Job, clean: pa.Table | None) -> Iterable[RowRequest]:
        """Return one request per source or target with a `feature_layer`, without defences."""
        for name in job.settings.models:
            if layer := job.settings.model[name].feature_layer:
                facts: dict[str, Any] = {"key_parts": layer, "attacked": False}
                yield RowRequest(self.name, job.diagnosed.indices, ModelRef.parse(name), **facts)

    def rows(self, batch: EvaluatedBatch, requests: Sequence[RowRequest]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for request in requests:
            (output,) = Source(batch.networks[request.target], request.key_parts).features(
                batch.clean
            )
            yield image_rows(batch.batch, features=_over_positions(output.float()))


def _over_positions(output: Tensor) -> Tensor:
    """Return the means (N, C) over the positions of a layer's output."""
    if output.ndim == 4 and output.shape[1] == output.shape[2] != output.shape[3]:
        return output.mean((1, 2))  # channels are last
    return output.mean({4: (2, 3), 3: (1,)}[output.ndim]) if output.ndim > 2 else output
