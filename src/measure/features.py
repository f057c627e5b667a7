"""Features of the clean images in each model."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from torch import Tensor

from src.artifacts.tables import INDEX, LABEL, SINGLE, column
from src.attacks import Source
from src.measure.prediction_rows import image_rows
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.model_ref import ModelRef


class Features(Measurement):
    """Output of each model's feature layer for the clean image, averaged over positions.

    `features` is a list of C numbers. Outputs (N, C, H, W) and (N, H, H, C), the latter of a Swin
    transformer for example, are averaged over both sides, outputs (N, T, C) over T; outputs (N, C)
    stay unchanged. A model without a `feature_layer` has no rows.
    """

    name = "features"
    in_all = False
    schema = pa.schema([INDEX, LABEL, column("features", pa.list_(SINGLE))])

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return one cell per source and target, without defences, that has a `feature_layer`."""
        for name in job.settings.models:
            if layer := job.settings.model[name].feature_layer:
                facts: dict[str, Any] = {"decides": layer, "attacked": False}
                yield Cell(self.name, job.diagnosed.indices, ModelRef.parse(name), **facts)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for cell in cells:
            (output,) = Source(batch.networks[cell.target], cell.decides).features(batch.clean)
            yield image_rows(batch.batch, features=_over_positions(output.float()))


def _over_positions(output: Tensor) -> Tensor:
    """Return the means (N, C) over the positions of a layer's output."""
    if output.ndim == 4 and output.shape[1] == output.shape[2] != output.shape[3]:
        return output.mean((1, 2))  # channels are last
    return output.mean({4: (2, 3), 3: (1,)}[output.ndim]) if output.ndim > 2 else output
