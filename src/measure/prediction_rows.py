"""Predictions as rows of a table: the likeliest classes and their probabilities."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from ..artifacts.tables import (
    CERTAIN,
    CLASSES,
    COST,
    EPS_255,
    INDEX,
    ITERATION,
    LABEL,
    PREDICTED,
    SINGLE,
    column,
)
from ..data import Batch
from ..utils.model_names import ABSTAINED, ModelRef
from .protocol import EvaluatedBatch

Level = Mapping[str, float | str | int]
TOP_K = 5
TOP_FIVE = pa.schema(
    [
        *(INDEX, LABEL, EPS_255, *PREDICTED),
        column("top5_classes", pa.list_(pa.int32()), 0, CLASSES),
        column("top5_confidences", pa.list_(SINGLE), 0, CERTAIN, nan=True),
    ]
)
"""Predictions with the five likeliest classes (or all, if fewer), the likeliest first."""


class TopPredictions(NamedTuple):
    """A model's predictions for N images.

    Attributes:
        predicted: Predicted class, int64 (N,); -1 where the model abstains.
        confidence: Its probability, (N,); NaN where the model abstains.
        true: Probability of the true class, (N,).
        classes: Five most likely classes, int64 (N, 5), or all if there are fewer.
        confidences: Their probabilities, descending.
        draws_correct: Number of draws that predict the true class, int64 (N,).
    """

    predicted: Tensor
    confidence: Tensor
    true: Tensor
    classes: Tensor
    confidences: Tensor
    draws_correct: Tensor


def top_predictions(target: ModelRef, logits: Tensor, labels: Tensor) -> TopPredictions:
    """Compute predictions from logits (N, C), for images of the classes `labels`, (N,).

    With logits (R, N, C) of R draws, the prediction is the class that most draws predict; the
    lowest mean rank breaks ties. Probabilities are means over the draws. A draw whose logits are
    all NaN abstains; if more than half of the draws abstain, so does the model.
    """
    draws = logits.float() if logits.ndim == 3 else logits.float()[None]
    abstains = draws.isnan().all(dim=2)
    if logits.ndim == 2:
        abstains = torch.zeros_like(abstains)  # only defences abstain
    if not bool((draws.isfinite().all(dim=2) | abstains).all()):
        raise ValueError(f"{target} returned logits that are not finite.")
    mean = draws.softmax(dim=2).nanmean(dim=0)
    top = mean.topk(min(TOP_K, mean.shape[1]), dim=1)
    likeliest = draws.argmax(dim=2) if len(draws) > 1 else top.indices[None, :, 0]
    predicted = likeliest[0]
    if len(draws) > 1:
        votes = functional.one_hot(likeliest, mean.shape[1]) * ~abstains[..., None]
        ranks = draws.argsort(dim=2, descending=True).argsort(dim=2).float()
        ranks = ranks.masked_fill(abstains[..., None], torch.nan).nanmean(dim=0)
        predicted = (votes.sum(dim=0) - ranks / mean.shape[1]).argmax(dim=1)
    predicted = predicted.masked_fill(abstains.float().mean(dim=0) > 0.5, ABSTAINED)
    places = torch.stack([predicted.clamp_min(0), labels], dim=1)
    confidence, true = mean.gather(1, places).unbind(dim=1)
    correct = ((likeliest == labels) & ~abstains).sum(dim=0)
    confidence = confidence.masked_fill(predicted == ABSTAINED, torch.nan)
    return TopPredictions(predicted, confidence, true, top.indices, top.values, correct)


def predict(
    batch: EvaluatedBatch,
    levels: Iterable[Level],
    versions: Iterable[Tensor],
    target_labels: Tensor | None = None,
) -> pa.Table:
    """Return the target's predictions for several versions of a batch's images.

    A level has the columns that identify a version.
    """
    assert batch.target is not None
    return pa.concat_tables(
        prediction_rows(batch.target, batch.batch, batch.classify(images), level, target_labels)
        for level, images in zip(levels, versions, strict=True)
    )


def prediction_rows(
    target: ModelRef,
    batch: Batch,
    logits: Tensor,
    level: Level,
    target_labels: Tensor | None = None,
) -> pa.Table:
    """Return a row per image of a batch, from logits (N, C), or (R, N, C) for R draws.

    The columns are `index`, `label`, `target_label` (null for untargeted attacks), those of `level`
    (equal in all rows), `draws`, `draws_correct` and those of `prediction_columns`.
    """
    top, count = top_predictions(target, logits, batch.labels), len(batch.index)
    unknown = pa.nulls(count, pa.int64())
    return pa.table(
        {
            "index": to_numpy(batch.index),
            "label": to_numpy(batch.labels),
            "target_label": unknown if target_labels is None else to_numpy(target_labels),
            **{name: pa.repeat(value, count) for name, value in level.items()},
            "draws": np.full(count, len(logits) if logits.ndim == 3 else 1),
            "draws_correct": to_numpy(top.draws_correct),
            **prediction_columns(top),
        }
    )


def prediction_columns(top: TopPredictions) -> dict[str, Any]:
    """Return the columns that hold predictions, by name, with the five likeliest classes."""
    return {
        "predicted": to_numpy(top.predicted),
        "confidence": to_numpy(top.confidence),
        "true_confidence": to_numpy(top.true),
        "top5_classes": to_lists(top.classes.int()),
        "top5_confidences": to_lists(top.confidences),
    }


def with_cost(table: pa.Table, cost: Mapping[str, Any]) -> pa.Table:
    """Add the column `iteration`, null, and the columns `COST`, null if unknown, to predictions.

    `cost` holds one number per column, or one per row.
    """
    for field in (ITERATION, *COST):
        values = cost.get(field.name)
        if not isinstance(values, pa.ChunkedArray):
            values = pa.array([values] * len(table), field.type)
        table = table.append_column(field, values)
    return table


def image_rows(batch: Batch, **columns: Tensor) -> pa.Table:
    """Return a row per image of a batch: `index`, `label`, and columns of shape (N,).

    A column of shape (N, c) holds lists of variable length, because models may differ in length.
    """
    columns = {"index": batch.index, "label": batch.labels, **columns}
    return pa.table(
        {
            name: to_numpy(values) if values.ndim == 1 else to_lists(values).cast(pa.list_(SINGLE))
            for name, values in columns.items()
        }
    )


def to_numpy(values: Tensor) -> np.ndarray:
    """Return a copy of a column (N,); a loader's tensors would keep files open."""
    return values.cpu().numpy().copy()


def to_lists(rows: Tensor) -> pa.Array:
    """Return each row of a tensor (N, c) as a list of fixed length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(to_numpy(rows.flatten())), rows.shape[1])
