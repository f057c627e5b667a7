"""Features that models have of the clean images."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from torch import Tensor

from src.artifacts.tables import INDEX, LABEL, SINGLE, column
from src.attacks import Source
from src.measure.prediction_rows import image_rows
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.defended_names import Evaluated


class Features(Measurement):
    """Output of each model's feature layer for the clean image, averaged over positions.

    `features` is a list of C numbers: of an output (N, C, H, W) the means over H and W, of one
    (N, H, H, C), such as a Swin transformer's, the means over both, of one (N, T, C) the means over
    T, one (N, C) as it is. A model that states no `feature_layer` has no rows.
    """

    name = "features"
    in_all = False
    schema = pa.schema([INDEX, LABEL, column("features", pa.list_(SINGLE))])

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell for each source and target behind no defence that states a layer."""
        for name in job.settings.models:
            if layer := job.settings.model[name].feature_layer:
                facts: dict[str, Any] = {"decides": layer, "attacked": False}
                yield Cell(self.name, job.diagnosed.indices, Evaluated(name), **facts)

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
