"""The strongest attacker against brute force on made-up outcomes."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from src.analysis.image_outcomes import ImageOutcomes
from src.analysis.strongest import fooled_by_at_least, strongest_attackers
from src.utils.model_names import ModelRef

ATTACKS, SOURCES, TARGETS = ("fgsm", "mi"), ("a", "b", "a+c"), ("a", "b", "c", "d")


def made_up(images: int, seed: int, targeted: bool = False) -> pd.DataFrame:
    random, parts = np.random.default_rng(seed), []
    for attack, source, target in itertools.product(ATTACKS, SOURCES, TARGETS):
        rows = {
            "index": np.arange(images) * 3,
            "target_label": 4.0 if targeted else np.nan,
            "counted": random.random(images) < 0.9,
            "success": random.random(images) < random.random(),
        }
        parts.append(pd.DataFrame({"attack": attack, "source": source, "target": target, **rows}))
    return pd.concat(parts).sample(frac=1, random_state=0, ignore_index=True)


def by_hand(rows: pd.DataFrame, target: str) -> dict[int, list[bool]]:
    """Return each common image's outcomes, in the order of (attack, source)."""
    found: dict[int, list[bool]] = {}
    mine = rows[rows["target"] == target]
    pairs = [
        pair for pair in itertools.product(ATTACKS, SOURCES) if target not in pair[1].split("+")
    ]
    for number in mine["index"].unique():
        one = {(r.attack, r.source): r for r in mine[mine["index"] == number].itertuples()}
        if all(one[pair].counted for pair in pairs):
            found[number] = [bool(one[pair].success) for pair in pairs]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_sets_and_images_are_those_of_brute_force(seed, outcomes_of):
    rows = made_up(40, seed)
    outcomes = outcomes_of(rows)
    found = strongest_attackers(outcomes).set_index("target")
    counts = fooled_by_at_least(outcomes).set_index(["target", "k"])
    for target in TARGETS:
        one, images = found.loc[target], by_hand(rows, target)
        n, values = len(images), list(images.values())
        assert (one["images"], one["attackers"]) == (n, len(values[0]))
        rates = [sum(column) / n for column in zip(*values, strict=True)]
        assert one["best"] == pytest.approx(max(rates))
        fooled = sum(map(any, values))
        assert one["any"] == pytest.approx(fooled / n) and one["none"] == n - fooled
        wilson = stats.binomtest(fooled, n).proportion_ci(method="wilson")
        assert (one["any_low"], one["any_high"]) == pytest.approx((wilson.low, wilson.high))
        best = round(one["best"] * n)
        exact = stats.binomtest(best, n).proportion_ci(1 - 0.05 / len(rates), "exact")
        wilson = stats.binomtest(best, n).proportion_ci(method="wilson")
        assert (one["best_low"], one["best_high"]) == pytest.approx((exact.low, wilson.high))
        for k in range(1, len(rates) + 1):
            assert counts.loc[(target, k), "fooled"] == sum(sum(each) >= k for each in values)
    assert (found["best"] <= found["any"]).all()


@pytest.mark.parametrize("rate", [0.005, 0.02, 0.35])
@pytest.mark.parametrize("attackers", [3, 10, pytest.param(50, marks=pytest.mark.slow)])
def test_the_interval_covers_the_best_rate_whoever_was_chosen(attackers, rate):
    """Equal attackers, whose successes go together, are the worst case."""
    random, images, covered = np.random.default_rng(attackers), 160, 0
    for _ in range(300):
        shared = random.standard_normal(images)
        own = random.standard_normal((attackers, images))
        fooled = np.sqrt(0.8) * shared + np.sqrt(0.2) * own > stats.norm.isf(rate)
        found = ImageOutcomes(
            [(f"attack {number}", "a") for number in range(attackers)],
            [ModelRef.parse("t")],
            np.arange(images),
            [None] * attackers,
            np.ones((attackers, 1), bool),
            np.packbits(np.ones((attackers, 1, images), bool), axis=-1),
            np.packbits(fooled[:, None], axis=-1),
        )
        (one,) = strongest_attackers(found).to_dict("records")
        assert one["best_low"] <= one["best"] < one["best_high"]
        covered += one["best_low"] <= rate <= one["best_high"]
    assert covered >= 0.92 * 300


def test_targeted_attacks_stand_apart(outcomes_of):
    both = pd.concat([made_up(30, 0), made_up(30, 1, targeted=True).replace("mi", "mi to 4")])
    both.loc[both["target_label"].notna() & (both["attack"] == "fgsm"), "attack"] = "fgsm to 4"
    found = strongest_attackers(outcomes_of(both))
    assert list(found["targeted"]) == [False] * 4 + [True] * 4
    assert set(found["attackers"]) == {2, 4, 6}
    alone = strongest_attackers(outcomes_of(made_up(30, 0)))
    pd.testing.assert_frame_equal(found[~found["targeted"]], alone)


def test_without_common_images_nothing_is_said(outcomes_of):
    rows = made_up(12, 0).assign(counted=False)
    found = strongest_attackers(outcomes_of(rows))
    assert (found["images"] == 0).all() and found[["best", "any", "any_low"]].isna().all(axis=None)
    own = rows[rows["source"] == rows["target"]]
    assert strongest_attackers(outcomes_of(own)).empty
