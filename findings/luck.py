"""How much of the success of a source is luck of its training."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.source_choice import Related
from src.utils.model_names import NO_DEFENCE, ModelRef

FACTORS = ("training", "attack seed", "image")
"""Factors of the variance, in the order of the axes of the outcomes."""

Axes = tuple[int, ...]


def luck_of(
    outcomes: ImageOutcomes,
    attacks: Sequence[str],
    weights: Sequence[Mapping[str, str]],
    related: Related,
) -> pd.DataFrame:
    """Compute `training_luck`; trainings have equal names except for `_seedN`, other weights.

    Jobs whose source has unknown weights, as a saved set may have, are left out.
    """
    plain = outcomes.select(defence=NO_DEFENCE)
    sources = [source for _, source in plain.jobs]
    known = [job for job, source in enumerate(sources) if source in weights[job]]
    jobs = [job for job in known if not any(plain.group(job))]
    trainings = [
        (attacks[job], ModelRef.parse(sources[job]).architecture, weights[job][sources[job]])
        for job in jobs
    ]
    return training_luck(plain.of_jobs(jobs), trainings, [weights[job] for job in jobs], related)


def variance_components(values: NDArray[np.float64]) -> dict[Axes, float]:
    """Estimate the variance components of each factor and each interaction of factors.

    Every axis of `values` is a factor with random levels; the factors are fully crossed, with one
    value per cell. The mean square of an effect A estimates the sum, over all effects that contain
    A, of their variance times their number of values per level. Solving these equations gives the
    variances, so an estimate can be negative. The interaction of all axes includes the residual.

    Returns:
        Variances by the axes of their effect; axes of length 1 have none.

    Reference:
        Searle, Casella, McCulloch: Variance Components (1992), chapter 4: balanced data.
    """
    shape = values.shape
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    effects = [its for count in range(len(axes) + 1) for its in combinations(axes, count)]
    left, squares = dict[Axes, NDArray[np.float64]](), dict[Axes, float]()
    for its in effects:
        others = tuple(axis for axis in range(values.ndim) if axis not in its)
        parts = [left[part] for part in left if {*part} < {*its}]
        left[its] = values.mean(axis=others, keepdims=True) - sum(parts, np.zeros(1))
        degrees = np.prod([shape[axis] - 1 for axis in its])
        squares[its] = np.square(left[its]).sum() * values.size / left[its].size / degrees
    components = {}
    for its in effects[1:]:
        above = [other for other in effects if {*its} <= {*other}]
        total = sum((-1) ** (len(other) - len(its)) * squares[other] for other in above)
        components[its] = float(total * np.prod([shape[axis] for axis in its]) / values.size)
    return components


def training_luck(
    outcomes: ImageOutcomes,
    jobs: Sequence[tuple[str, str, str]],
    weights: Sequence[Mapping[str, str]],
    related: Related,
) -> pd.DataFrame:
    """Split the variance of success into shares from training, attack seed, image and the rest.

    Args:
        outcomes: Outcomes of single sources on targets without a defence.
        jobs: Attack, network and training of each job.
        weights: Digests of the models' weights by name, for each job.
        related: Whether two models are related; targets related to the network are left out.

    Returns:
        One row per network with several trainings: `network`; the numbers of `trainings`, attack
        `seeds` and `cells` (attacks and targets that all trainings have); `images`, the mean number
        counted in all jobs of a cell; the shares of variance from the factors (`training`, `attack
        seed`, `image`) and from the `rest`, their interactions, averaged over the cells with
        negative estimates as 0; and `difference`, the root mean square difference between the
        success rates of two trainings, over cells and pairs of trainings.
    """
    places = defaultdict[str, dict[str, dict[str, list[int]]]](lambda: defaultdict(dict))
    for number, (attack, network, training) in enumerate(jobs):
        places[network][attack].setdefault(training, []).append(number)
    rows = []
    for network, attacks in places.items():
        cells = [
            _outcomes(outcomes, [*trainings.values()], target)
            for trainings in attacks.values()
            if len(trainings) > 1
            for target in _shared_targets(outcomes, [*trainings.values()], weights, related)
        ]
        cells = [cell for cell in cells if cell.shape[2] > 1]
        if cells:
            rows.append({"network": network, **_shares(cells)})
    return pd.DataFrame(rows)


def _shared_targets(
    outcomes: ImageOutcomes,
    trainings: Sequence[Sequence[int]],
    weights: Sequence[Mapping[str, str]],
    related: Related,
) -> list[int]:
    """Return the unrelated targets that all jobs of the trainings have with equal weights."""
    every = [job for seeds in trainings for job in seeds]
    return [
        place
        for place, target in enumerate(its.model for its in outcomes.targets)
        if all(outcomes.evaluated[job, place] for job in every)
        and not any(related(outcomes.jobs[job][1], target) for job in every)
        and len({weights[job][target] for job in every}) == 1
    ]


def _outcomes(
    outcomes: ImageOutcomes, trainings: Sequence[Sequence[int]], target: int
) -> NDArray[np.float64]:
    """Return the success on images that all jobs count, shape (trainings, seeds, images)."""
    seeds = min(map(len, trainings))
    jobs = np.array([its[:seeds] for its in trainings])
    counted = outcomes.unpack(outcomes.counted[jobs, target]).all(axis=(0, 1))
    return outcomes.unpack(outcomes.fooled[jobs, target])[..., counted].astype(np.float64)


def _shares(cells: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    """Compute a network's columns from its cells, each of shape (trainings, seeds, images)."""
    total = defaultdict[Axes, float](float)
    differences = []
    for cell in cells:
        for axes, value in variance_components(cell).items():
            total[axes] += value
        rates = cell.mean(axis=(1, 2))
        differences += [first - second for first, second in combinations(rates, 2)]
    components = {axes: max(value, 0.0) for axes, value in total.items()}
    variance = sum(components.values()) or np.nan
    numbers: dict[str, float] = {"trainings": max(len(cell) for cell in cells)}
    numbers |= {"seeds": max(cell.shape[1] for cell in cells), "cells": len(cells)}
    numbers |= {"images": float(np.mean([cell.shape[2] for cell in cells]))}
    numbers |= {name: components.get((axis,), 0.0) / variance for axis, name in enumerate(FACTORS)}
    numbers["rest"] = sum(value for axes, value in components.items() if len(axes) > 1) / variance
    return numbers | {"difference": float(np.sqrt(np.mean(np.square(differences))))}
