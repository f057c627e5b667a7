"""Tests and intervals against all sign flips, plain loops, SciPy and brute-force likelihoods."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.special import xlogy
from scipy.stats import binom, binomtest, chi2, norm, studentized_range

from findings.paired_tests import mcnemar_p
from src import images_needed
from src.analysis.intervals import paired_interval, wilson_interval
from src.analysis.multiple_comparisons import LEVEL, compare_pairs, compare_versions, detectable


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
    for a, b in combinations(range(5), 2):
        d = scores[a] - scores[b]
        tested.append((a, b, abs(d.sum()), np.sqrt(max(d @ d, 1)), signs @ d))
    largest = np.max([np.abs(flipped) / length for *_, length, flipped in tested], axis=0)
    for a, b, total, length, _ in tested:
        assert tests.p[a, b] == pytest.approx(np.mean(largest >= total / length), abs=0.03)
        if tests.p[a, b] >= LEVEL:  # four whole images may differ unseen
            length = np.sqrt(np.square(scores[a] - scores[b]).sum() + 4)
        assert tests.margin[a, b] == pytest.approx(tests.cutoff * length / 80)
    assert tests.cutoff == pytest.approx(np.quantile(largest, 0.95), abs=0.08)


def test_few_images_and_equal_rows_decide_nothing():
    tests = compare_pairs(np.eye(29)[:3])
    assert np.isnan([tests.p[0, 1], tests.margin[0, 1], tests.cutoff]).all()
    assert tests.discordance[0, 1] == pytest.approx(2 / 29)
    assert compare_pairs(np.eye(30)[:3]).p[0, 1] == 1
    tests = compare_pairs(np.ones((2, 50)))
    assert tests.p[0, 1] == 1 and tests.difference[0, 1] == 0
    assert tests.margin[0, 1] == pytest.approx(2 * 1.96 / 50, rel=0.001)
    alone = compare_pairs(np.ones((1, 50)))
    assert np.isnan(alone.cutoff) and alone.p.shape == (1, 1)


def similar_attacks(random, share):
    """Return scores (A, N) of attacks that agree on a share of images, means over P pairs."""
    attacks, images, pairs = random.integers([3, 30, 1], [8, 300, 9])
    fooled, alike = random.random((attacks, images, pairs)) < 0.4, random.random(images) < share
    fooled[:, alike] = fooled[0, alike]
    fooled[1] = fooled[0]
    return fooled.mean(axis=2)


@pytest.mark.parametrize("share", [0.0, 0.9, 0.98])
def test_corrected_intervals_of_similar_attacks_are_no_narrower_than_plain_ones(share):
    random = np.random.default_rng(1)
    for scores in (similar_attacks(random, share) for _ in range(40)):
        every = compare_pairs(scores, draws=999)
        for a, b in combinations(range(len(scores)), 2):
            alone = compare_pairs(scores[[a, b]], draws=999)
            assert every.margin[a, b] > alone.margin[0, 1] * (1 - 1e-9)
        assert every.margin[0, 1] * scores.shape[1] > 2 * 1.95  # equal outcomes


@pytest.mark.parametrize(("change", "images"), [(0.0, 40), (0.01, 200), (0.04, 100)])
def test_intervals_of_all_pairs_contain_the_differences_together(change, images):
    """A latent difficulty of images decides; mean over four pairs of models, 300 samples."""
    random, missed = np.random.default_rng(2), 0
    shares = 0.3 + change * np.arange(4)
    for _ in range(300):
        level = 0.6 * random.normal(size=(1, images, 1)) + 0.8 * random.normal(size=(4, images, 4))
        tests = compare_pairs((level < norm.ppf(shares)[:, None, None]).mean(axis=2), draws=399)
        missed += bool((abs(tests.difference - shares[:, None] + shares) > tests.margin).any())
    assert missed <= 300 * LEVEL + 1.64 * np.sqrt(300 * LEVEL * (1 - LEVEL))


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


def test_the_largest_fall_is_that_of_a_score_test_rounded_up():
    for lost, gained in ((40, 10), (3, 3), (0, 0), (0, 50)):
        old, new = np.zeros((2, 1, 200))
        old[0, :lost], new[0, lost : lost + gained] = 1, 1
        z, changed = 1.644854, lost + gained
        fall = max(z**2 / 2 + z * np.sqrt(changed + z**2 / 4), -np.log(0.05)) - (gained - lost)
        found = compare_versions(old, new, draws=39)["largest_fall"].item()
        assert found == pytest.approx(max(np.ceil(1000 * fall / 200) / 1000, 0))


def test_the_number_needed_is_mcnemars_for_two_and_worth_whole_images_for_more():
    # The sample size of McNemar's test, (1.96 + 0.84)^2 q / d^2, and 2 / d.
    mcnemar = (1.959964 + 0.841621) ** 2 * 0.2 / 0.05**2
    assert images_needed(0.05, 0.2, 2) == int(np.ceil(mcnemar + 2 / 0.05))
    for attacks, discordance in product((2, 8, 36), (0.0, 0.0025, 0.01, 0.2)):
        cutoff = studentized_range.ppf(0.95, attacks, np.inf) / np.sqrt(2)
        for images in (42, 1000):
            least = detectable(cutoff, discordance, images)
            assert least * (images - 2 / least) >= cutoff - 1e-6  # the floor: whole images
            if least**2 <= discordance:
                assert images_needed(least + 1e-9, discordance, attacks) == images
    assert np.isnan(detectable(np.nan, 0.2, 20))


@pytest.mark.parametrize("images", [31, 200])
@pytest.mark.parametrize("differing", [6, 8])
def test_a_detectable_difference_is_detected_in_four_of_five_cases(images, differing):
    """All images that differ favour one of two attacks; six or more differ here."""

    def tests_of(count):
        return compare_pairs(np.array([np.arange(images) < count, np.zeros(images)], float))

    tests = tests_of(differing)
    least = detectable(tests.cutoff, tests.discordance[0, 1], images)
    p = [tests_of(count).p[0, 1] for count in range(20)]
    missed = [binom.pmf(count, images, least) for count in range(20) if p[count] >= LEVEL]
    assert sum(missed) <= 0.2


@pytest.mark.parametrize("wrong", [(0, 0.2, 3), (0.5, 0.2, 3), (0.1, 1.2, 3), (0.1, 0.2, 1)])
def test_numbers_that_no_images_have_are_refused(wrong):
    with pytest.raises(ValueError, match="discordance"):
        images_needed(*wrong)


def test_wilson_interval_equals_scipy():
    cases = [(k, n) for n in (1, 2, 7, 100, 8139) for k in sorted({0, 1, n // 3, n - 1, n})]
    low, high = wilson_interval(*zip(*cases, strict=True))
    for (k, n), lower, upper in zip(cases, low, high, strict=True):
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert lower == pytest.approx(expected.low, abs=1e-12)
        assert upper == pytest.approx(expected.high, abs=1e-12)
        assert (lower == 0.0) == (k == 0) and (upper == 1.0) == (k == n)
    assert np.isnan(wilson_interval(0, 0)).all()


def score_statistic(b, c, n, difference):
    """Return Tango's Z, the likelihood being maximised over a fine grid."""
    q = np.linspace(max(0.0, -difference), (1 - difference) / 2, 1_000_001)[1:-1]
    likelihood = xlogy(b, q + difference) + xlogy(c, q)
    likelihood += xlogy(n - b - c, 1 - 2 * q - difference)
    variance = n * (2 * q[likelihood.argmax()] + difference * (1 - difference))
    return (b - c - n * difference) / np.sqrt(variance)


