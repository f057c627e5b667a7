"""Outcomes per image: of one job at all budgets, and of several jobs at one budget."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..utils.model_names import ABSTAINED, NO_DEFENCE, TARGET_COLUMNS, ModelRef, behind_each
from ..utils.refusals import choose
from ..utils.vocabulary import Protocol

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class JobOutcomes:
    """Predictions of T targets for N images at K budgets, as arrays of shape (T, N, K).

    Attributes:
        index: Numbers of the images in the data set, increasing, shape (N,).
        label: True classes, shape (N,).
        target_labels: Target labels, shape (N,), -1 for images that were not attacked; None for
            untargeted attacks.
        eps_255: Budgets, increasing, shape (K,); the first is 0, the clean image.
        present: True where the table has a row and the target does not abstain.
        abstained: True where the target abstains.
        draws_correct: Share of the draws from a randomised defence that predict the true class; 1
            or 0 for other targets.
        predicted: Predicted class; meaningless where there is no row.
        confidence, true_confidence: Probability of the predicted and of the true class; NaN where
            there is no row.
        source_predicted: Class that the source predicts, shape (N, K); `ABSTAINED` also where the
            table has no row.
        source_clean: Whether the source classifies the clean image correctly, shape (N,); None if
            its clean rows do not cover every image.
        target_clean: Whether the target classifies the clean image correctly, shape (T, N).
        counted: Whether the image belongs to the denominator, shape (T, N).
        networks: The network that a model is a training of, by model; see `same_network`.
    """

    source: ModelRef
    targets: list[ModelRef]
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
    source_predicted: NDArray[np.int64]
    source_clean: Mask | None
    target_clean: Mask
    counted: Mask
    networks: Mapping[str, str] = field(default_factory=dict)

    @property
    def denominator(self) -> Mask:
        """Mask of the predictions that count, shape (T, N, K)."""
        return self.present & self.counted[:, :, None]

    @property
    def correct(self) -> Mask:
        """Mask of the correct predictions, shape (T, N, K)."""
        return self.present & (self.predicted == self.label[:, None])

    @property
    def success(self) -> Mask:
        """Mask of the predictions for which the attack succeeds, shape (T, N, K)."""
        return self.present & self.is_success(self.predicted)

    @property
    def source_fooled(self) -> Mask:
        """Mask of the source's predictions for which the attack succeeds, shape (N, K)."""
        return (self.source_predicted != ABSTAINED) & self.is_success(self.source_predicted)

    @property
    def aimed_at_label(self) -> Mask:
        """Mask (N,) of images without a target label other than the true class; never counted."""
        if self.target_labels is None:
            return np.zeros(len(self.label), bool)
        return (self.target_labels == self.label) | (self.target_labels < 0)

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols whose clean rows the table has; `common` only if there are defences."""
        if self.source_clean is None:
            return ("all", "target_correct")
        defended = any(target.is_defended for target in self.targets)
        return PROTOCOLS if defended else PROTOCOLS[:-1]

    def is_success(self, predicted: NDArray[np.int64]) -> Mask:
        """Return the mask of successes among predictions (..., N, K), without `aimed_at_label`."""
        if self.target_labels is None:
            return predicted != self.label[:, None]
        return (predicted == self.target_labels[:, None]) & ~self.aimed_at_label[:, None]


@dataclass(frozen=True)
class Outcomes:
    """Outcomes for J jobs (attack and source), T targets and N images at one budget.

    Attributes:
        jobs: Attack and source of each job; the seeds of a job have equal entries.
        index: Numbers of the images in the data set, increasing, shape (N,).
        targeted: Whether the attacks have target labels, shape (J,).
        evaluated: Whether a job was evaluated on a target, shape (J, T).
        counted: Whether an image is in the denominator, shape (J, T, N).
        fooled: Whether the attack succeeds on a counted image, shape (J, T, N).
        correct: Whether a counted image is classified correctly, shape (J, T, N).
        networks: The network that a model is a training of, by model; see `same_network`.
    """

    jobs: list[tuple[str, str]]
    targets: list[ModelRef]
    index: NDArray[np.int64]
    targeted: Mask
    evaluated: Mask
    counted: Mask
    fooled: Mask
    correct: Mask
    networks: Mapping[str, str] = field(default_factory=dict, kw_only=True)

    @cached_property
    def sources(self) -> list[ModelRef]:
        """The source of each job."""
        return [ModelRef.parse(source) for _, source in self.jobs]

    @cached_property
    def transfers(self) -> Mask:
        """Mask of the evaluated pairs of two different networks, shape (J, T)."""
        pairs = product(self.sources, self.targets)
        same = [same_network(*pair, self.networks) for pair in pairs]
        return self.evaluated & ~np.array(same, bool).reshape(self.evaluated.shape)

    def counted_for_all(self, jobs: Sequence[int], targets: Sequence[int]) -> Mask:
        """Return whether targets count an image for all jobs evaluated on them, shape (T, N)."""
        both = np.ix_(jobs, targets)
        counted: Mask = np.all(self.counted[both] | ~self.evaluated[both][..., None], axis=0)
        return counted

    def pairs(self, jobs: Iterable[int], targets: Sequence[int]) -> list[tuple[int, int]]:
        """Return the positions of jobs and targets in `transfers`."""
        return [(job, target) for job in jobs for target in targets if self.transfers[job, target]]

    def select(self, **where: str) -> "Outcomes":
        """Return the outcomes for one `source`, `target` or `defence`, given by name."""
        jobs = [at for at, (_, name) in enumerate(self.jobs) if where.get("source", name) == name]
        targets = [
            at
            for at, (target, defence) in enumerate(pair.columns for pair in self.targets)
            if where.get("target", target) == target and where.get("defence", defence) == defence
        ]
        both = np.ix_(jobs, targets)
        return Outcomes(
            [self.jobs[at] for at in jobs],
            [self.targets[at] for at in targets],
            self.index,
            self.targeted[jobs],
            *(array[both] for array in (self.evaluated, self.counted, self.fooled, self.correct)),
            networks=self.networks,
        )

    def on_images(self, index: NDArray[np.int64]) -> "Outcomes":
        """Return the outcomes on some of the images."""
        chosen = np.isin(self.index, index)
        counted, fooled, correct = (
            mask[..., chosen] for mask in (self.counted, self.fooled, self.correct)
        )
        return replace(
            self, index=self.index[chosen], counted=counted, fooled=fooled, correct=correct
        )

    def scores(self, seeds: Sequence[int], target: int) -> Values:
        """Return each image's mean success over the seeds of a job on a target, shape (N,).

        NaN where some seed does not count the image.
        """
        counted = self.counted[seeds, target].all(axis=0)
        return np.where(counted, self.fooled[seeds, target].mean(axis=0), np.nan)


def same_network(source: ModelRef, target: ModelRef, networks: Mapping[str, str]) -> bool:
    """Return True if a target is, or is another training of, a source or a member of it."""
    members = [network_of(name, networks) for name in source.members]
    return source.includes(target) or network_of(target.model, networks) in members


def network_of(name: str, networks: Mapping[str, str]) -> str:
    """Return the network of a model, by its name.

    A model that `networks` lacks has the name of its network, or ends in `_seedN` after it.
    """
    return networks.get(name, ModelRef((name,)).architecture)


def outcomes_by_budget(outcome: JobOutcomes, attack: str) -> dict[float, Outcomes]:
    """Return a job's outcomes by budget, from 0 on; `attack` is its name among other jobs."""
    evaluated: Mask = np.any(outcome.present | outcome.abstained, axis=1)
    counted = outcome.denominator
    masks = [
        np.ascontiguousarray(np.moveaxis(mask, -1, 0))[:, None]
        for mask in (counted, counted & outcome.success, counted & outcome.correct)
    ]
    return {
        float(eps): Outcomes(
            [(attack, str(outcome.source))],
            outcome.targets,
            outcome.index,
            np.array([outcome.target_labels is not None]),
            evaluated[None, :, at],
            *(mask[at] for mask in masks),
            networks=outcome.networks,
        )
        for at, eps in enumerate(outcome.eps_255)
    }


