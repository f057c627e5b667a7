"""Predictions laid out by target, image and budget: counted, still correct, a success."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from src.config.settings import Protocol
from src.utils.defended_names import ABSTAINED, PLAIN, parted

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcomes:
    """Predictions of T targets for N images at K budgets, as arrays of the shape (T, N, K).

    Attributes:
        index: Numbers of the images in the data set, rising, shape (N,).
        label: True classes, shape (N,).
        target_labels: Target labels, shape (N,), -1: not attacked; None: untargeted.
        eps_255: Budgets, rising, shape (K,); the first is 0, the clean image.
        present: True where the table has a row, and the target does not abstain.
        abstained: True where the target abstains.
        draws_correct: Share of a randomised defence's draws that predict the true class; of other
            targets 1 or 0.
        predicted: Predicted class; without meaning where there is no row.
        confidence, true_confidence: Probability of the predicted and the true class; NaN: no row.
        source_clean: The source classifies the clean image correctly, shape (N,); None if its
            clean rows do not cover every image.
        target_clean: The target classifies it correctly, shape (T, N).
        counted: The image belongs to the denominator, shape (T, N).
    """

    source: str
    targets: list[str]
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    target_labels: NDArray[np.int64] | None
    eps_255: NDArray[np.float64]
    present: Mask
    abstained: Mask
    draws_correct: NDArray[np.float64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    true_confidence: NDArray[np.float64]
    source_clean: Mask | None
    target_clean: Mask
    counted: Mask

    @property
    def correct(self) -> Mask:
        """Mask of the predictions that are the true class."""
        return self.present & (self.predicted == self.label[:, None])

    @property
    def success(self) -> Mask:
        """Mask of the predictions in which the attack succeeds."""
        return self.present & self.is_success(self.predicted)

    @property
    def aimed_at_label(self) -> Mask:
        """Mask of images, (N,), whose target label is the true class or missing; never counted."""
        if self.target_labels is None:
            return np.zeros(len(self.label), bool)
        return (self.target_labels == self.label) | (self.target_labels < 0)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols whose clean rows are there; `common` where there are defences."""
        if self.source_clean is None:
            return ("all", "target_correct")
        return PROTOCOLS if any("@" in name for name in self.targets) else PROTOCOLS[:-1]

    def is_success(self, predicted: NDArray[np.int64]) -> Mask:
        """Return the mask of successes among predictions (T, N, K); none is `aimed_at_label`."""
        if self.target_labels is None:
            return predicted != self.label[:, None]
        return (predicted == self.target_labels[:, None]) & ~self.aimed_at_label[:, None]


def outcomes(
    predictions: pd.DataFrame, source: str, targets: Sequence[str], protocol: str
) -> Outcomes:
    """Lay predictions out by target, image and budget; the arguments are those of `rates`.

    Raises:
        ValueError: There is no such protocol or target, the table has several rows for an image,
            a target and a budget, or it lacks clean rows of a target, or of the source where the
            protocol needs them.
    """
    predictions = _with_full_names(predictions)
    _check_known("protocol", [protocol], PROTOCOLS)
    _check_known("target", targets, predictions["target"].unique())
    mine = predictions["target"].isin(list(targets)).to_numpy()
    index = np.unique(predictions["index"].to_numpy()[mine])
    eps = np.union1d([0.0], predictions["eps_255"].to_numpy(np.float64)[mine])
    row = row_positions(predictions, targets, index, eps)
    present = row >= 0
    any_row = row.max(axis=(0, 2))  # any of an image's rows: all hold its label
    label = predictions["label"].to_numpy()[any_row]
    predicted = predictions["predicted"].to_numpy()[row]
    abstained = present & (predicted == ABSTAINED)
    of_source = row_positions(predictions, [source], index, [0.0])[0, :, 0]
    source_correct = predictions["predicted"].to_numpy()[of_source] == label
    wanted = target_labels(predictions)
    confidence, true_confidence = (
        np.where(present, predictions[column].to_numpy(np.float64)[row], np.nan)
        for column in ("confidence", "true_confidence")
    )
    evaluated: Mask = np.any(present, axis=2)
    if (lacking := evaluated & ~present[:, :, 0]).any():
        target, image = np.argwhere(lacking)[0]
        raise ValueError(
            f"the table lacks the clean prediction (eps_255 = 0) of target "
            f"'{targets[target]}' for image {index[image]}."
        )
    found = Outcomes(
        source=source,
        targets=list(targets),
        index=index,
        label=label,
        target_labels=None if wanted is None else wanted.reindex(index, fill_value=-1).to_numpy(),
        eps_255=eps,
        present=present & ~abstained,
        abstained=abstained,
        draws_correct=_share_correct(predictions, row, present),
        predicted=predicted,
        confidence=confidence,
        true_confidence=true_confidence,
        source_clean=source_correct if (of_source >= 0).all() else None,
        target_clean=present[:, :, 0] & (predicted[:, :, 0] == label),
        counted=evaluated,
    )
    return under(found, protocol)


