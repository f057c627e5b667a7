"""What every target says of every image at every budget: counted, still correct, a success."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

PROTOCOLS = ("all", "source_correct", "target_correct", "joint")

_COLUMNS = ["index", "target", "eps_255", "label", "predicted", "confidence", "true_confidence"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Outcomes:
    """What T targets say of N images at K budgets, as arrays of the shape (T, N, K).

    Attributes:
        source: Model that the adversarial images were made on.
        targets: Names of the targets.
        index: Of the images, rising, shape (N,).
        label: Their true classes, shape (N,).
        aim: The classes that a targeted attack aims for, shape (N,); None if it is untargeted.
        eps_255: Budgets, rising, shape (K,); the first is 0, the clean image.
        row: Position of the row in the predictions table; -1 where the table has none.
        predicted: Predicted class; without meaning where there is no row.
        confidence: Probability of the predicted class; NaN where there is no row.
        true_confidence: Probability of the true class, likewise.
        source_clean: The source classifies the clean image correctly, shape (N,); None if its
            clean rows do not cover every image.
        target_clean: The target does, shape (T, N); None if clean rows of any target lack.
        counted: The image belongs to the denominator, shape (T, N).
    """

    source: str
    targets: list[str]
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    aim: NDArray[np.int64] | None
    eps_255: NDArray[np.float64]
    row: NDArray[np.intp]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    true_confidence: NDArray[np.float64]
    source_clean: Mask | None
    target_clean: Mask | None
    counted: Mask

    @property
    def present(self) -> Mask:
        """Where the table has a row."""
        return self.row >= 0

    @property
    def correct(self) -> Mask:
        """Where the prediction is the true class."""
        return self.present & (self.predicted == self.label[:, None])

    @property
    def success(self) -> Mask:
        """Where the prediction is what the attack wants.

        That is the class aimed for, or, if it aims for none, any but the true one. It is false
        where `aimed_at_label`.
        """
        return self.present & self.wanted(self.predicted)

    @property
    def aimed_at_label(self) -> Mask:
        """Which images are aimed at their true class, shape (N,); they are never counted."""
        return np.zeros(len(self.label), bool) if self.aim is None else self.aim == self.label

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols whose clean rows are there."""
        of_source, of_targets = self.source_clean is not None, self.target_clean is not None
        known = (True, of_source, of_targets, of_source and of_targets)
        return tuple(protocol for protocol, there in zip(PROTOCOLS, known, strict=True) if there)

    def wanted(self, predicted: NDArray[np.int64]) -> Mask:
        """Say of predictions, shape (T, N, K), whether they are what the attack wants."""
        if self.aim is None:
            return predicted != self.label[:, None]
        return (predicted == self.aim[:, None]) & ~self.aimed_at_label[:, None]


def outcomes(
    predictions: pd.DataFrame, source: str, targets: Sequence[str], protocol: str
) -> Outcomes:
    """Lay the rows of some targets out by target, image and budget.

    Args:
        predictions: One row per (index, target, eps_255); clean images have eps_255 = 0. The
            clean rows may lack where the protocol needs none.
        source: Model that the adversarial images were made on.
        targets: Models that the images were shown to.
        protocol: Which images form the denominator, one of `PROTOCOLS`.

    Raises:
        ValueError: For an unknown protocol, a missing column, a target or needed clean rows that
            are not in the table, two rows for one image, target and budget, or classes aimed for
            that do not fit (see `target_labels`).
    """
    check_predictions(predictions, targets)
    mine = predictions["target"].isin(list(targets)).to_numpy()
    index = np.unique(predictions["index"].to_numpy()[mine])
    eps = np.union1d([0.0], predictions["eps_255"].to_numpy(np.float64)[mine])
    row = answer_rows(predictions, targets, index, eps)
    present = row >= 0
    any_row = row.max(axis=(0, 2))  # of each image: they have the same label
    label = predictions["label"].to_numpy()[any_row]
    predicted = predictions["predicted"].to_numpy()[row]
    of_source = answer_rows(predictions, [source], index, [0.0])[0, :, 0]
    source_right = predictions["predicted"].to_numpy()[of_source] == label
    aims = target_labels(predictions)
    confidence, true_confidence = (
        np.where(present, predictions[column].to_numpy(np.float64)[row], np.nan)
        for column in ("confidence", "true_confidence")
    )
    shown: Mask = np.any(present, axis=2)
    found = Outcomes(
        source=source,
        targets=list(targets),
        index=index,
        label=label,
        aim=None if aims is None else aims.loc[index.tolist()].to_numpy(),
        eps_255=eps,
        row=row,
        predicted=predicted,
        confidence=confidence,
        true_confidence=true_confidence,
        source_clean=source_right if (of_source >= 0).all() else None,
        target_clean=present[:, :, 0] & (predicted[:, :, 0] == label)
        if (present[:, :, 0] | ~shown).all()
        else None,
        counted=shown,
    )
    return under(found, protocol)


