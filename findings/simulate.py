"""Simulate rankings of equals, intervals of known means, and networks that become worse.

`python -m findings.simulate` goes on where it was stopped, and stores the counts in
docs/results/simulated.json: how many rankings call any two equals unequal, how many 95 % intervals
do not contain the mean that they estimate, in how many pairs of sweeps a fall is significant, and
in how many falls above 5 points are excluded.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from src.analysis.image_outcomes import contributions
from src.analysis.intervals import means
from src.analysis.multiple_comparisons import LEVEL, compare_pairs, compare_versions
from src.analysis.ranking import source_contributions
from src.analysis.source_choice import Transfer, choices
from src.utils.files import write_text

RESULT = Path(__file__).parents[1] / "docs" / "results" / "simulated.json"
REPEATS = 10_000
REPEATED_CHOICES = 2_000
"""Repeats of a choice among sources, which takes long."""
WEAK = (0.5, 1.0)
"""Accuracies of networks that classify unequally well."""
ATTACKS: dict[str, dict[str, Any]] = {
    "40 images": {"images": 40},
    "170 images": {},
    "few successes": {"threshold": 1.9},
    "correlated attacks": {"alike": 0.9},
    "unequal denominators, 60 images": {"sources": 3, "targets": 2, "accuracy": WEAK, "images": 60},
    "unequal denominators, 170 images": {"sources": 3, "targets": 2, "accuracy": WEAK},
    "other images": {"sources": 2, "targets": 3, "others": 0.9},
}
"""Settings of `sweep` by name, for rankings of attacks."""
SOURCES: dict[str, dict[str, Any]] = {
    "sources": {"targets": 1},
    "sources of unequal accuracy, 100 images": {"targets": 3, "accuracy": WEAK, "images": 100},
    "sources of unequal accuracy, 170 images": {"targets": 3, "accuracy": WEAK},
}
"""Settings of `sweep` by name, for rankings of sources."""
SKEWED: dict[str, dict[str, Any]] = {
    "skewed differences, 40 images": {"images": 40, "skewed": True},
    "skewed differences, 170 images": {"skewed": True},
}
"""Settings of `sweep` that break the condition of the test."""
MEANS: dict[str, dict[str, Any]] = {
    "mean, 60 images": {"images": 60},
    "mean, 170 images": {},
    "mean of few successes, 170 images": {"threshold": 1.9},
    "mean, unequal denominators, 60 images": {"sources": 3, "accuracy": WEAK, "images": 60},
}
"""Settings of `sweep` by name, for intervals of an attack's mean success."""
CHOICES: dict[str, dict[str, Any]] = {
    "chosen source, 60 images": {"sources": 4, "spread": 0.5, "images": 60},
    "chosen source, 200 images": {"sources": 4, "spread": 0.5, "images": 200},
}
"""Settings of `sweep` by name, for intervals of chosen sources' success on new targets."""

REPEATED_FALLS = 1_000
KINDS: dict[str, dict[str, float]] = {
    "two trainings": {"alike": 0.82},
    "less alike": {"alike": 0.5},
    "unrelated": {"alike": 0.0},
    "nearly always right": {"alike": 0.5, "accuracy": 0.97},
    "nearly always wrong": {"alike": 0.5, "accuracy": 0.06},
}
"""Settings of `versions` by name.

Two trainings of `resnet_small` are 0.82 alike, with 4 cells on 1,000 images.
"""
FALLS: dict[str, dict[str, Any]] = {
    f"fall of {100 * fall:.0f} points, {cells} cells, {kind}": {
        "fall": fall,
        "cells": cells,
        "worse": "all cells",
        **KINDS[kind],
    }
    for kind in ("two trainings", "less alike")
    for cells in (1, 12)
    for fall in (0.03, 0.05, 0.1)
}
"""Settings of `versions` by name, for numbers of images."""
REPEATED_GATES = 4_000
MAX_FALL = 0.05
UNCHANGED: dict[str, dict[str, Any]] = {
    f"unchanged, {cells} cells, {kind}": {"cells": cells, **KINDS[kind]}
    for kind in KINDS
    for cells in (1, 12)
}
"""Settings of `versions` by name: networks that a gate should pass."""
WORSE: dict[str, dict[str, Any]] = {
    f"5 points worse in {worse}, {cells} cells, {kind}": {
        "fall": MAX_FALL,
        "cells": cells,
        "worse": worse,
        **KINDS[kind],
    }
    for kind in KINDS
    for cells in (1, 12)
    for worse in ("one cell", "clean accuracy")
}
"""Settings of `versions` by name: networks that `--max-fall 5` should not pass."""
GATES = FALLS | UNCHANGED | WORSE

Random = np.random.Generator
Values = NDArray[np.float64]


