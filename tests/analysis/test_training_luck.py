"""Shares of luck against products of pairs of values, and on outcomes with known effects."""

from itertools import combinations, product

import numpy as np
import pytest

from findings.luck import luck_of, training_luck, variance_components
from src.analysis.image_outcomes import ImageOutcomes
from src.utils.model_names import NO_DEFENCE, ModelRef


def by_pairs(values, axes):
    """Return a variance from means of products of two values that share some levels alone.

    Reference: Koch (1967), A General Approach to the Estimation of Variance Components.
    """
    places = list(product(*map(range, values.shape)))
    total = 0.0
    for count in range(len(axes) + 1):
        for shared in combinations(axes, count):
            products = [
                values[one] * values[other]
                for one in places
                for other in places
                if all((one[k] == other[k]) == (k in shared) for k in range(values.ndim))
            ]
            total += (-1) ** (len(axes) - count) * np.mean(products)
    return total


def test_components_are_those_of_pairs_of_values():
    random = np.random.default_rng(0)
    values = (random.random((3, 2, 5)) < 0.5) + random.normal(size=(3, 1, 1))
    found = variance_components(values)
    assert found.keys() == {(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}
    for axes, variance in found.items():
        assert variance == pytest.approx(by_pairs(values, axes), abs=1e-12)


def test_an_axis_of_one_level_has_no_component():
    values = np.random.default_rng(0).random((2, 1, 6))
    assert variance_components(values).keys() == {(0,), (2,), (0, 2)}


def outcomes(jobs, targets, fooled):
    """Return outcomes, (jobs, targets, images), that all count."""
    bits, counted = np.packbits(fooled, axis=-1), np.packbits(np.ones_like(fooled), axis=-1)
    index, shown = np.arange(fooled.shape[-1]), np.ones(fooled.shape[:2], bool)
    names = [ModelRef.parse(target, NO_DEFENCE) for target in targets]
    return ImageOutcomes(jobs, names, index, [None] * len(jobs), shown, counted, bits)


def luck_on(fooled, jobs, trainings, weights=None):
    found = outcomes(jobs, ["x", "y"], fooled)
    same = weights or [{"x": "1", "y": "2"}] * len(jobs)
    return training_luck(found, trainings, same, lambda one, other: one == other)


JOBS = [("mi", "a"), ("mi", "a_seed1"), ("mi", "b")]
TRAININGS = [("mi", "a", "0"), ("mi", "a", "1"), ("mi", "b", "2")]


def test_what_images_decide_is_no_luck_of_trainings():
    of_image = np.random.default_rng(0).random(400) < 0.4
    (row,) = luck_on(np.tile(of_image, (3, 2, 1)), JOBS, TRAININGS).to_dict("records")
    assert (row["network"], row["trainings"], row["cells"], row["images"]) == ("a", 2, 2, 400)
    assert row["image"] == pytest.approx(1) and row["difference"] == row["training"] == 0


def test_what_trainings_decide_is_their_luck():
    fooled = np.zeros((3, 2, 400), bool)
    fooled[1, :, :300] = True
    random = np.random.default_rng(0)
    fooled[1] = random.permuted(fooled[1], axis=-1)
    (row,) = luck_on(fooled, JOBS, TRAININGS).to_dict("records")
    assert row["difference"] == 0.75 and row["training"] > 0.7
    shares = [row[name] for name in ("training", "attack seed", "image", "rest")]
    assert sum(shares) == pytest.approx(1)


def test_seeds_of_the_attack_are_a_factor_of_their_own():
    random, jobs = np.random.default_rng(0), [JOBS[0], JOBS[0], JOBS[1], JOBS[1]]
    trainings = [TRAININGS[0], TRAININGS[0], TRAININGS[1], TRAININGS[1]]
    of_image = random.random(400) < 0.5
    flip = random.random((2, 1, 400)) < 0.2  # by the seed alone
    fooled = np.tile(of_image ^ np.concatenate([flip, flip]), (1, 2, 1))
    (row,) = luck_on(fooled, jobs, trainings).to_dict("records")
    assert row["seeds"] == 2 and row["training"] == 0 and row["rest"] > 0.2


def test_targets_of_other_weights_and_networks_of_one_training_do_not_count():
    fooled = np.random.default_rng(0).random((3, 2, 50)) < 0.5
    weights = [{"x": "1", "y": "2"}, {"x": "1", "y": "3"}, {"x": "1", "y": "2"}]
    (row,) = luck_on(fooled, JOBS, TRAININGS, weights).to_dict("records")
    assert row["cells"] == 1
    assert luck_on(fooled, JOBS, [TRAININGS[0], *TRAININGS[::2]], weights).empty


def test_settings_of_an_attack_are_attacks_of_their_own():
    jobs = [(f"mi{end}", f"a_seed{seed}") for end in SETTINGS for seed in "12"]
    fooled = np.random.default_rng(0).random((4, 4, 50)) < 0.5
    names = ["a_seed1", "a_seed2", "v", "w", "x", "y"]
    found = luck_of(
        outcomes(jobs, ["v", "w", "x", "y"], fooled),
        [f"mi{end}" for end in SETTINGS for _ in "12"],
        [{name: name for name in names}] * 4,
        lambda one, other: one == other,
    )
    (row,) = found.to_dict("records")
    assert (row["trainings"], row["seeds"], row["cells"]) == (2, 1, 8)


SETTINGS = (" (steps=2)", " (steps=3)")
