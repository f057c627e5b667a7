import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, norm, spearmanr
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_linear_model import GLM

from src.analysis.hypothesis import _decimal, _factor, initial_confidence_effect
from src.analysis.resampling import resample_counts, resampled_rho

BUDGETS = [1, 2, 4, 8]


def table_of(confidence, flips, budgets=BUDGETS, label=0, target="b", clean=None, aims=None):
    """Make a table of one target (flips: image x budget) and a source "a" that is always right."""
    n = len(confidence)
    parts = []
    for place, eps in enumerate([0, *budgets]):
        wrong = np.zeros(n, bool) if place == 0 else np.asarray(flips)[:, place - 1]
        if place == 0 and clean is not None:
            wrong = ~np.asarray(clean)
        part = pd.DataFrame({"index": np.arange(n) + 10, "label": label, "target": target})
        part["eps_255"], part["predicted"] = float(eps), np.where(wrong, label + 1, label)
        part["confidence"] = confidence if place == 0 else 0.3
        part["true_confidence"] = 0.3
        if aims is not None:
            part["target_label"] = pd.Series(aims if eps else [pd.NA] * n, dtype="Int64")
        parts.append(part)
    source = parts[0].assign(target="a", predicted=label, confidence=0.99)
    return pd.concat([*parts, source] if target != "a" else parts, ignore_index=True)


def from_first(first, budgets=BUDGETS):
    """Flip at the first budget and at all above it."""
    return np.asarray(first)[:, None] <= np.asarray(budgets)


def effect(table, **changes):
    return initial_confidence_effect(
        table, **{"source": "a", "target": "b", "attack": "fgsm"} | changes
    )


@pytest.fixture(scope="module")
def noisy():
    """80 images; the more confident flip later, on the whole; some never."""
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.4, 1, 80)
    first = generator.exponential(12 * confidence**4)
    return confidence, first, table_of(confidence, from_first(first)).sample(frac=1, random_state=0)


def test_rho_equals_scipy_with_never_above_every_budget(noisy):
    confidence, first, table = noisy
    tried = np.array([next((b for b in BUDGETS if f <= b), 1e9) for f in first])
    found = effect(table)
    expected = spearmanr(confidence, tried)
    assert (found.n, found.flipped) == (80, int((tried < 1e9).sum())) and found.flipped < 80
    assert found.rho == pytest.approx(expected.statistic, abs=1e-12)
    assert found.rho_p == pytest.approx(expected.pvalue, rel=1e-9)


def test_rho_interval_equals_scipys_bootstrap(noisy):
    confidence, first, table = noisy
    tried = np.array([next((b for b in BUDGETS if f <= b), 99) for f in first])
    found = effect(table)
    expected = bootstrap(
        (confidence, tried),
        lambda x, y: spearmanr(x, y).statistic,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="percentile",
        random_state=1,
    ).confidence_interval
    assert found.rho_low == pytest.approx(expected.low, abs=0.03)
    assert found.rho_high == pytest.approx(expected.high, abs=0.03)
    assert found.rho_low < found.rho < found.rho_high
    other = effect(table, seed=5)
    assert other.rho == found.rho and 0 < abs(other.rho_low - found.rho_low) < 0.03
    assert effect(table.sort_values("eps_255")) == found


def test_resampled_rho_equals_spearman_of_the_samples_written_out():
    generator = np.random.default_rng(2)
    n = 12
    for first, second in (
        (generator.random(n), generator.random(n)),
        (generator.random(n), generator.integers(0, 3, n).astype(float)),
        (generator.integers(0, 2, n).astype(float), generator.integers(0, 4, n).astype(float)),
    ):
        counts = np.concatenate(list(resample_counts(n, 0, 60)))
        rho = resampled_rho(first, second, counts)
        for value, drawn in zip(rho, counts.astype(int), strict=True):
            pair = np.repeat(first, drawn), np.repeat(second, drawn)
            if np.ptp(pair[0]) and np.ptp(pair[1]):
                assert value == pytest.approx(spearmanr(*pair).statistic, abs=1e-12)
            else:
                assert value == 0
    single = np.zeros((1, n))
    single[0, 3] = n
    assert resampled_rho(first, second, single) == [0]