def sweep(
    random: Random,
    attacks: int = 1,
    sources: int = 1,
    targets: int = 4,
    images: int = 170,
    threshold: float = 0.4,
    alike: float = 0.0,
    accuracy: tuple[float, float] = (1, 1),
    others: float = 1,
    spread: float = 0.0,
    skewed: bool = False,
) -> Values:
    """Return made-up successes of equal attacks from equal sources.

    Args:
        random: Generator of all numbers.
        attacks: Number of attacks, A.
        sources: Number of sources, S; they are the first targets too.
        targets: Number of targets that are no source; T is the number of networks.
        images: Number of images, N. An image is as difficult for all.
        threshold: An image is fooled if its value, nearly normal, is larger.
        alike: Share of an attack's own part that the next attack has too.
        accuracy: Smallest and largest accuracy of the sources, and of the targets. A network of low
            accuracy counts the easy images, which are also hard to fool.
        others: Smallest share of the images that an attack was run on.
        spread: Standard deviation of the targets' thresholds.
        skewed: Whether every second attack gains all targets on 1 image in 20, and loses 1 target
            of 4 on 4 in 20.

    Returns:
        Successes of shape (A, S, T, N), NaN where an image does not count, and for white boxes.
    """
    networks = sources + targets
    shape = (attacks, sources, networks, images)
    pairs = random.standard_normal((-(-attacks // 2), images)).repeat(2, axis=0)[:attacks]
    own = random.standard_normal((attacks, images))
    attack = np.sqrt(alike) * pairs + np.sqrt(1 - alike) * own
    difficulty = random.standard_normal(images)
    values = np.sqrt(0.5) * difficulty + 0.5 * attack[:, None, None]
    values = values + 0.5 * random.standard_normal(shape)
    fooled = values > threshold + spread * random.standard_normal((networks, 1))
    if skewed:
        gained, lost = random.random((2, images)) < np.array([[0.05], [0.2]])
        fooled = np.broadcast_to(lost & ~gained, shape).copy()
        fooled[1::2, :, 1] = False
        fooled[1::2] |= gained
    ability = np.concatenate([np.linspace(*accuracy, size) for size in (sources, targets)])
    effort = difficulty + random.standard_normal((networks, images))
    right = effort.argsort(axis=1).argsort(axis=1) < np.ceil(ability[:, None] * images)
    shown = random.random((attacks, images)) < random.uniform(others, 1, (attacks, 1))
    counted = shown[:, None, None] & (right[:sources, None] & right)
    counted[:, range(sources), range(sources)] = False
    return np.where(counted, fooled, np.nan)


def attack_contributions(scores: Values) -> tuple[Values, Values]:
    """Return what `contributions` computes for all pairs of a sweep."""
    pairs = np.argwhere(~np.isnan(scores).all(axis=(0, 3)))
    return contributions(
        {(str(source), target): scores[:, source, target] for source, target in pairs}
    )


def unequal_attacks(scores: Values) -> bool:
    """Tell whether a ranking of equal attacks calls any two unequal."""
    return _unequal(attack_contributions(scores)[0])


def unequal_sources(scores: Values) -> bool:
    """Tell whether a ranking of equal sources calls any two unequal."""
    counted = np.logical_and.reduce(~np.isnan(scores[0]) | ~_others(scores), axis=0)
    return _unequal(source_contributions(scores[0], counted))


def mean_of_attack(scores: Values) -> tuple[float, float, float]:
    """Return the mean success of one attack and its interval's ends."""
    its = means(*attack_contributions(scores))
    return its["mean"][0], its["low"][0], its["high"][0]


def choice_of_source(scores: Values) -> tuple[float, float, float]:
    """Return the mean success of sources chosen for unseen targets, and its interval's ends."""
    size, count = scores.shape[1], scores.shape[2]
    names = [str(place) for place in range(count)]
    counts = ~np.isnan(scores[0]) | ~_others(scores)
    transfer = Transfer(names[:size], names, ["attack"], scores, counts, np.full(size, np.nan))
    last = choices(transfer).iloc[-1]
    return last["success"], last["success_low"], last["success_high"]


def versions(
    random: Random,
    images: int,
    cells: int,
    alike: float,
    fall: float = 0.0,
    worse: str = "all cells",
    accuracy: float | None = None,
) -> tuple[Values, Values]:
    """Return made-up outcomes of a network's images before and after a change, in cells.

    Args:
        random: Generator of all numbers.
        images: Number of images, N.
        cells: Number of cells of robust accuracy, C, such as attacks and sources.
        alike: Correlation of a cell's outcomes before and after, if nothing falls.
        fall: By how much an accuracy falls.
        worse: Which falls: `all cells` or `one cell` of robust accuracy, or `clean accuracy`.
        accuracy: Accuracy of each cell and of clean images before. None: the mean of the cells is
            0.55, and clean accuracy is 0.86.

    Returns:
        Whether images are right, two arrays of shape (C + 1, N); clean accuracy comes last.
    """
    rates = np.append(0.55 + 0.2 * np.linspace(-1, 1, cells) * (cells > 1), 0.86)
    rates = rates if accuracy is None else np.full(cells + 1, accuracy)
    places: dict[str, Any] = {"all cells": slice(cells), "one cell": 0, "clean accuracy": cells}
    shared, sides = random.standard_normal(images), []
    for lost in (0, fall):
        own = np.sqrt(0.85 * (1 - alike)) * random.standard_normal(images)
        rest = np.sqrt(0.15 * (1 - alike)) * random.standard_normal((cells + 1, images))
        rates[places[worse]] -= lost
        sides.append((np.sqrt(alike) * shared + own + rest > -ndtri(rates)[:, None]).astype(float))
    return sides[0], sides[1]


def verdicts(old: Values, new: Values, draws: int = 399) -> tuple[bool, bool]:
    """Tell whether `compare` finds a significant fall, and whether it excludes falls of 5 points.

    Rows are the mean over cells, if there are several, and the cells; and clean accuracy.
    """
    robust = [
        np.concatenate([its[:-1].mean(axis=0, keepdims=True)[: len(its) - 2], its[:-1]])
        for its in (old, new)
    ]
    families = (robust[0], robust[1]), (old[-1:], new[-1:])
    tests = [compare_versions(before, after, draws) for before, after in families]
    fell = any((test["high"] < 0).any() for test in tests)
    return fell, all((test["largest_fall"] <= MAX_FALL).all() for test in tests)


def _others(scores: Values) -> NDArray[np.bool_]:
    """Return the pairs of a source and another network, shape (S, T, 1)."""
    return np.eye(*scores.shape[1:3])[..., None] == 0


def _unequal(values: Values) -> bool:
    # Fewer draws make the level 4.75 % instead of 4.95 %.
    tests = compare_pairs(values, draws=399 if len(values) > 10 else 1_999)
    return bool((tests.p[np.triu_indices(len(values), 1)] < LEVEL).any())


def cells() -> Iterator[tuple[str, int]]:
    """Yield scenario and size: a number of equal attacks or sources, of targets, or of images."""
    for size in (3, 10, 36):
        yield from ((name, size) for name in ATTACKS)
    for size in (3, 5, 10):
        yield from ((name, size) for name in SOURCES)
    yield from ((name, 2) for name in SKEWED)
    for size in (1, 4):
        yield from ((name, size) for name in MEANS)
    for size in (5, 8, 22):
        yield from ((name, size) for name in CHOICES)
    for size in (200, 500, 1000, 2000):
        yield from ((name, size) for name in FALLS | UNCHANGED)
    for size in (200, 2000):
        yield from ((name, size) for name in WORSE)


def simulate(name: str, size: int, repeats: int = REPEATS) -> dict[str, int]:
    """Simulate one cell.

    Returns:
        The number of `rankings`, and of `wrong` ones that call equals unequal; or the number of
        `intervals`, and of `wrong` ones that do not contain the mean over all repeats; or the
        number of pairs of `sweeps`, and of those in which a fall is `significant`, and in which
        falls above 5 points are excluded (`passed`).
    """
    random = np.random.default_rng([*name.encode(), size])
    if name in GATES:
        draws = 39 if name in WORSE else 399  # the falls that are excluded need no draws
        pairs = (versions(random, size, **GATES[name]) for _ in range(repeats))
        fell, passed = np.sum([verdicts(*pair, draws) for pair in pairs], axis=0)
        counts = {"sweeps": repeats, "passed": int(passed)}
        return counts if name in WORSE else counts | {"significant": int(fell)}
    if name in MEANS or name in CHOICES:
        compute = mean_of_attack if name in MEANS else choice_of_source
        settings = {**(MEANS | CHOICES)[name]}
        settings |= {"targets": size - settings.get("sources", 0) * (name in CHOICES)}
        found = np.array([compute(sweep(random, **settings)) for _ in range(repeats)])
        value, low, high = found.T
        wrong = (value.mean() < low) | (value.mean() > high)
        return {"intervals": repeats, "wrong": int(wrong.sum())}
    err = unequal_sources if name in SOURCES else unequal_attacks
    settings = {**(ATTACKS | SOURCES | SKEWED)[name]}
    settings["sources" if name in SOURCES else "attacks"] = size
    wrong = [err(sweep(random, **settings)) for _ in range(repeats)]
    return {"rankings": repeats, "wrong": sum(wrong)}


def stored() -> dict[str, dict[str, dict[str, int]]]:
    """Return the stored counts by scenario and size."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    if RESULT.exists():
        found = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Simulate what is missing in the stored counts."""
    for name, size in cells():
        done = stored()
        if str(size) not in done.get(name, {}):
            repeats = REPEATED_CHOICES if name in CHOICES else REPEATS
            repeats = REPEATED_FALLS if name in FALLS else repeats
            repeats = REPEATED_GATES if name in UNCHANGED | WORSE else repeats
            done.setdefault(name, {})[str(size)] = simulate(name, size, repeats)
            write_text(RESULT, json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