def _with_full_names(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return predictions in which targets behind a defence have names such as `resnet50@jpeg`."""
    if "defence" not in predictions:
        return predictions
    target = predictions["target"].astype(object)
    lack = (predictions["defence"] != PLAIN) & ~target.str.contains("@")
    if not lack.any():
        return predictions
    names = target + "@" + predictions["defence"].astype(object)
    return predictions.assign(target=target.mask(lack, names))


def _share_correct(
    predictions: pd.DataFrame, row: NDArray[np.intp], present: Mask
) -> NDArray[np.float64]:
    correct = (predictions["predicted"] == predictions["label"]).astype("float64")
    if "draws_correct" in predictions:
        correct = (predictions["draws_correct"] / predictions["draws"]).fillna(correct)
    return np.where(present, correct.to_numpy()[row], 0.0)


def _check_known(what: str, given: Sequence[str], known: Iterable[str]) -> None:
    there = list(map(str, known))
    if not given or set(given) - set(there):
        raise ValueError(f"{what} {', '.join(given) or '(none)'}: there are {', '.join(there)}.")


def under(found: Outcomes, protocol: str) -> Outcomes:
    """Return the outcomes with the denominator of a protocol, whose clean rows must be there."""
    counted = (found.present | found.abstained).any(axis=2) & ~found.aimed_at_label
    if protocol in ("target_correct", "joint", "common"):
        counted &= found.target_clean
    if protocol == "common":
        models = np.array([parted(name)[0] for name in found.targets])
        for model in np.unique(models):
            counted[models == model] = counted[models == model].all(axis=0)
    if protocol in ("source_correct", "joint", "common"):
        if found.source_clean is None:
            raise ValueError(
                f"protocol '{protocol}' needs clean predictions (eps_255 = 0) of the source "
                f"'{found.source}' for every image, and the table lacks them."
            )
        counted &= found.source_clean
    return replace(found, counted=counted)


def at_budget(predictions: pd.DataFrame, eps_255: float) -> pd.DataFrame:
    """Return the rows of one budget above 0, of which there must be some, and the clean ones."""
    if not (predictions["eps_255"] == eps_255).any():
        raise ValueError(f"the table has no row with eps_255 = {eps_255:g}.")
    return predictions[predictions["eps_255"].isin([0.0, eps_255])]


def target_labels(predictions: pd.DataFrame) -> pd.Series | None:
    """Return target labels by image index, -1 for none; None if no row above budget 0 has one."""
    if "target_label" not in predictions.columns:
        return None
    attacked = predictions.loc[predictions["eps_255"] != 0, ["index", "target_label"]]
    if not attacked["target_label"].notna().any():
        return None
    labels = attacked.drop_duplicates("index").set_index("index")["target_label"]
    return labels.fillna(-1).astype("int64")


def row_positions(
    table: pd.DataFrame, targets: Sequence[str], index: ArrayLike, eps_255: ArrayLike
) -> NDArray[np.intp]:
    """Return the position of each target, image and budget in a table, (T, N, K); -1 for none.

    Raises:
        ValueError: The table has several rows for one of them.
    """
    names = table["target"].astype("category").cat
    axes = (pd.Index(list(targets)), pd.Index(np.asarray(index)), pd.Index(np.asarray(eps_255)))
    place = (
        axes[0].get_indexer(names.categories)[names.codes],
        axes[1].get_indexer(pd.Index(table["index"])),
        axes[2].get_indexer(pd.Index(table["eps_255"])),
    )
    known = np.flatnonzero(np.logical_and.reduce([axis >= 0 for axis in place]))
    rows = np.full([len(axis) for axis in axes], -1)
    rows[tuple(axis[known] for axis in place)] = known
    if len(known) > np.count_nonzero(rows >= 0):
        raise ValueError(
            "the table has several rows for one image, target and budget; choose those of one "
            "attack, source and variant."
        )
    return rows
