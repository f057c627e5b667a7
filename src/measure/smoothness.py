"""Curvature of a source's loss at an image."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from src.artifacts.tables import FLOAT, INDEX, LABEL, column
from src.attacks import Philox, image_seeds
from src.measure.gradient_similarity import input_gradients
from src.measure.prediction_rows import to_numpy
from src.measure.protocol import Cell, EvaluatedBatch, Job, Measurement
from src.utils.defended_names import Evaluated

_STEPS, _LENGTH = 8, 0.01
# Length of a step in L2, in [0, 1] pixels: rounding of float32 gradients stays small beside their
# difference, and few ReLUs switch on the way.
_STREAM = 9  # of random numbers, apart from that of the gradients' consistency


class Smoothness(Measurement):
    """Curvature of the source's cross-entropy of the true class at an image.

    `curvature` is the largest absolute eigenvalue of the Hessian by the pixels, in [0, 1], from
    eight power iterations on central differences of gradients, which are not counted. An
    ensemble's loss is the one that is attacked.

    Reference:
        Zhang et al. (2024), arXiv 2307.07873: smoothness of surrogates.
    """

    name = "smoothness"
    schema = pa.schema([INDEX, LABEL, column("curvature", FLOAT, 0, nan=True)])
    in_all = False

    def cells(self, job: Job, clean: pa.Table | None) -> Iterable[Cell]:
        """Return the cell of the source."""
        source, decides = Evaluated(job.settings.source_name), (_STEPS, _LENGTH, job.settings.seed)
        facts: dict[str, Any] = {"decides": decides, "attacked": False, "passes": 6 * _STEPS}
        yield Cell(self.name, job.diagnosed.indices, source, **facts)

    def rows(self, batch: EvaluatedBatch, cells: Sequence[Cell]) -> Iterable[pa.Table]:
        """Return a row per image."""
        (cell,) = cells
        network, clean, labels = batch.networks[cell.target], batch.clean, batch.batch.labels
        size = batch.settings.trainer.max_gradient_batch
        seeds = image_seeds(batch.settings.seed, batch.batch.index)
        start = Philox(seeds, clean, _STREAM).uniform(*clean.shape[1:], low=-1.0, high=1.0)
        direction, product = _unit(start.double()), torch.zeros(len(clean))
        for _ in range(_STEPS):
            step = (_LENGTH * direction).to(clean)
            ends = (input_gradients(network, clean + sign * step, labels, size) for sign in (1, -1))
            change = next(ends) - next(ends)
            product = change.to(direction) / (2 * _LENGTH)
            curvature = (direction * product).flatten(1).sum(dim=1).abs()
            direction = _unit(product, direction)
        columns = {"index": batch.batch.index, "label": labels, "curvature": curvature}
        yield pa.table({name: to_numpy(values) for name, values in columns.items()})


def _unit(vectors: Tensor, otherwise: Tensor | None = None) -> Tensor:
    """Return images (N, 3, H, W) of L2 norm 1; in place of zeros, `otherwise`."""
    norms = vectors.flatten(1).norm(dim=1)[:, None, None, None]
    units = vectors / norms.clamp_min(torch.finfo(norms.dtype).tiny)
    return units if otherwise is None else torch.where(norms > 0, units, otherwise)
