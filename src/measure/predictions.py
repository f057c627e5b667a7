"""Rows of predictions, and of what attacks took."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from src.utils.defended_names import ABSTAINED

TOP_K = 5


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


def top_predictions(target: str, logits: Tensor, labels: Tensor) -> TopPredictions:
    """Return the predictions of logits (N, C) for images of the classes `labels`, (N,).

    Of logits (R, N, C) of R draws the class that most draws predict is the prediction, of several
    such ones that with the lowest mean rank, and probabilities are means over the draws. A row of
    NaN abstains, and so do more than half of the draws together.
    """
    draws = logits.float() if logits.ndim == 3 else logits.float()[None]
    abstains = draws.isnan().all(dim=2)
    if logits.ndim == 2:
        abstains = torch.zeros_like(abstains)  # that is for defences
    if not bool((draws.isfinite().all(dim=2) | abstains).all()):
        raise ValueError(f"{target} gave logits that are not finite.")
    mean = draws.softmax(dim=2).nanmean(dim=0)
    top = mean.topk(min(TOP_K, mean.shape[1]), dim=1)
    likeliest = draws.argmax(dim=2) if len(draws) > 1 else top.indices[None, :, 0]
    predicted = likeliest[0]
    if len(draws) > 1:
        votes = functional.one_hot(likeliest, mean.shape[1]) * ~abstains[..., None]
        ranks = draws.argsort(dim=2, descending=True).argsort(dim=2).float().mean(dim=0)
        predicted = (votes.sum(dim=0) - ranks / mean.shape[1]).argmax(dim=1)
    predicted = predicted.masked_fill(abstains.float().mean(dim=0) > 0.5, ABSTAINED)
    places = torch.stack([predicted.clamp_min(0), labels], dim=1)
    confidence, true = mean.gather(1, places).unbind(dim=1)
    correct = ((likeliest == labels) & ~abstains).sum(dim=0)
    confidence = confidence.masked_fill(predicted == ABSTAINED, torch.nan)
    return TopPredictions(predicted, confidence, true, top.indices, top.values, correct)


def prediction_rows(
    target: str,
    level: pa.Table,
    index: Tensor,
    labels: Tensor,
    logits: Tensor,
    target_labels: Tensor | None = None,
) -> pa.Table:
    """Return a row per image of a batch: index, labels and target labels are of shape (N,).

    The columns are `index`, `label`, `target_label` (null of an untargeted attack), `target`,
    those of `level`, a table of one row, `draws`, `draws_correct`, and `prediction_columns`.
    """
    top, count = top_predictions(target, logits, labels), len(index)
    unknown = pa.nulls(count, pa.int64())
    return pa.table(
        {
            "index": to_numpy(index),
            "label": to_numpy(labels),
            "target_label": unknown if target_labels is None else to_numpy(target_labels),
            "target": pa.repeat(target, count),
            **{name: pa.repeat(level[name][0], count) for name in level.column_names},
            "draws": np.full(count, len(logits) if logits.ndim == 3 else 1),
            "draws_correct": to_numpy(top.draws_correct),
            **prediction_columns(top),
        }
    )


def prediction_columns(top: TopPredictions) -> dict[str, pa.Array]:
    """Return the columns of a table that hold predictions.

    They are `predicted` (-1: the target abstained), `confidence`, `true_confidence`,
    `top5_classes` and `top5_confidences`.
    """
    return {
        "predicted": to_numpy(top.predicted),
        "confidence": to_numpy(top.confidence),
        "true_confidence": to_numpy(top.true),
        "top5_classes": to_lists(top.classes.int()),
        "top5_confidences": to_lists(top.confidences),
    }


def crafting_rows(index: Tensor, counts: Sequence[int]) -> pa.Table:
    """Return what each image of a batch took, for all budgets together.

    `counts` are the batch's gradients, zero gradients and forward passes, which are shared out
    evenly among its images. The columns are `index`, `gradients`, `zero_gradients`, `forwards`.
    """
    names = ("gradients", "zero_gradients", "forwards")
    shares = {
        name: np.full(len(index), value / len(index))
        for name, value in zip(names, counts, strict=True)
    }
    return pa.table({"index": to_numpy(index), **shares})


def to_numpy(values: Tensor) -> np.ndarray:
    """Return a copy of a column (N,): a loader's tensors hold open files."""
    return values.cpu().numpy().copy()


def to_lists(rows: Tensor) -> pa.Array:
    """Return each row of a tensor (N, c) as a list of fixed length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(to_numpy(rows.flatten())), rows.shape[1])