def under(found: Outcomes, protocol: str) -> Outcomes:
    """Return the same outcomes with the denominator of a protocol.

    Raises:
        ValueError: The protocol is unknown, or the table lacks the clean rows that it needs.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol '{protocol}' is unknown; choose one of {', '.join(PROTOCOLS)}.")
    counted = found.present.any(axis=2) & ~found.aimed_at_label
    if protocol in ("target_correct", "joint"):
        if found.target_clean is None:
            target, image = np.argwhere(found.present.any(axis=2) & ~found.present[:, :, 0])[0]
            raise ValueError(
                f"the table lacks the clean prediction (eps_255 = 0) of target "
                f"'{found.targets[target]}' for image {found.index[image]}."
            )
        counted &= found.target_clean
    if protocol in ("source_correct", "joint"):
        if found.source_clean is None:
            raise ValueError(
                f"protocol '{protocol}' needs clean predictions (eps_255 = 0) of the source "
                f"'{found.source}' for every image, and the table lacks them."
            )
        counted &= found.source_clean
    return replace(found, counted=counted)


def initially_correct(found: Outcomes) -> Mask:
    """Return which counted images their target classifies correctly when clean, shape (T, N).

    Raises:
        ValueError: The table lacks clean rows of a target.
    """
    return found.counted & under(found, "target_correct").counted


def at_budget(predictions: pd.DataFrame, eps_255: float) -> pd.DataFrame:
    """Return the rows of one budget above 0, and the clean ones.

    Raises:
        ValueError: The table has no such budget.
    """
    eps = predictions["eps_255"].to_numpy(np.float64)
    here = np.isclose(eps, eps_255) & (eps != 0)
    if not here.any():
        tried = ", ".join(f"{one:g}" for one in np.unique(eps[eps != 0]))
        raise ValueError(
            f"there are no predictions at eps_255 = {eps_255:g}; the budgets are {tried or 'none'}."
        )
    return predictions[here | (eps == 0)]


def usable_protocols(predictions: pd.DataFrame, source: str) -> tuple[str, ...]:
    """Return the protocols for which a table holds the clean rows, in the order of `PROTOCOLS`.

    Args:
        predictions: A predictions table.
        source: Model that the adversarial images were made on.
    """
    targets = list(predictions.loc[predictions["eps_255"] != 0, "target"].unique())
    return outcomes(predictions, source, targets, "all").protocols if targets else PROTOCOLS


def target_labels(predictions: pd.DataFrame) -> pd.Series | None:
    """Return the class that a targeted attack aims for, by image index.

    Args:
        predictions: A predictions table. The column `target_label` may be missing.

    Returns:
        int64 series by `index`; None if the attack is untargeted, so that the column is missing
        or null on every attacked row (eps_255 > 0). Clean rows are not looked at.

    Raises:
        ValueError: Some attacked rows have a class and some have none, or an image has two.
    """
    if "target_label" not in predictions.columns:
        return None
    attacked = predictions.loc[predictions["eps_255"] != 0, ["index", "target_label"]]
    if not attacked["target_label"].notna().any():
        return None
    pairs = attacked.drop_duplicates().set_index("index")["target_label"]
    if not pairs.index.is_unique or pairs.isna().any():
        raise ValueError("attacked rows of one image differ in their target_label, or lack it.")
    return pairs.astype("int64")


def answer_rows(
    table: pd.DataFrame, targets: Sequence[str], index: ArrayLike, eps_255: ArrayLike
) -> NDArray[np.intp]:
    """Return where in a table the rows of targets, images and budgets are.

    Args:
        table: Has `target`, `index` and `eps_255`; rows of others are passed over.
        targets: T names.
        index: N images.
        eps_255: K budgets.

    Returns:
        Positions, shape (T, N, K); -1 where the table has no such row.

    Raises:
        ValueError: Two rows are of one target, image and budget.
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
    if np.count_nonzero(rows >= 0) < len(known):
        raise ValueError("the table repeats an image, target and budget.")
    return rows


def check_predictions(predictions: pd.DataFrame, targets: Sequence[str]) -> None:
    """Refuse a table that cannot be that of a job with these targets.

    Raises:
        ValueError: A column or a target is missing, or there is no target.
    """
    missing = [column for column in _COLUMNS if column not in predictions.columns]
    if missing:
        raise ValueError(f"the predictions table lacks the columns {', '.join(missing)}.")
    if not targets:
        raise ValueError("targets is empty; name at least one model.")
    present = list(predictions["target"].unique())
    absent = [target for target in targets if target not in present]
    if absent:
        raise ValueError(
            f"no predictions of the targets {', '.join(absent)}; "
            f"the table holds {', '.join(map(str, present)) or 'none'}."
        )
