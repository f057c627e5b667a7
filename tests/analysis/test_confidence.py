"""Confidence by class, level, rank and group, and single images over the budgets."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm, spearmanr

from src.analysis.confidence import (
    by_class,
    by_initial_confidence,
    confidence_profiles,
    initial_confidence_effect,
    top_k,
)
from src.analysis.intervals import wilson_interval
from src.analysis.outcomes import job_outcomes
from src.analysis.trajectories import KINDS, by_kind, flip_summary, trajectories
from src.utils.model_names import ModelRef
from tests.analysis.conftest import make_table

# The top five of seven images, as a model with six classes gives them; it abstains on the last.
LABELS = [3, 1, 1, 7, 7, 0, 0]
TOP = [
    ([3, 1, 7, 0, 5], [0.99, 0.005, 0.003, 0.001, 0.001]),  # correct
    ([1, 3, 7, 0, 5], [0.975, 0.01, 0.005, 0.004, 0.003]),  # correct
    ([7, 1, 3, 0, 5], [0.60, 0.20, 0.10, 0.05, 0.03]),  # the second is correct
    ([7, 1, 3, 0, 5], [0.62, 0.20, 0.10, 0.05, 0.02]),  # correct
    ([3, 1, 7, 0, 5], [0.94, 0.03, 0.02, 0.005, 0.004]),  # the third is correct
    ([3, 1, 7, 2, 5], [0.3, 0.25, 0.2, 0.1, 0.1]),  # not among the five
    ([-1, 1], [np.nan, np.nan]),
]
TRUE = [0.99, 0.975, 0.20, 0.62, 0.02, 0.05, np.nan]
CLEAN = pd.DataFrame(
    {
        **{"index": range(7), "label": LABELS, "target": "vgg16", "eps_255": 0.0},
        "predicted": [classes[0] for classes, _ in TOP],
        "confidence": np.array([values[0] for _, values in TOP], np.float32),
        "true_confidence": np.array(TRUE, np.float32),
        "top5_classes": [np.array(classes) for classes, _ in TOP],
        "top5_confidences": [np.array(values, np.float32) for _, values in TOP],
    }
)


def test_classes_are_counted_and_their_confidence_averaged():
    means = by_class(CLEAN.sample(frac=1, random_state=0))
    assert means["label"].tolist() == [3, 1, 7, 0] and means["images"].tolist() == [1, 2, 2, 1]
    np.testing.assert_allclose(means["confidence"], [0.99, 0.7875, 0.78, 0.3], rtol=1e-6)
    np.testing.assert_allclose(means["accuracy"], [1, 0.5, 0.5, 0])
    assert by_class(CLEAN[CLEAN["predicted"] == -1]).empty


def test_a_level_takes_its_lower_bound_and_not_its_upper_one():
    frame = confidence_profiles(CLEAN)
    # 0.975 is of level 1.0, not of 0.95; 0.60 and 0.62 are of 0.6; 0.3 of none.
    images = frame[frame["rank"] == 1].set_index("level")["images"]
    assert images.to_dict() == {1.0: 2, 0.95: 1, 0.6: 2}
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5] * 3
    top = np.array([TOP[0][1], TOP[1][1]])
    np.testing.assert_allclose(frame["confidence"][:5], top.mean(axis=0), rtol=1e-5)


def test_top_k_counts_the_true_class_among_the_likeliest():
    frame = top_k(CLEAN)
    assert frame[["k", "n", "correct"]].to_numpy().tolist() == [[1, 6, 3], [5, 6, 5]]
    for _, row in frame.iterrows():
        check_mean(row, "accuracy", row["correct"] / 6)
    expected = [np.mean([values[0] for _, values in TOP[:6]]), np.mean(TRUE[:5])]
    np.testing.assert_allclose(frame["confidence"], expected, rtol=1e-6)


def check_mean(row, name, mean, low=0.0, high=1.0):
    """Check a mean of n values from a range, with Wilson's interval within the range."""
    ends = wilson_interval((mean - low) / (high - low) * row["n"], row["n"])
    ends = [low + (high - low) * float(end) for end in ends]
    found = row[[name, f"{name}_low", f"{name}_high"]].tolist()
    assert found == pytest.approx([mean, *ends], rel=1e-5)


def outcomes(table):
    return job_outcomes(table, "a", [ModelRef.parse("b")], "joint")