def outcomes_of(
    predictions: pd.DataFrame,
    attack: str,
    source: str,
    targets: Sequence[str],
    protocol: str,
    eps_255: float,
    networks: Mapping[str, str] | None = None,
) -> Outcomes:
    """Return one job's outcomes at a budget above 0; other arguments are as for `rates`.

    Raises:
        ValueError: As `rates`; or the table has no row with this budget.
    """
    rows = at_budget(predictions, eps_255)
    outcome = job_outcomes(rows, source, evaluated_pairs(rows, targets), protocol, networks)
    return outcomes_by_budget(outcome, attack)[eps_255]


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Combine the outcomes of several jobs at one budget."""
    index = np.unique(
        np.concatenate([*{part.index.tobytes(): part.index for part in parts}.values()])
    )
    targets = list(dict.fromkeys(name for part in parts for name in part.targets))
    jobs = [job for part in parts for job in part.jobs]
    evaluated = np.zeros((len(jobs), len(targets)), bool)
    counted, fooled, correct = np.zeros((3, *evaluated.shape, len(index)), bool)
    first = 0
    for part in parts:
        rows = first + np.arange(len(part.jobs))
        places = np.array([targets.index(name) for name in part.targets], np.intp)
        images = np.searchsorted(index, part.index)
        evaluated[np.ix_(rows, places)] = part.evaluated
        block = np.ix_(rows, places, images)
        counted[block], fooled[block], correct[block] = part.counted, part.fooled, part.correct
        first += len(rows)
    targeted = np.concatenate([part.targeted for part in parts])
    networks = {name: network for part in parts for name, network in part.networks.items()}
    return Outcomes(
        jobs, targets, index, targeted, evaluated, counted, fooled, correct, networks=networks
    )


def ratio(numerator: NDArray[np.generic], denominator: NDArray[np.int64] | Values) -> Values:
    """Divide, with NaN and no warning where the denominator is 0."""
    top = numerator.astype(np.float64)
    any_counted = np.broadcast_to(denominator > 0, top.shape)
    return np.divide(top, denominator, out=np.full_like(top, np.nan), where=any_counted)


def job_outcomes(
    predictions: pd.DataFrame,
    source: str,
    targets: Sequence[ModelRef],
    protocol: str,
    networks: Mapping[str, str] | None = None,
) -> JobOutcomes:
    """Arrange predictions by target, image and budget; other arguments are as for `rates`.

    Raises:
        ValueError: There is no such protocol or target; the table has several rows for an image,
            target and budget; or it lacks clean rows for a target, or for the source if the
            protocol needs them.
    """
    choose("protocol", protocol, PROTOCOLS)
    pairs, code = _coded_pairs(predictions)
    for target in list[object](targets) or ["(none)"]:
        choose("target", target, pairs)
    place = _places_of(pairs, code, targets)
    is_present = place >= 0
    index = np.unique(predictions["index"].to_numpy()[is_present])
    eps = np.union1d([0.0], predictions["eps_255"].to_numpy(np.float64)[is_present])
    row = _rows_at(predictions, place, len(targets), index, eps)
    present = row >= 0
    any_row = row.max(axis=(0, 2))  # any row of an image will do: all have its label
    label = predictions["label"].to_numpy()[any_row]
    predicted = predictions["predicted"].to_numpy()[row]
    abstained = present & (predicted == ABSTAINED)
    model = ModelRef.parse(source)
    its_place = _places_of(pairs, code, [model])
    of_source = _rows_at(predictions, its_place, 1, index, eps)[0]
    by_source = np.where(of_source >= 0, predictions["predicted"].to_numpy()[of_source], ABSTAINED)
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
    outcome = JobOutcomes(
        source=model,
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
        source_predicted=by_source,
        source_clean=by_source[:, 0] == label if (of_source[:, 0] >= 0).all() else None,
        target_clean=present[:, :, 0] & (predicted[:, :, 0] == label),
        counted=evaluated,
        networks=networks or {},
    )
    return under(outcome, protocol)


def with_defence(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a column `defence`, adding `none` if it has no such column."""
    return table if "defence" in table else table.assign(defence=NO_DEFENCE)


