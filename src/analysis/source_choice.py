"""Choice of a source for an unseen target, and measures that predict transfer between models."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.outcomes import Mask
from src.analysis.transfer_rates import ratio
from src.config.fields import of_epoch
from src.utils.defended_names import PLAIN

FEWEST_MODELS = 4
"""Fewest targets for leaving one out."""
FEWEST_SOURCES = 6
"""Fewest sources for testing correlations by permutation of models."""
_DRAWS, _BOOTSTRAP = 999, 200
_NUMBERS = ["success", "most", "any", "best_2", "best_3"]

Values = NDArray[np.float64]
Related = Callable[[str, str], bool]
"""Function that returns True for the same model, and for shared weights, architecture or family."""


@dataclass(frozen=True)
class Transfer:
    """Success of A attacks from S sources on T targets for N images.

    Attributes:
        scores: Success in [0, 1], averaged over seeds, shape (A, S, T, N); NaN for white boxes and
            where an image is not counted.
        own: Success rate on the source itself, averaged over attacks, shape (S,); NaN if the source
            is not a target.
    """

    sources: Sequence[str]
    targets: Sequence[str]
    attacks: Sequence[str]
    scores: Values
    own: Values

    @property
    def rates(self) -> Values:
        """Success rates averaged over attacks, shape (S, T); NaN if no image is counted."""
        return _weighted_rates(self.scores, np.ones((1, self.scores.shape[-1])))[0]

    @property
    def single(self) -> "Transfer":
        """The transfer from single sources, without ensembles."""
        places = [place for place, name in enumerate(self.sources) if "+" not in name]
        names = [self.sources[place] for place in places]
        return replace(self, sources=names, scores=self.scores[:, places], own=self.own[places])

    def of_images(self, places: Any) -> "Transfer":
        """Return the transfer for the images at these positions."""
        return replace(self, scores=self.scores[..., places])


def transfer_of(outcomes: ImageOutcomes) -> Transfer:
    """Extract the transfer of untargeted attacks between sources and targets without a defence.

    Attacks that some single source lacks are left out, then ensembles that lack an attack.

    Raises:
        ValueError: No attack is left.
    """
    plain = outcomes.select(defence=PLAIN)
    kinds = ("untargeted", "untargeted of ensembles")
    ran = {job: name for job, name in enumerate(plain.jobs) if plain.kind(job) in kinds}
    there = list(dict.fromkeys(source for _, source in ran.values()))
    single = [source for source in there if "+" not in source]
    attacks = [
        attack
        for attack in dict.fromkeys(attack for attack, _ in ran.values())
        if all((attack, source) in ran.values() for source in single)
    ]
    if not attacks or not single:
        raise ValueError("no attack was run from every source; add the missing jobs.")
    pairs = {source: {(attack, source) for attack in attacks} for source in there}
    sources = [source for source in there if pairs[source] <= {*ran.values()}]
    targets = [target.target for target in plain.targets]
    scores = np.full((len(attacks), len(sources), len(targets), len(plain.index)), np.nan)
    white_box = np.full(scores.shape[:2], np.nan)
    for at in np.ndindex(scores.shape[:3]):
        names = (attacks[at[0]], sources[at[1]])
        mine = [job for job, name in ran.items() if name == names]
        scores[at] = plain.scores(plain.cells(mine, [at[2]]))
        if targets[at[2]] == names[1]:
            white = plain.scores((job, at[2]) for job in mine)
            white_box[at[:2]] = (
                white[~np.isnan(white)].mean() if np.isfinite(white).any() else np.nan
            )
    return Transfer(sources, targets, attacks, scores, white_box.mean(axis=0))


def advantages(rates: Values) -> Values:
    """Compute how much better each source is than the mean source, shape (S,).

    Each source lacks different targets, at least itself. Success is therefore modelled as the sum
    of a source effect and a target effect, fitted by least squares to the cells (S, T) that are not
    NaN.
    """
    sources, targets = rates.shape
    place = np.argwhere(~np.isnan(rates))
    design = np.zeros((len(place), sources + targets))
    rows = np.arange(len(place))
    design[rows, place[:, 0]] = design[rows, sources + place[:, 1]] = 1
    effects = np.linalg.lstsq(design, rates[tuple(place.T)], rcond=None)[0][:sources]
    effects[~np.isfinite(rates).any(axis=1)] = np.nan
    centred: Values = effects - np.nanmean(effects)
    return centred


def profiles(transfer: Transfer, related: Related) -> pd.DataFrame:
    """Rank the sources by their success on models that are not related to them, best first.

    Returns:
        One row per source: `success`, the mean rate plus the source's effect (see `advantages`);
        `own`, its success on itself; and for a saved epoch of a training, the `model` and the
        `epoch` (NaN: not an epoch).
    """
    barred = np.array([[related(a, b) for b in transfer.targets] for a in transfer.sources])
    rates = np.where(barred, np.nan, transfer.rates)
    known = np.isfinite(rates).any()
    rows = pd.DataFrame({"source": transfer.sources, "own": transfer.own})
    rows["success"] = advantages(rates) + np.nanmean(rates) if known else np.nan
    rows[["model", "epoch"]] = [*map(of_epoch, transfer.sources)]
    rows["epoch"] = rows["epoch"].astype(np.float64)
    return rows.sort_values("success", ascending=False, kind="stable", ignore_index=True)


def transfer_similarity(transfer: Transfer) -> pd.DataFrame:
    """Compute the similarity of models from the transfer between them, similar models adjacent.

    The similarity is ln(100 s), where s is the mean success in both directions, at least 0.0001.
    The models are in leaf order of average linkage; the diagonal is NaN.

    Returns:
        A frame (models, models) of the models that are both source and target.

    Reference:
        Hwang et al. (2022), Similarity of Neural Architectures Based on Input Gradient
        Transferability, arXiv 2210.11407; there on images that both classify correctly.
    """
    names = [name for name in transfer.sources if name in transfer.targets]
    sides = transfer.sources, transfer.targets
    places = np.ix_(*([its.index(name) for name in names] for its in sides))
    both = (transfer.rates[places] + transfer.rates[places].T) / 2
    similarity = pd.DataFrame(np.log(100 * np.maximum(both, 1e-4)), names, names)
    if len(names) < 3 or np.isnan(both).sum() > len(names):
        return similarity
    distance = np.nanmax(similarity.to_numpy()) - similarity.to_numpy()
    np.fill_diagonal(distance, 0)
    condensed = squareform(distance)
    order = leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))
    return similarity.iloc[order, order]


def choices(transfer: Transfer, related: Related, seed: int = 0) -> pd.DataFrame:
    """Choose a source for each target by its success on the other targets, as if unseen.

    Targets and sources related to the target are left out. Two or three sources are combined on the
    images that all of them count: an image is fooled if one source succeeds.

    Returns:
        One row per target, and a last row `mean` with means and 95 % intervals over targets and
        images (`NAME_low`, `NAME_high`; percentiles from a bootstrap of both):

        - `chosen`: the chosen source, and `success`, its success on the target;
        - `best`: the best source in hindsight, and `most`, its success;
        - `any`: success of a source chosen at random, the mean over the candidates;
        - `best_2`, `best_3`: success with the two or three best sources;
        - `candidates`: the number of candidate sources.
    """
    if len(transfer.targets) < FEWEST_MODELS:
        raise ValueError(
            f"choosing a source needs at least {FEWEST_MODELS} targets, and the sweep has "
            f"{len(transfer.targets)}: add some with targets=[...]."
        )
    apart = np.array([[related(a, b) for b in transfer.targets] for a in transfer.targets])
    barred = np.array([[related(a, b) for b in transfer.targets] for a in transfer.sources])
    random, count = np.random.default_rng(seed), transfer.scores.shape[-1]
    drawn_images = random.multinomial(count, np.full(count, 1 / count), size=_BOOTSTRAP)
    weights = np.vstack([np.ones(count), drawn_images])
    draws = np.where(barred, np.nan, _weighted_rates(transfer.scores, weights))
    rows = pd.DataFrame(_choose(transfer, draws[0], weights[0], apart, range(len(apart))))
    if rows.empty:
        raise ValueError("every source is related to every target; add unrelated models.")
    drawn = []
    for rates, its in zip(draws[1:], weights[1:], strict=True):
        targets = random.integers(len(apart), size=len(apart))
        if sample := _choose(transfer, rates, its, apart, targets):
            drawn.append(pd.DataFrame(sample)[_NUMBERS].mean())
    ends = np.nanpercentile(np.array(drawn), [2.5, 97.5], axis=0)
    last = {"target": "mean", **rows[_NUMBERS].mean()}
    for end, values in zip(("low", "high"), ends, strict=True):
        last |= {f"{name}_{end}": value for name, value in zip(_NUMBERS, values, strict=True)}
    return pd.concat([rows, pd.DataFrame([last])], ignore_index=True)


def _weighted_rates(scores: Values, weights: Values) -> Values:
    """Compute success rates, shape (B, S, T), from scores and image weights, shape (B, N)."""
    counted = ~np.isnan(scores)
    sums = np.where(counted, scores, 0) @ weights.T
    rates: Values = ratio(sums, counted.astype(np.float64) @ weights.T).mean(axis=0)
    return np.moveaxis(rates, -1, 0)


def _choose(
    transfer: Transfer, rates: Values, weights: Values, apart: Mask, targets: Iterable[int]
) -> list[dict[str, Any]]:
    """Compute the rows of `choices` for these targets, from rates without related pairs."""
    rows = []
    for target in targets:
        able = np.isfinite(rates[:, target])
        seen = rates[np.ix_(able, ~apart[target])]
        if able.sum() < 2 or np.isnan(seen).all(axis=1).any():
            continue
        order = np.flatnonzero(able)[np.argsort(-advantages(seen), kind="stable")]
        mine = rates[order, target]
        best = int(np.argmax(mine))
        row = {"target": transfer.targets[target], "candidates": len(order)}
        row |= {"chosen": transfer.sources[order[0]], "success": mine[0]}
        row |= {"best": transfer.sources[order[best]], "most": mine[best], "any": mine.mean()}
        for count in (2, 3):
            tried = transfer.scores[:, order[:count], target].max(axis=1)
            share = ratio(np.nansum(tried * weights), (~np.isnan(tried) * weights).sum())
            row[f"best_{count}"] = float(share)
        rows.append(row)
    return rows


def clean_measures(correct: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Compute measures of model pairs from clean predictions, as frames (models, models).

    - `information`: mutual information of being correct, in bits (arXiv 2304.02312);
    - `kappa`: Cohen's kappa of being correct (Geirhos et al., NeurIPS 2020);
    - `source accuracy` and `target accuracy`, the trivial measures: accuracy of row and column.

    Args:
        correct: Whether each model (column) is correct on each image (row).
    """
    right = correct.to_numpy(np.float64)
    both = right.T @ right / len(right)
    p = right.mean(axis=0)
    cells = {
        (1, 1): both,
        (1, 0): p[:, None] - both,
        (0, 1): p[None, :] - both,
        (0, 0): 1 - p[:, None] - p[None, :] + both,
    }
    information = np.zeros_like(both)
    for (first, second), joint in cells.items():
        expected = np.outer(p if first else 1 - p, p if second else 1 - p)
        share = np.divide(joint, expected, out=np.ones_like(joint), where=joint > 1e-12)
        information += np.where(joint > 1e-12, joint * np.log2(np.maximum(share, 1e-12)), 0)
    agree = both + cells[0, 0]
    chance = np.outer(p, p) + np.outer(1 - p, 1 - p)
    kappa = np.divide(agree - chance, 1 - chance, out=np.full_like(both, np.nan), where=chance < 1)
    accuracy = np.tile(p[:, None], (1, len(p)))
    measures = {"information": information, "kappa": kappa}
    measures |= {"source accuracy": accuracy, "target accuracy": accuracy.T}
    names = correct.columns
    return {name: pd.DataFrame(value, names, names) for name, value in measures.items()}