def test_found_flips_replace_the_tried_ones(noisy):
    confidence, first, table = noisy
    tried = np.array([next((b for b in BUDGETS if f <= b), np.inf) for f in first])
    known = np.flatnonzero(np.isfinite(tried))[::-1][:-3]  # three are not refined
    flips = pd.DataFrame({"index": known + 10, "target": "b", "eps_255": first[known]})
    flips = pd.concat([flips, flips.assign(target="a", eps_255=0.01)])
    refined = tried.copy()
    refined[known] = first[known]
    found = effect(table, flips=flips)
    expected = spearmanr(confidence, np.where(np.isfinite(refined), refined, 99)).statistic
    assert found.rho == pytest.approx(expected, abs=1e-12) != pytest.approx(effect(table).rho)
    larger = flips.assign(eps_255=100.0)  # not smaller than the tried ones
    assert effect(table, flips=larger) == effect(table)
    with pytest.raises(ValueError, match="two rows of image 89 and 'b'"):
        effect(table, flips=pd.concat([flips, flips]))
    with pytest.raises(ValueError, match="lacks the columns index, eps_255"):
        effect(table, flips=flips[["target"]])


def test_the_odds_ratio_equals_another_fit(noisy):
    confidence, first, table = noisy
    found = effect(table)
    shares = from_first(first).mean(axis=0)
    nearest = BUDGETS[int(np.argmin(abs(shares - 0.5)))]
    assert found.eps_255 == nearest not in (1, 8)
    assert found.flipped_at_eps == (first <= nearest).sum()
    design = np.column_stack([np.ones(80), 10 * confidence])
    fit = GLM((first <= nearest).astype(float), design, Binomial()).fit(tol=1e-12)
    interval = (found.odds_ratio, found.odds_ratio_low, found.odds_ratio_high)
    np.testing.assert_allclose(interval, np.exp([fit.params[1], *fit.conf_int()[1]]), rtol=1e-6)
    assert found.odds_p == pytest.approx(fit.pvalues[1], rel=1e-5)


def test_the_odds_ratio_of_a_table_of_four_is_the_closed_form():
    # 0.5: 14 flip, 6 do not; 0.9: 8 flip, 12 do not. One step is a quarter of the difference.
    confidence = np.repeat([0.5, 0.9], 20)
    flip = np.r_[np.arange(20) < 14, np.arange(20) < 8]
    found = effect(table_of(confidence, flip[:, None], [3]))
    slope = np.log((8 / 12) / (14 / 6)) / 4
    error = np.sqrt(1 / 14 + 1 / 6 + 1 / 8 + 1 / 12) / 4
    assert found.odds_ratio == pytest.approx(np.exp(slope), rel=1e-6)
    z = norm.ppf(0.975)
    assert found.odds_ratio_low == pytest.approx(np.exp(slope - z * error), rel=1e-5)
    assert found.odds_ratio_high == pytest.approx(np.exp(slope + z * error), rel=1e-5)
    assert found.odds_p == pytest.approx(2 * norm.sf(abs(slope) / error), rel=1e-5)
    assert (found.eps_255, found.flipped_at_eps, found.flipped) == (3, 22, 22)


def test_of_two_budgets_as_near_to_one_half_the_smaller_is_taken():
    confidence = np.linspace(0.5, 0.9, 20)
    first = np.r_[np.full(8, 1), np.full(4, 4), np.full(8, 99)]  # 8, 8, 12, 12 of 20
    found = effect(table_of(confidence, from_first(first)))
    assert (found.eps_255, found.flipped_at_eps) == (1, 8)


def test_a_sentence_says_it_all():
    confidence = np.r_[np.repeat([0.5, 0.9], 20)]
    flip = np.r_[np.arange(20) < 14, np.arange(20) < 8]
    found = effect(table_of(confidence, flip[:, None], [0.25]))
    assert found.sentence == (
        "fgsm made on a, shown to b: of 40 initially correct images 22 flip at some budget, and "
        "the rank correlation of initial confidence and smallest flipping budget is rho = "
        f"{found.rho:.2f} [{found.rho_low:.2f}, {found.rho_high:.2f}] (95 % interval); at "
        "0.25/255, where 22 of 40 flip, 0.10 more of initial confidence multiplies the odds of a "
        f"flip by {found.odds_ratio:.2f} [{found.odds_ratio_low:.2f}, "
        f'{found.odds_ratio_high:.2f}]; so Hypothesis 1, "images with a high initial confidence '
        'are harder to manipulate", is left undecided.'
    )
    assert found.verdict == "undecided" and found.rho_low <= 0 < found.rho_high
    white = effect(table_of(confidence, flip[:, None], [4], target="a"), target="a")
    assert white.sentence.startswith("fgsm made on a, shown to a (white box): of 40 ")