def test_paired_interval_inverts_the_score_test_on_brute_force_likelihoods():
    counts = [(1, 7, 21), (40, 20, 160), (0, 1, 44), (12, 2, 50), (5, 0, 5), (0, 0, 10), (3, 3, 6)]
    for b, c, n in [*counts, (1, 0, 1), (700, 12, 1000), (0, 9, 30), (4000, 30, 8139)]:
        low, high = (float(bound) for bound in paired_interval(b, c, n))
        for sign, end in ((1, low), (-1, high)):
            if c - b == sign * n:  # all images are discordant one way
                assert end == -sign
            else:
                score = score_statistic(b, c, n, end)
                assert score == pytest.approx(sign * norm.ppf(0.975), abs=1e-3)
        assert low <= (b - c) / n <= high


def test_paired_interval_turns_round_and_agrees_with_mcnemars_test():
    counts = [(b, c) for b in range(0, 25, 4) for c in range(0, 25, 4)]
    b, c = np.array(counts).T
    low, high = paired_interval(b, c, 50)
    turned_low, turned_high = paired_interval(c, b, 50)
    np.testing.assert_allclose([low, high], [-turned_high, -turned_low], atol=1e-9)
    p = chi2.sf((b - c) ** 2 / np.maximum(b + c, 1), 1)
    assert (((low <= 0) & (high >= 0)) == (p >= 0.05)).all()
    assert high[0] == pytest.approx(float(wilson_interval(0, 50)[1]), abs=1e-12)
    assert np.isnan(paired_interval(0, 0, 0)).all()


def test_the_exact_test_equals_scipy():
    pairs = [(0, 0), (0, 5), (5, 0), (7, 3), (3, 7), (4, 4), (40, 20), (900, 800)]
    for (b, c), p in zip(pairs, mcnemar_p(*zip(*pairs, strict=True)), strict=True):
        assert p == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0, rel=1e-9)
    assert mcnemar_p(5000, 0) == 0.0  # 2 to the power of -4999 is no double
