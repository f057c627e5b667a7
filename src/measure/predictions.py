"""Table of a job's predictions, gathered exactly on any number of processes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from src.utils.defended_names import ABSTAINED

TOP_K = 5
_UNTARGETED = -1


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


class RowMetric(Metric, ABC):
    """Table gathered in rows, which processes merge by concatenation: none is counted twice.

    The order of `targets` is that in which the table lists them.
    """

    full_state_update = False
    whole: list[Tensor]
    real: list[Tensor]

    def __init__(self, targets: Sequence[str]) -> None:
        super().__init__()
        self.targets = list(targets)
        self.add_state("whole", default=[], dist_reduce_fx="cat")
        self.add_state("real", default=[], dist_reduce_fx="cat")

    @abstractmethod
    def compute(self) -> pa.Table:
        """Return the table of all processes' rows."""

    def since(self, batches: int) -> pa.Table:
        """Return the table of this process's rows but those of its first batches."""
        rest = copy(self)
        rest.whole, rest.real = self.whole[batches:], self.real[batches:]
        return type(self).compute(rest)  # not its own `compute`, which waits for other processes

    @property
    def widths(self) -> tuple[int, int] | None:
        """Numbers of columns of whole numbers and of real ones; None before the first rows."""
        return (self.whole[0].shape[1], self.real[0].shape[1]) if self.whole else None

    def update(self, whole: Sequence[Tensor], real: Sequence[Tensor]) -> None:
        """Add M rows, as columns (M,) or (M, c) of whole numbers and of real ones."""
        device = torch.device("cpu") if self.device.type == "mps" else self.device  # no float64
        self.whole.append(torch.column_stack([column.to(device) for column in whole]).long())
        self.real.append(torch.column_stack([column.to(device).double() for column in real]))

    def rows(self, keys: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the whole and real columns, sorted by the first `keys` whole ones."""
        whole, real = (dim_zero_cat(state).cpu().numpy() for state in (self.whole, self.real))
        order = np.lexsort(whole[:, :keys].T[::-1])
        return whole[order], real[order]

    def target_names(self, numbers: np.ndarray) -> pa.Array:
        """Return the targets' names by their numbers."""
        return pa.array(np.array(self.targets, dtype=object)[numbers], pa.string())


def merged(metrics: Mapping[str, RowMetric]) -> dict[str, pa.Table]:
    """Return the tables of all processes' rows, without those that have none.

    Processes merge their rows only if all of them have some: one without gets an empty part.
    """
    widths: list[Any] = [{name: metric.widths for name, metric in metrics.items()}]
    if torch.distributed.is_initialized():
        (own,), widths = widths, [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(widths, own)
    tables = {}
    for name, metric in metrics.items():
        known = [each[name] for each in widths if each[name] is not None]
        if known and metric.widths is None:
            whole, real = known[0]
            metric.update([torch.zeros(0, whole)], [torch.zeros(0, real)])
        if known:
            tables[name] = metric.compute()
    return tables


class Predictions(RowMetric):
    """Predictions by image, target and level; `levels` are the columns that tell levels apart."""

    def __init__(self, targets: Sequence[str], levels: pa.Table) -> None:
        super().__init__(targets)
        self.levels = levels

    def add(
        self,
        target: str,
        level: int,
        index: Tensor,
        labels: Tensor,
        logits: Tensor,
        target_labels: Tensor | None = None,
    ) -> None:
        """Add a batch: index, labels and target labels of shape (N,); see `top_predictions`."""
        top = top_predictions(target, logits, labels)
        if target_labels is None:
            target_labels = torch.full_like(labels, _UNTARGETED)
        draws = len(logits) if logits.ndim == 3 else 1
        keys = [torch.full_like(index, key) for key in (self.targets.index(target), level)]
        counts = [torch.full_like(index, draws), top.draws_correct]
        whole = [*keys, index, labels, target_labels, *counts, top.predicted, top.classes]
        self.update(whole, [top.confidence, top.true, top.confidences])

    def compute(self) -> pa.Table:
        """Return the table of all processes' rows, sorted by target, level and index.

        The columns are `index`, `label`, `target_label` (null of an untargeted attack), `target`,
        those of the levels, `draws`, `draws_correct`, `predicted` (-1: the target abstained),
        `confidence`, `true_confidence`, `top5_classes` and `top5_confidences`.
        """
        whole, real = self.rows(3)
        target, level, index, label, target_label, draws, draws_correct, predicted = whole[:, :8].T
        levels = self.levels.take(pa.array(level))
        return pa.table(
            {
                "index": index,
                "label": label,
                "target_label": pa.array(target_label, mask=target_label == _UNTARGETED),
                "target": self.target_names(target),
                **dict(zip(levels.column_names, levels.columns, strict=True)),
                "draws": draws,
                "draws_correct": draws_correct,
                **prediction_columns(predicted, real[:, 0], real[:, 1], whole[:, 8:], real[:, 2:]),
            }
        )


class Crafting(RowMetric):
    """Table of what each image's attack took, for all budgets together.

    Attacks are given batches, so that their counts are shared out evenly among a batch's images.
    """

    def __init__(self) -> None:
        super().__init__(())

    def add(self, index: Tensor, counts: Sequence[int]) -> None:
        """Add a batch's index, (N,), and its gradients, zero gradients and forward passes."""
        shares = torch.tensor(counts, dtype=torch.float64) / len(index)
        self.update([index], [shares.expand(len(index), -1)])

    def compute(self) -> pa.Table:
        """Return the columns `index`, `gradients`, `zero_gradients` and `forwards`, by index."""
        whole, real = self.rows(1)
        names = ("gradients", "zero_gradients", "forwards")
        return pa.table({"index": whole[:, 0], **dict(zip(names, real.T, strict=True))})


def prediction_columns(
    predicted: np.ndarray,
    confidence: np.ndarray,
    true: np.ndarray,
    classes: np.ndarray,
    confidences: np.ndarray,
) -> dict[str, pa.Array]:
    """Return the columns of a table that hold the arrays of `TopPredictions`."""
    return {
        "predicted": pa.array(predicted),
        "confidence": pa.array(confidence.astype(np.float32)),
        "true_confidence": pa.array(true.astype(np.float32)),
        "top5_classes": _lists(classes.astype(np.int32)),
        "top5_confidences": _lists(confidences.astype(np.float32)),
    }


def _lists(rows: np.ndarray) -> pa.Array:
    """Return each row of a table (N, c) as a list of fixed length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