def test_numbers_do_not_look_like_what_they_are_not():
    values = (0.304, 0.0, -0.0, 0.002, -0.0031, -0.5)
    assert [_decimal(value) for value in values] == [
        "0.30",
        "0.00",
        "0.00",
        "0.002",
        "-0.003",
        "-0.50",
    ]
    values = (0.834, 0.998, 1.0, 0.00412, 12.3456, 2.3e17)
    assert [_factor(value) for value in values] == [
        "0.83",
        "0.998",
        "1",
        "0.0041",
        "12.35",
        "2.3e+17",
    ]


def test_verdicts(noisy):
    confidence, first, table = noisy
    supported = effect(table)
    assert supported.verdict == "supported" and supported.rho_low > 0
    assert supported.odds_ratio_high < 1 and supported.sentence.endswith(", is supported.")
    turned = effect(table_of(1.4 - confidence, from_first(first)))
    assert turned.verdict == "contradicted" and turned.odds_ratio_low > 1
    assert turned.rho == pytest.approx(-supported.rho, abs=1e-12)
    assert turned.odds_ratio == pytest.approx(1 / supported.odds_ratio, rel=1e-6)
    assert turned.sentence.endswith(", is contradicted.")


@pytest.mark.parametrize("sign", [1, -1])
def test_an_odds_ratio_that_says_the_opposite_leaves_it_undecided(sign):
    # The less confident flip at 1 and bounce back at 4, but for five that never flip; the others
    # flip at 4 alone.
    low, high = np.linspace(0.41, 0.75, 38), np.linspace(0.55, 0.99, 47)
    early = np.arange(38)[:, None] % 8 != [0, -1]
    early[:, 1] = False
    late = np.tile([False, True], (47, 1))
    middle = 0.7
    confidence = middle + sign * (np.r_[low, high] - middle)
    found = effect(table_of(confidence, np.r_[early, late], [1, 4]))
    assert (found.eps_255, found.flipped_at_eps) == (4, 47)
    if sign > 0:
        assert found.rho_low > 0 and found.odds_ratio_low > 1
    else:
        assert found.rho_high < 0 and found.odds_ratio_high < 1
    assert found.verdict == "undecided"


def test_a_few_flips_prove_nothing():
    confidence = np.linspace(0.4, 1, 200)
    for flipping, expected in ((1, "undecided"), (3, "undecided"), (12, "supported")):
        flips = (np.arange(200) < flipping)[:, None]
        found = effect(table_of(confidence, flips, [8]))
        assert (found.flipped, found.verdict) == (flipping, expected)
        assert found.rho > 0 and (found.rho_low > 0) == (expected == "supported")
        turned = effect(table_of(confidence, flips[::-1], [8]))
        assert turned.rho == pytest.approx(-found.rho)
        assert (turned.verdict == "contradicted") == (expected == "supported")


def test_ten_images_are_enough():
    found = effect(table_of(np.linspace(0.4, 1, 10), from_first([1, 1, 1, 2, 1, 4, 2, 8, 9, 9])))
    assert np.isfinite([found.rho, found.rho_low]).all() and "fewer" not in found.sentence


def test_separated_confidences_have_no_odds_ratio():
    for confidence in (np.linspace(0.4, 1, 40), np.repeat([0.5, 0.7, 0.9], [16, 8, 16])):
        flip = (np.arange(40) < 20)[:, None]
        for values in (confidence, 1.4 - confidence):
            found = effect(table_of(values, flip, [2]))
            assert np.isnan([found.odds_ratio, found.odds_ratio_low, found.odds_p]).all()
            assert "at 2/255, where 20 of 40 flip, no odds ratio can be given" in found.sentence
            assert "separates the images that flip from the others" in found.sentence
            assert found.verdict == ("supported" if values is confidence else "contradicted")
    overlapping = np.linspace(0.4, 1, 40)
    overlapping[[19, 20]] = overlapping[[20, 19]]
    found = effect(table_of(overlapping, flip, [2]))
    assert 0 < found.odds_ratio < 0.1 and found.odds_ratio_high > found.odds_ratio


