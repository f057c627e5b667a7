"""Simulate how often rankings of equal attacks, or sources, call some of them unequal.

`python -m findings.simulate` goes on where it was stopped, and stores the counts in
docs/results/simulated.json.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.analysis.multiple_comparisons import LEVEL, compare_pairs
from src.utils.files import write_text

RESULT = Path(__file__).parents[1] / "docs" / "results" / "simulated.json"
RANKINGS, PART = 10_000, 250
TARGETS = 4
SCENARIOS: dict[str, dict[str, Any]] = {
    "shared difficulty, 40 images": {"images": 40},
    "shared difficulty, 170 images": {},
    "few successes": {"threshold": 1.9},
    "correlated attacks": {"alike": 0.9},
    "unequal counting": {"counted": 0.6},
}
"""Settings of `scores` by name."""
SIZES, SOURCES = (3, 10, 36, 50), (3, 5, 10)

Values = NDArray[np.float64]


def successes(
    random: np.random.Generator,
    attacks: int,
    targets: int,
    images: int = 170,
    threshold: float = 0.4,
    alike: float = 0.0,
) -> Values:
    """Return made-up successes of equal attacks, shape (attacks, targets, images).

    An image is as difficult for all attacks. Besides, an attack does to all targets what is partly
    its own and partly (`alike`) that of its pair of attacks.
    """
    pairs = random.standard_normal(((attacks + 1) // 2, 1, images)).repeat(2, axis=0)[:attacks]
    own = random.standard_normal((attacks, 1, images))
    attack = np.sqrt(alike) * pairs + np.sqrt(1 - alike) * own
    difficulty = random.standard_normal(images)
    noise = random.standard_normal((attacks, targets, images))
    return (np.sqrt(0.5) * difficulty + 0.5 * attack + 0.5 * noise > threshold).astype(float)


def wrong_attacks(
    random: np.random.Generator, attacks: int, counted: float = 1, **settings: Any
) -> bool:
    """Tell whether a ranking of equal attacks calls any two of them unequal.

    Each attack counts a share of the images between `counted` and 1.
    """
    scores = successes(random, attacks, TARGETS, **settings).mean(axis=1)
    shares = random.uniform(counted, 1, (attacks, 1))
    scores[random.random(scores.shape) >= shares] = np.nan
    # Fewer draws make the level 4.75 % instead of 4.95 %.
    tests = compare_pairs(scores, draws=399 if attacks > 10 else 1_999)
    return bool((tests.p[np.triu_indices(attacks, 1)] < LEVEL).any())


def wrong_sources(random: np.random.Generator, sources: int) -> bool:
    """Tell whether a ranking of equal sources, which are the targets too, calls two unequal."""
    values = successes(random, sources, sources + 1)
    sides = np.arange(sources**2).reshape(sources, sources)
    scores = [
        np.delete(values[one], [one, other], axis=0).mean(axis=0)
        for one in range(sources)
        for other in range(sources)
    ]
    tests = compare_pairs(np.array(scores), sides, draws=1_999)
    return bool((tests.p[np.triu_indices(sources, 1)] < LEVEL).any())


def simulate(kind: str, size: int, part: int) -> int:
    """Return how many of the `PART` rankings of a part err."""
    random = np.random.default_rng([*kind.encode(), size, part])
    if kind == "sources":
        return sum(wrong_sources(random, size) for _ in range(PART))
    return sum(wrong_attacks(random, size, **SCENARIOS[kind]) for _ in range(PART))


def stored() -> dict[str, dict[str, dict[str, int]]]:
    """Return the stored numbers of `rankings` and `wrong` ones by scenario and size."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    if RESULT.exists():
        found = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def cells() -> Iterator[tuple[str, int]]:
    """Yield what is simulated, the fast ones first."""
    for size in SIZES:
        yield from ((kind, size) for kind in SCENARIOS)
        if size == SIZES[1]:
            yield from (("sources", each) for each in SOURCES)


def main(rankings: int = RANKINGS) -> None:
    """Simulate what is missing in the stored counts."""
    done = stored()
    for kind, size in cells():
        cell = done.setdefault(kind, {}).setdefault(str(size), {"rankings": 0, "wrong": 0})
        while cell["rankings"] < rankings:
            cell["wrong"] += simulate(kind, size, cell["rankings"] // PART)
            cell["rankings"] += PART
            write_text(RESULT, json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RANKINGS)