@pytest.mark.parametrize("groups", [3, 5, [0.5, 0.8]])
def test_groups_by_initial_confidence_are_those_of_plain_loops(groups):
    """Equally many images of `b` in each, of those correct when clean; fixed ones by edges."""
    random, n = np.random.default_rng(0), 61
    initial, later = random.uniform(0.3, 1, (2, n)).astype(np.float32)
    initial[0] = np.nan
    clean, wrong = random.random(n) < 0.2, random.random(n) < 0.5
    classes = {("a", 0): 0 * wrong, ("b", 0): clean * 1, ("b", 4): wrong * 1}
    goals = [1] * 55 + [0] * 6  # of the last ones, the true class
    confidence = {("b", 0): initial, ("b", 4): later}
    table = make_table(classes, target_label=goals, confidence=confidence)
    frame = by_initial_confidence(outcomes(table), groups)
    images = [at for at in range(1, 55) if not clean[at]]
    images.sort(key=lambda at: -initial[at])
    if isinstance(groups, int):
        ends = [len(images) - len(images) * part // groups for part in range(1, groups)]
        parts = np.split(images, ends[::-1])
        spans = [(initial[part].min(), initial[part].max()) for part in parts]
    else:
        spans = [(0.8, 1.0), (0.5, 0.8), (0.0, 0.5)]
        parts = [[at for at in images if low <= initial[at] < high] for low, high in spans]
    assert frame["group"].tolist() == sorted([*range(1, len(parts) + 1)] * 2)
    for number, (part, span) in enumerate(zip(parts, spans, strict=True)):
        first, row = (frame.iloc[2 * number + place] for place in (0, 1))
        still = (~wrong[part]).sum()
        assert row[["eps_255", "n", "still_correct"]].tolist() == [4, len(part), still]
        assert first[["eps_255", "n", "still_correct"]].tolist() == [0, len(part), len(part)]
        assert row[["lowest", "highest"]].tolist() == pytest.approx(span)
        check_mean(row, "robust_accuracy", still / len(part))
        check_mean(row, "confidence", later[part].mean())
        check_mean(first, "confidence", initial[part].mean(), *row[["lowest", "highest"]])


def test_equal_confidences_are_in_one_group():
    its = [1.0] * 7 + [0.5, 0.6]
    table = make_table({("a", 0): [0] * 9, ("b", 0): [0] * 9}, confidence={("b", 0): its})
    frame = by_initial_confidence(outcomes(table))
    assert frame["n"].tolist() == [7, 2]
    table["predicted"] = 1
    assert by_initial_confidence(outcomes(table)).empty


def effect(confidence, first):
    ways = {"target": "b", "initial_confidence": confidence, "first_flip_eps_255": first}
    (row,) = initial_confidence_effect(pd.DataFrame(ways)).to_dict("records")
    return row


def test_rho_and_its_interval_are_scipys_with_never_above_every_budget():
    """80 images; the more confident flip later, on the whole; some never."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.4, 1, 80)
    place = np.searchsorted([1, 2, 4, 8], random.exponential(12 * confidence**4))
    first = np.array([1, 2, 4, 8, np.nan])[place]
    verdicts = {"supported": (confidence, first), "contradicted": (-confidence, first)}
    verdicts["undecided"] = (confidence, np.random.default_rng(1).permutation(first))
    for verdict, (its, budgets) in verdicts.items():
        found = effect(its, budgets)
        rho = spearmanr(its, np.nan_to_num(budgets, nan=1e9)).statistic
        assert (found["n"], found["flipped"]) == (80, np.isfinite(first).sum())
        assert found["verdict"] == verdict
        # Bonett and Wright (2000): Fisher's z, with the variance of ranks.
        half = 1.96 * np.sqrt((1 + rho**2 / 2) / 77)
        ends = np.tanh(np.arctanh(rho) + np.array([-half, half]))
        assert found["rho"] == pytest.approx(rho, abs=1e-12)
        assert [found["rho_low"], found["rho_high"]] == pytest.approx(ends, abs=1e-4)
    exact = effect(np.arange(20), np.arange(1.0, 21))
    assert exact["rho"] == 1 and 0.9 < exact["rho_low"] <= exact["rho_high"] <= 1
    assert effect(np.arange(10), np.arange(1.0, 11))["verdict"] == "supported"


@pytest.mark.parametrize(
    ("confidence", "first"),
    [
        (np.linspace(0.4, 1, 9), [1] * 4 + [np.nan] * 5),
        (np.linspace(0.4, 1, 12), [np.nan] * 12),
        (np.full(12, 0.8), [1] * 5 + [np.nan] * 7),
        ([np.nan] * 2 + [0.5, 0.6] * 5, [1] * 5 + [2] * 7),
    ],
)
def test_few_images_and_equal_values_have_no_rho(confidence, first):
    found = effect(confidence, first)
    assert (found["n"], found["flipped"]) == (len(first), np.isfinite(first).sum())
    assert found["verdict"] == "not computable"
    assert np.isnan([found[name] for name in ("rho", "rho_low", "rho_high")]).all()


EPS = [0, 0.5, 1, 2, 4]

# Each image over the budgets: (predicted, confidence, true_confidence); label 0.
WAYS = {
    # keeps its class; dips from 0.9 to 0.5 and regains 0.2 of 0.4
    10: [(0, 0.9, 0.9), (0, 0.8, 0.8), (0, 0.5, 0.5), (0, 0.6, 0.6), (0, 0.7, 0.7)],
    # keeps its class; regains too little
    11: [(0, 0.9, 0.9), (0, 0.8, 0.8), (0, 0.5, 0.5), (0, 0.6, 0.6), (0, 0.69, 0.69)],
    # flips at 0.5, is back at 2, flips again; ends more confident
    12: [(0, 0.8, 0.8), (3, 0.5, 0.4), (3, 0.6, 0.3), (0, 0.55, 0.55), (3, 0.85, 0.1)],
    # flips at 1, most confident at 2, ends less confident than it began
    13: [(0, 0.4, 0.4), (0, 0.3, 0.3), (5, 0.45, 0.2), (6, 0.7, 0.1), (5, 0.35, 0.05)],
    # wrong when clean
    14: [(1, 0.6, 0.2), (1, 0.6, 0.2), (1, 0.6, 0.2), (1, 0.6, 0.2), (1, 0.6, 0.2)],
    # keeps its class, and falls too little for a dip
    15: [(0, 0.7, 0.7), (0, 0.66, 0.66), (0, 0.7, 0.7), (0, 0.71, 0.71), (0, 0.72, 0.72)],
    # flips at 4 only, exactly as confident as when clean
    16: [(0, 0.5, 0.5), (0, 0.6, 0.6), (0, 0.6, 0.6), (0, 0.6, 0.6), (2, 0.5, 0.3)],
}
COLUMNS = {
    "index": [10, 11, 12, 13, 15, 16],
    "initial_confidence": [0.9, 0.9, 0.8, 0.4, 0.7, 0.5],
    "first_flip_eps_255": [np.nan, np.nan, 0.5, 1, np.nan, 4],
    "lowest_confidence": [0.5, 0.5, 0.1, 0.05, 0.66, 0.3],
    "lowest_eps_255": [1, 1, 4, 4, 0.5, 4],
    "recovered_confidence": [0.7, 0.69, np.nan, np.nan, 0.72, np.nan],
    "back_eps_255": [np.nan, np.nan, 2, np.nan, np.nan, np.nan],
    "end_confidence": [np.nan, np.nan, 0.85, 0.35, np.nan, 0.5],
}


def make_rows(ways=WAYS):
    """Return the rows of `b` with these ways, and of `a` that never changes."""
    columns = ["index", "predicted", "confidence", "true_confidence", "target", "eps_255"]
    rows = [
        (index, *prediction, target, float(budget))
        for target in "ab"
        for index, way in ways.items()
        for budget, its in zip(EPS, way, strict=True)
        for prediction in [its if target == "b" else (0, 0.2, 0.2)]
    ]
    frame = pd.DataFrame(rows, columns=columns).assign(label=0).sample(frac=1, random_state=0)
    return frame.astype({"confidence": np.float32, "true_confidence": np.float32})


def found_in(rows, *protocol, **words):
    return trajectories(rows, "a", ["b"], *protocol, **words).set_index("index", drop=False)


def check(frame, **columns):
    for name, values in columns.items():
        np.testing.assert_allclose(frame[name], values, rtol=1e-6, err_msg=name)


def test_numbers_and_kinds_are_those_worked_out_by_hand():
    found = found_in(make_rows())
    check(found, **COLUMNS)
    kinds = {kind: found.index[found[kind]].tolist() for kind in KINDS}
    assert kinds == {"dip_and_recovery": [10]} | {kind: [12] for kind in list(KINDS)[1:]}
    both = trajectories(make_rows(), "a", ["b", "a"])
    assert both["target"].unique().tolist() == ["b", "a"]
    b, a = flip_summary(both).to_dict("records")
    counts = {"target": "b", "initially_correct": 6, "flipped": 3, "flipped_share": 0.5}
    assert b == {**counts, "median_first_flip_eps_255": 4, "below_8_bits": 1}
    assert (a["flipped"], a["below_8_bits"]) == (0, 0) and np.isnan(a["median_first_flip_eps_255"])
    in_l2 = found_in(make_rows(), norm="l2")
    pd.testing.assert_frame_equal(in_l2, found.drop(columns="below_8_bits"))
    assert "below_8_bits" not in flip_summary(in_l2)
    targeted = make_rows().assign(target_label=7).convert_dtypes()
    check(found_in(targeted), **COLUMNS)  # any other class is a flip


@pytest.mark.parametrize(
    ("lowest", "last", "dips"),
    [(0.75, 0.775, True), (0.75, 0.774, False), (0.751, 0.8, False), (0.2, 0.5, True)],
)
def test_a_dip_is_five_points_and_a_recovery_is_half_of_it(lowest, last, dips):
    way = [(0, c, c) for c in (0.8, 0.79, lowest, last, last)]
    assert found_in(make_rows({1: way}))["dip_and_recovery"].item() is dips


@pytest.mark.parametrize(
    ("protocol", "counted"),
    [
        ("joint", [10, 11, 13, 15, 16]),
        ("target_correct", COLUMNS["index"]),
        ("all", COLUMNS["index"]),
    ],
)
def test_the_protocol_decides_which_images_are_counted(protocol, counted):
    rows = make_rows()
    rows.loc[(rows["target"] == "a") & (rows["index"] == 12), "predicted"] = 1
    assert found_in(rows, protocol)["index"].tolist() == counted


def test_the_clearest_image_of_each_kind_comes_first():
    table = pd.DataFrame(
        {
            "target": "b",
            "index": [4, 3, 2, 1],
            "initial_confidence": [0.5, 0.7, 0.5, 0.9],
            "lowest_confidence": [0.3, 0.4, 0.1, 0.5],
            "recovered_confidence": [0.5, 0.7, 0.15, 0.62],
            "end_confidence": [0.55, 0.8, 0.7, 0.91],
            "first_flip_eps_255": [0.1, 0.4, 0.3, 0.8],
            **dict.fromkeys(KINDS, True),
        }
    )
    kinds = by_kind(table)
    first = {kind: rows["index"].tolist()[:2] for kind, rows in kinds.items() if len(rows)}
    assert first == dict(zip(KINDS, ([3, 4], [1, 3], [2, 3], [4, 2]), strict=True))
    never = by_kind(table.assign(first_flip_eps_255=np.nan))["never_flips"]
    assert never["index"].tolist() == [1, 3, 4, 2]


@pytest.mark.slow
@pytest.mark.parametrize("n", [40, 300])
@pytest.mark.parametrize("never", [0.0, 0.9])
@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_of_rho_covers_it_on_tied_budgets(n, never, rho):
    """Of initial confidence and the first of seven budgets that flips; the last is never."""
    generator, samples = np.random.default_rng(n), 500
    latent = 2 * np.sin(np.pi * rho / 6)  # Pearson's of two normal variables with that Spearman's
    one, other = generator.standard_normal((2, 1000 * n))
    rank = norm.cdf(latent * one + np.sqrt(1 - latent**2) * other)
    shares = np.cumsum([0.55, 0.15, 0.1, 0.08, 0.05, 0.04, 0.03]) * (1 - never)
    budget = np.searchsorted(shares, rank).astype(float)
    truth = spearmanr(one, budget).statistic
    ways = pd.DataFrame({"initial_confidence": norm.cdf(one), "first_flip_eps_255": budget})
    ways = ways.mask(ways == 7)[: samples * n].assign(target=np.repeat(np.arange(samples), n))
    found = initial_confidence_effect(ways).dropna(subset="rho")
    covered = ((found["rho_low"] <= truth) & (truth <= found["rho_high"])).mean()
    assert binom.ppf(0.001, len(found), 0.93) / len(found) <= covered
    assert covered <= binom.ppf(0.999, len(found), 0.98) / len(found)