@pytest.mark.parametrize(
    ("confidence", "first", "why", "flipped", "at"),
    [
        (np.linspace(0.4, 1, 9), [1] * 4 + [9] * 5, "fewer than 10 images", 4, 4),
        (np.linspace(0.4, 1, 12), [9] * 12, "no image flips at any budget", 0, 0),
        (np.linspace(0.4, 1, 12), [2] * 12, "every image first flips at 2/255", 12, 0),
        (np.linspace(0.4, 1, 12), [1] * 12, "it takes images that flip and images", 12, 12),
        (np.full(12, 0.8), [1] * 5 + [9] * 7, "the same initial confidence", 5, 5),
        (np.r_[[np.nan] * 2, [0.5] * 10], [1] * 5 + [9] * 7, "of 2 images is not a", 5, 5),
    ],
)
def test_what_cannot_be_estimated_is_nan_and_says_why(confidence, first, why, flipped, at):
    found = effect(table_of(confidence, from_first(first)))
    assert (found.n, found.flipped, found.flipped_at_eps) == (len(confidence), flipped, at)
    assert found.eps_255 == 1 and found.verdict == "undecided"
    numbers = [found.rho, found.rho_low, found.rho_high, found.rho_p]
    numbers += [found.odds_ratio, found.odds_ratio_low, found.odds_ratio_high, found.odds_p]
    assert np.isnan(numbers).all()
    assert f"of {len(confidence)} initially correct images {flipped} flip" in found.sentence
    assert f"no rank correlation can be given ({why}" in found.sentence or why in found.sentence
    assert f"at 1/255, where {at} of {len(confidence)} flip, no odds ratio" in found.sentence
    assert found.sentence.endswith("is left undecided.")


def test_without_images_it_says_so():
    table = table_of(np.linspace(0.4, 1, 12), from_first([2] * 12), clean=[False] * 12)
    found = effect(table)
    assert (found.n, found.flipped, found.flipped_at_eps) == (0, 0, 0)
    assert np.isnan([found.rho, found.eps_255, found.odds_ratio]).all()
    assert "of 0 initially correct images 0 flip at some budget, and no rank" in found.sentence
    assert "/255" not in found.sentence and found.verdict == "undecided"


def test_only_initially_correct_images_count_under_any_protocol(noisy):
    confidence, first, _ = noisy
    clean = np.arange(80) % 4 != 0
    expected = effect(table_of(confidence[clean], from_first(first[clean])))
    table = table_of(confidence, from_first(first), clean=clean)
    for protocol in ("all", "target_correct", "joint"):
        assert effect(table, protocol=protocol) == expected
    source_wrong = (table["target"] == "a") & (table["index"] < 30)
    table.loc[source_wrong, "predicted"] = 1
    assert effect(table, protocol="target_correct") == expected
    assert effect(table, protocol="joint").n == (clean & (np.arange(80) >= 20)).sum()


def test_a_flip_of_a_targeted_attack_is_any_wrong_class(noisy):
    confidence, first, table = noisy
    aimed = effect(table_of(confidence, from_first(first), aims=[7] * 80))
    assert aimed == effect(table)


def test_tables_that_do_not_fit_are_refused(noisy):
    _, _, table = noisy
    with pytest.raises(ValueError, match="'b' was shown no attacked images"):
        effect(table.query("eps_255 == 0"))
    with pytest.raises(ValueError, match="image 15 was shown to 'b' at 4 of 5 budgets"):
        effect(table.query("not (index == 15 and eps_255 == 2)"))
    with pytest.raises(ValueError, match=r"lacks the clean predictions .* of 'b'"):
        effect(table.query("eps_255 > 0 or target == 'a'"), protocol="all")
    with pytest.raises(ValueError, match="no predictions of the targets c"):
        effect(table, target="c")
