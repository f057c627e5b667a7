"""Tests of all pairs against all sign flips, and a plain loop."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import norm, studentized_range

from src import images_needed
from src.analysis.multiple_comparisons import (
    LEVEL,
    compare_pairs,
    compare_versions,
    detectable,
)


def test_p_values_are_those_of_all_flips_of_the_images_that_differ():
    """Ten of 60 images differ, so that there are 1,024 flips."""
    scores = np.zeros((3, 60))
    scores[:, :20] = 1
    scores[0, 20:30], scores[1, 20:24], scores[2, 26:30] = 1, 1, 1
    pairs = list(combinations(range(3), 2))
    signs = np.array(list(product([-1, 1], repeat=10)))
    differences = np.array([(scores[a] - scores[b])[20:30] for a, b in pairs])
    scale = np.sqrt(np.square(differences).sum(axis=1))
    largest = (np.abs(signs @ differences.T) / scale).max(axis=1)
    tests = compare_pairs(scores, draws=19_999)
    for (a, b), difference, length in zip(pairs, differences, scale, strict=True):
        exact = np.mean(largest >= abs(difference.sum()) / length - 1e-9)
        assert tests.p[a, b] == tests.p[b, a] == pytest.approx(exact, abs=0.012)
        assert tests.difference[a, b] == -tests.difference[b, a] == difference.sum() / 60
        assert tests.discordance[a, b] == pytest.approx(length**2 / 60)
        assert (tests.margin[a, b] < abs(tests.difference[a, b])) == (tests.p[a, b] < LEVEL)


def test_scores_between_zero_and_one_agree_with_a_plain_loop():
    random = np.random.default_rng(1)
    scores = random.integers(0, 4, (5, 80)) / 3
    scores[4] = scores[3] + (np.arange(80) == 7) * 0.1  # the floor under the sum of squares
    tests = compare_pairs(scores)
    signs, tested = random.integers(0, 2, (20_000, 80)) * 2 - 1, []
    every = np.concatenate([scores[a] - scores[b] for a, b in combinations(range(5), 2)])
    typical = np.square(every[every != 0]).mean()
    for a, b in combinations(range(5), 2):
        d = scores[a] - scores[b]
        tested.append((a, b, abs(d.sum()), np.sqrt(max(d @ d, 1)), signs @ d))
    largest = np.max([np.abs(flipped) / length for *_, length, flipped in tested], axis=0)
    for a, b, total, length, _ in tested:
        assert tests.p[a, b] == pytest.approx(np.mean(largest >= total / length), abs=0.03)
        if tests.p[a, b] >= LEVEL:  # four images may differ unseen
            length = np.sqrt(np.square(scores[a] - scores[b]).sum() + 4 * typical)
        assert tests.margin[a, b] == pytest.approx(tests.cutoff * length / 80)
    assert tests.cutoff == pytest.approx(np.quantile(largest, 0.95), abs=0.08)


def test_below_30_images_nothing_is_tested():
    tests = compare_pairs(np.eye(29)[:3])
    assert np.isnan(tests.p[0, 1]) and np.isnan(tests.margin[0, 1]) and np.isnan(tests.cutoff)
    assert tests.discordance[0, 1] == pytest.approx(2 / 29)


def test_equal_rows_have_a_p_of_one_and_an_interval_of_a_few_images():
    scores = np.ones((2, 50))
    tests = compare_pairs(scores)
    assert tests.p[0, 1] == 1 and tests.difference[0, 1] == 0
    assert tests.margin[0, 1] == pytest.approx(2 * 1.96 / 50, rel=0.001)
    alone = compare_pairs(scores[:1])
    assert np.isnan(alone.cutoff) and alone.p.shape == (1, 1)


def test_the_intervals_of_all_pairs_cover_together():
    """Ten unlike attacks, 150 images, differences of one or two points to 45."""
    random, covered = np.random.default_rng(6), 0
    shares = np.linspace(0.05, 0.5, 10) + np.tile([0, 0.03], 5)
    truth = np.subtract.outer(shares, shares)
    for _ in range(300):
        latent = np.sqrt(0.7) * random.standard_normal(150)
        latent = latent + np.sqrt(0.3) * random.standard_normal((10, 150))
        scores = (latent > norm.isf(shares)[:, None]).astype(float)
        tests = compare_pairs(scores, draws=399)
        covered += bool((np.abs(tests.difference - truth) <= tests.margin).all())
    assert covered >= 0.92 * 300


def test_means_of_many_outcomes_keep_the_interval_that_they_permit():
    """Half of the images differ, each in one of five outcomes."""
    random = np.random.default_rng(0)
    scores = random.random((2, 200))
    scores[1] = scores[0] + (np.arange(200) % 2) * random.choice([-0.2, 0.2], 200)
    tests = compare_pairs(scores)
    assert tests.margin[0, 1] < 1.05 * tests.cutoff * np.sqrt(tests.discordance[0, 1] / 200)


@pytest.mark.parametrize("images", [30, 50, 250])
@pytest.mark.parametrize("shares", [(0.98, 0.999), (0.02, 0.01), (0.95, 0.96, 0.97, 0.98, 0.99)])
def test_intervals_cover_where_few_images_differ(images, shares):
    random, covered = np.random.default_rng(images), 0
    truth = np.subtract.outer(shares, shares)
    for _ in range(200):
        scores = (random.random((len(shares), images)) < np.array(shares)[:, None]).astype(float)
        tests = compare_pairs(scores, draws=399)
        covered += bool((np.abs(tests.difference - truth) <= tests.margin).all())
    assert covered >= 0.93 * 200


@pytest.mark.parametrize(("fall", "discordance", "rows"), [(0.05, 0.1, 2), (0.05, 0.3, 6)])
def test_as_many_images_as_needed_pass_a_gate_in_four_of_five_samples(fall, discordance, rows):
    images, random = images_needed(fall, discordance, rows + 1), np.random.default_rng(1)
    passed = 0
    for _ in range(300):
        changes = random.choice(
            [-1, 0, 1], (rows, images), p=[discordance / 2, 1 - discordance, discordance / 2]
        )
        found = compare_versions((changes < 0) * 1.0, (changes > 0) * 1.0, draws=39)
        passed += bool((found["largest_fall"] <= fall).all())
    assert 0.8 < passed / 300 < 0.95


def test_as_many_images_as_needed_decide_a_difference_in_four_of_five_samples():
    # For two attacks the sample size of McNemar's test, (1.96 + 0.84)^2 q / d^2, and 2 / d.
    mcnemar = (1.959964 + 0.841621) ** 2 * 0.2 / 0.05**2
    assert images_needed(0.05, 0.2, 2) == int(np.ceil(mcnemar + 2 / 0.05))
    attacks, discordance, difference = 6, 0.3, 0.1
    images = images_needed(difference, discordance, attacks)
    random, decided = np.random.default_rng(0), 0
    base = (discordance - difference) / 2
    for _ in range(300):
        # Scores are 1 on an image of their own with equal chances; the first has more of them.
        chances = np.full(attacks, base)
        chances[0] += difference
        scores = (random.random((attacks, images)) < chances[:, None]).astype(float)
        tests = compare_pairs(scores, draws=399)
        decided += tests.p[0, 1] < LEVEL
        seen = tests.discordance[0, 1]
    assert 0.7 < decided / 300 < 0.95
    assert detectable(tests.cutoff, seen, images) == pytest.approx(difference, rel=0.15)


@pytest.mark.parametrize(
    ("difference", "discordance"),
    [
        pytest.param(0.05, 0.1, marks=pytest.mark.slow),
        pytest.param(0.05, 0.3, marks=pytest.mark.slow),
        (0.2, 0.4),
    ],
)
def test_two_attacks_are_decided_with_a_power_of_80_percent(difference, discordance):
    images, random = images_needed(difference, discordance, 2), np.random.default_rng(2)
    chances, decided = [(discordance + difference) / 2, (discordance - difference) / 2], 0
    for _ in range(1_000):
        draw = random.random(images)
        scores = np.array([draw < chances[0], draw > 1 - chances[1]], float)
        decided += compare_pairs(scores).p[0, 1] < LEVEL
    assert 0.77 < decided / 1_000 < 0.88  # 80 % within three standard errors, or a little more


@pytest.mark.parametrize("wrong", [(0, 0.2, 3), (0.5, 0.2, 3), (0.1, 1.2, 3), (0.1, 0.2, 1)])
def test_numbers_that_no_images_have_are_refused(wrong):
    with pytest.raises(ValueError, match="discordance"):
        images_needed(*wrong)


def test_one_against_the_others_is_tested_alone():
    random = np.random.default_rng(3)
    scores = (random.random((5, 200)) < np.linspace(0.4, 0.6, 5)[:, None]).astype(float)
    every, one = compare_pairs(scores), compare_pairs(scores, one=2)
    others = [0, 1, 3, 4]
    assert (one.difference[2, others] == every.difference[2, others]).all()
    assert (one.difference[others, 2] == -one.difference[2, others]).all()
    assert (one.p[2, others] <= every.p[2, others]).all() and one.cutoff < every.cutoff
    assert np.isnan(one.p[0, 1]) and one.p[2, 2] == every.p[2, 2]
    pair = compare_pairs(scores[[1, 2]], one=0)
    assert pair.p[0, 1] == compare_pairs(scores[[1, 2]]).p[0, 1]


@pytest.mark.parametrize("discordance", [0.0025, 0.01, 0.2])
def test_a_decided_difference_is_worth_whole_images_also_in_the_number_needed(discordance):
    cutoff = studentized_range.ppf(0.95, 8, np.inf) / np.sqrt(2)
    images = images_needed(0.05, discordance, 8)
    for n in (30, images - 2 / 0.05, images):
        assert detectable(cutoff, discordance, n) * n > cutoff
    assert detectable(cutoff, discordance, images - 2 / 0.05) <= 0.05
    assert discordance > 0.0025 or detectable(cutoff, discordance, images - 2 / 0.05 - 2) > 0.05