def predictors(
    transfer: Transfer,
    measure: Callable[[list[int]], Mapping[str, pd.DataFrame]],
    related: Related,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate measures of model pairs with the transfer between them, on different images.

    The measure is computed on the images at odd positions and the transfer on the images at even
    positions, then the other way round. Related pairs are left out.

    Args:
        transfer: The transfer to predict.
        measure: Function from image positions to measures by name, each a frame (models, models).
        related: Whether two models are related.
        seed: Seed for the permutations.

    Returns:
        One row per measure: the number of `pairs`; `rho`, Spearman's rank correlation, averaged
        over both halves; `added`, the correlation of the ranks after removing the trivial measures;
        and `p`, the share of 999 permutations of the models whose `rho` is at least as far from 0
        (NaN below `FEWEST_SOURCES` sources).
    """
    random, sources, targets = np.random.default_rng(seed), [*transfer.sources], [*transfer.targets]
    used = np.array([[not related(a, b) for b in transfer.targets] for a in transfer.sources])
    positions = np.arange(transfer.scores.shape[-1])
    halves = []
    for odd in (1, 0):
        rates = transfer.of_images(positions[1 - odd :: 2]).rates
        frames = measure(positions[odd::2].tolist())
        measures = {
            name: frame.reindex(sources, columns=targets).to_numpy(np.float64)
            for name, frame in frames.items()
        }
        halves.append((np.where(used, rates, np.nan), measures))
    orders = [_permuted(transfer, random) for _ in range(_DRAWS)]
    rows = []
    for name in halves[0][1]:
        rho = np.mean([_rank_correlations(measures[name], rates)[0] for rates, measures in halves])
        added = np.mean([_beyond_trivial(measures, name, rates) for rates, measures in halves])
        p = np.nan
        if len(transfer.sources) >= FEWEST_SOURCES:
            drawn = np.mean(
                [
                    _rank_correlations(np.stack([measures[name][o] for o in orders]), rates)
                    for rates, measures in halves
                ],
                axis=0,
            )
            p = (1 + np.sum(np.abs(drawn) >= abs(rho) - 1e-12)) / (1 + _DRAWS)
        pairs = int(np.isfinite(halves[0][0]).sum())
        rows.append({"measure": name, "pairs": pairs, "rho": rho, "added": added, "p": p})
    return pd.DataFrame(rows)


def _permuted(transfer: Transfer, random: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """Return an index that permutes the models of the cells.

    Models that are both source and target are permuted only among themselves.
    """
    both = [name for name in transfer.sources if name in transfer.targets]
    renamed = dict(zip(both, random.permutation(both).tolist(), strict=True))
    places = []
    for names in (transfer.sources, transfer.targets):
        alone = [name for name in names if name not in renamed]
        mine = renamed | dict(zip(alone, random.permutation(alone).tolist(), strict=True))
        places.append([list(names).index(mine[name]) for name in names])
    return np.ix_(*places)


def _rank_correlations(measures: Values, rates: Values) -> NDArray[np.float64]:
    """Compute Spearman's correlation of each measure with the rates, over the cells that both have.

    Args:
        measures: Measures of shape (..., sources, targets).
        rates: Success rates of shape (sources, targets).

    Returns:
        Correlations of shape (measures,); NaN with fewer than three cells or a constant.
    """
    flat = measures.reshape(-1, rates.size)
    there = np.isfinite(flat) & np.isfinite(rates.ravel())
    ranks = [
        rankdata(np.where(there, values, np.nan), axis=1, nan_policy="omit")
        for values in (flat, rates.ravel())
    ]
    count = there.sum(axis=1, keepdims=True)
    left = [
        np.where(there, rank - np.nansum(rank, axis=1, keepdims=True) / np.maximum(count, 1), 0)
        for rank in ranks
    ]
    size = np.sqrt(np.square(left[0]).sum(axis=1) * np.square(left[1]).sum(axis=1))
    defined = (count[:, 0] >= 3) & (size > 0)
    sums = (left[0] * left[1]).sum(axis=1)
    return np.divide(sums, size, out=np.full(len(flat), np.nan), where=defined)


def _beyond_trivial(measures: Mapping[str, Values], name: str, rates: Values) -> float:
    """Compute the rank correlation after removing the accuracies of source and target."""
    trivial = [key for key in ("source accuracy", "target accuracy") if key != name]
    there = np.isfinite(rates) & np.all([np.isfinite(measures[key]) for key in [*trivial, name]], 0)
    ranks = [rankdata(measures[key][there]) for key in trivial]
    design = np.column_stack([np.ones(int(there.sum())), *ranks])
    left = []
    for values in (measures[name], rates):
        rank = rankdata(values[there])
        left.append(rank - design @ np.linalg.lstsq(design, rank, rcond=None)[0])
    return _correlation(*left)


def _correlation(first: Values, second: Values) -> float:
    if len(first) < 3 or np.ptp(first) < 1e-9 or np.ptp(second) < 1e-9:
        return np.nan
    return float(np.corrcoef(first, second)[0, 1])