def evaluated_pairs(predictions: pd.DataFrame, targets: Sequence[str]) -> list[ModelRef]:
    """Return the targets without a defence, then behind each defence they were evaluated behind."""
    pairs, code = _coded_pairs(predictions)
    for target in list[object](targets) or ["(none)"]:
        choose("target", target, {pair.model: None for pair in pairs})
    # A source attacked behind a defence has clean rows behind it; they are not an evaluation.
    attacked = np.bincount(code[predictions["eps_255"].to_numpy() > 0], minlength=len(pairs)) > 0
    evaluated = {
        pair: None for pair, hit in zip(pairs, attacked, strict=True) if hit or not pair.is_defended
    }
    all_pairs = behind_each(targets, (pair.defence for pair in evaluated))
    return [pair for pair in all_pairs if pair in evaluated]


def _coded_pairs(table: pd.DataFrame) -> tuple[list[ModelRef], NDArray[np.intp]]:
    """Return the targets of a table in their order, and each row's place among them."""
    coded = [pd.factorize(with_defence(table)[name]) for name in TARGET_COLUMNS]
    (models, model_names), (defences, defence_names) = coded
    code, pairs_there = pd.factorize(models * len(defence_names) + defences)
    names = (divmod(int(pair), len(defence_names)) for pair in pairs_there)
    return [ModelRef.parse(model_names[one], defence_names[other]) for one, other in names], code


