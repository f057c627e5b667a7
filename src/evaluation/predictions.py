"""Table of a job's predictions, gathered exactly on any number of processes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

TOP_K = 5
_UNTARGETED = -1


class TopPredictions(NamedTuple):
    """A model's predictions for N images.

    Attributes:
        true: Probability of the true class, (N,).
        classes: Five most likely classes, int64 (N, 5), or all if there are fewer.
        confidences: Their probabilities, descending.
    """

    true: Tensor
    classes: Tensor
    confidences: Tensor


def top_predictions(target: str, logits: Tensor, labels: Tensor) -> TopPredictions:
    """Return the predictions of finite logits (N, C) for images of the classes `labels`, (N,)."""
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"{target} gave logits that are not finite.")
    probabilities = logits.float().softmax(dim=1)
    top = probabilities.topk(min(TOP_K, logits.shape[1]), dim=1)
    true = probabilities.gather(1, labels[:, None])[:, 0]
    return TopPredictions(true, top.indices, top.values)


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
        self.whole.append(torch.column_stack([column.to(device) for column in whole]).int())
        self.real.append(torch.column_stack([column.to(device).double() for column in real]))

    def rows(self, keys: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the whole and real columns, sorted by the first `keys` whole ones."""
        whole, real = (dim_zero_cat(state).cpu().numpy() for state in (self.whole, self.real))
        order = np.lexsort(whole[:, :keys].T[::-1])
        return whole[order].astype(np.int64), real[order]

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
        """Add a batch: index, labels and target labels of shape (N,), logits (N, C)."""
        top = top_predictions(target, logits, labels)
        if target_labels is None:
            target_labels = torch.full_like(labels, _UNTARGETED)
        keys = [torch.full_like(index, key) for key in (self.targets.index(target), level)]
        self.update([*keys, index, labels, target_labels, top.classes], [top.true, top.confidences])

    def compute(self) -> pa.Table:
        """Return the table of all processes' rows, sorted by target, level and index.

        The columns are `index`, `label`, `target_label` (null of an untargeted attack), `target`,
        those of the levels, `predicted`, `confidence`, `true_confidence`, `top5_classes` and
        `top5_confidences`.
        """
        whole, real = self.rows(3)
        target, level, index, label, target_label = whole[:, :5].T
        levels = self.levels.take(pa.array(level))
        return pa.table(
            {
                "index": index,
                "label": label,
                "target_label": pa.array(target_label, mask=target_label == _UNTARGETED),
                "target": self.target_names(target),
                **dict(zip(levels.column_names, levels.columns, strict=True)),
                **prediction_columns(whole[:, 5:], real[:, 1:], real[:, 0]),
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
    classes: np.ndarray, confidences: np.ndarray, true: np.ndarray
) -> dict[str, pa.Array]:
    """Return the columns of a table that hold the arrays of `TopPredictions`."""
    top = confidences.astype(np.float32)
    return {
        "predicted": pa.array(classes[:, 0]),
        "confidence": pa.array(top[:, 0]),
        "true_confidence": pa.array(true.astype(np.float32)),
        "top5_classes": _lists(classes.astype(np.int32)),
        "top5_confidences": _lists(top),
    }


def _lists(rows: np.ndarray) -> pa.Array:
    """Return each row of a table (N, c) as a list of fixed length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
