"""Features of clean images in every model."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from torch import Tensor, nn

from src.artifacts.tables import INDEX, SINGLE, column
from src.attacks import find_layer
from src.measure.prediction_rows import to_lists, to_numpy
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.defended_names import Evaluated


class Features(Measurement):
    """Output of every model's `feature_layer` for the clean images, averaged over positions.

    `features` has one value per channel of a map (N, C, H, W), or of tokens (N, T, C). Models
    without a feature layer have no rows.
    """

    name = "features"
    schema = pa.schema([INDEX, column("features", pa.list_(SINGLE), nan=True)])
    in_all = False

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return a cell for each model that has a feature layer."""
        for name in job.settings.models:
            layer = job.settings.model[name].feature_layer
            facts: dict[str, Any] = {"decides": layer, "attacked": False}
            if layer is not None:
                yield Cell(self.name, job.diagnosed.indices, Evaluated(name), **facts)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image."""
        for cell in cells:
            features = _averaged(_output(batch.networks[cell.target], cell.decides, batch.clean))
            lists = to_lists(features.float()).cast(pa.list_(SINGLE))  # models differ in length
            yield pa.table({"index": to_numpy(batch.batch.index), "features": lists})


def _output(network: nn.Module, layer: str, images: Tensor) -> Tensor:
    """Return a layer's output for images."""
    outputs: list[Tensor] = []
    hook = find_layer(network, layer).register_forward_hook(
        lambda module, arguments, output: outputs.append(output)
    )
    try:
        network(images)
    finally:
        hook.remove()
    return outputs[-1]


def _averaged(output: Tensor) -> Tensor:
    """Return the means over positions, (N, C)."""
    if output.ndim == 3:
        return output.mean(dim=1)
    return output.flatten(2).mean(dim=2) if output.ndim > 3 else output