def _share_correct(
    predictions: pd.DataFrame, row: NDArray[np.intp], present: Mask
) -> NDArray[np.float64]:
    correct = (predictions["predicted"] == predictions["label"]).astype("float64")
    if "draws_correct" in predictions:
        correct = (predictions["draws_correct"] / predictions["draws"]).fillna(correct)
    return np.where(present, correct.to_numpy()[row], 0.0)


def under(outcome: JobOutcomes, protocol: str) -> JobOutcomes:
    """Return the outcomes with the denominator of a protocol; its clean rows are required."""
    counted = (outcome.present | outcome.abstained).any(axis=2) & ~outcome.aimed_at_label
    if protocol in ("target_correct", "joint", "common"):
        counted &= outcome.target_clean
    if protocol == "common":
        models = np.array([target.model for target in outcome.targets])
        for model in np.unique(models):
            counted[models == model] = counted[models == model].all(axis=0)
    if protocol in ("source_correct", "joint", "common"):
        if outcome.source_clean is None:
            raise ValueError(
                f"protocol '{protocol}' needs clean predictions (eps_255 = 0) of the source "
                f"'{outcome.source}' for every image, but the table lacks some."
            )
        counted &= outcome.source_clean
    return replace(outcome, counted=counted)


def at_budget(predictions: pd.DataFrame, eps_255: float) -> pd.DataFrame:
    """Return the clean rows and the rows of one budget above 0; raise if it has no row."""
    if not (predictions["eps_255"] == eps_255).any():
        raise ValueError(f"the table has no row with eps_255 = {eps_255:g}.")
    return predictions[predictions["eps_255"].isin([0.0, eps_255])]


def target_labels(predictions: pd.DataFrame) -> pd.Series | None:
    """Return target labels by image index (-1: none), or None if no attacked row has one."""
    if "target_label" not in predictions or predictions["target_label"].isna().all():
        return None
    attacked = predictions.loc[predictions["eps_255"] != 0, ["index", "target_label"]]
    if attacked["target_label"].isna().all():
        return None
    labels = attacked.drop_duplicates("index").set_index("index")["target_label"]
    return labels.fillna(-1).astype("int64")


def row_positions(
    table: pd.DataFrame, targets: Sequence[ModelRef], index: ArrayLike, eps_255: ArrayLike
) -> NDArray[np.intp]:
    """Return the table row of each target, image and budget, shape (T, N, K); -1 for none.

    Raises:
        ValueError: The table has several rows for one target, image and budget.
    """
    place = _places_of(*_coded_pairs(table), targets)
    return _rows_at(table, place, len(targets), index, eps_255)


def _rows_at(
    table: pd.DataFrame,
    place: NDArray[np.intp],
    targets: int,
    index: ArrayLike,
    eps_255: ArrayLike,
) -> NDArray[np.intp]:
    """Return `row_positions` from the place of each row's target."""
    axes = (pd.Index(np.asarray(index)), pd.Index(np.asarray(eps_255)))
    places = (
        place,
        axes[0].get_indexer(pd.Index(table["index"])),
        axes[1].get_indexer(pd.Index(table["eps_255"])),
    )
    complete = np.flatnonzero(np.logical_and.reduce([axis >= 0 for axis in places]))
    rows = np.full([targets, *map(len, axes)], -1)
    rows[tuple(axis[complete] for axis in places)] = complete
    if len(complete) > np.count_nonzero(rows >= 0):
        raise ValueError(
            "the table has several rows for one image, target and budget; select one attack, "
            "source and variant."
        )
    return rows


def _places_of(
    pairs: Sequence[ModelRef], code: NDArray[np.intp], targets: Sequence[ModelRef]
) -> NDArray[np.intp]:
    """Return the position in `targets` of each row, -1 for none; see `_coded_pairs`."""
    order = {target: place for place, target in enumerate(targets)}
    return np.array([order.get(pair, -1) for pair in pairs], np.intp)[code]
