"""Controls, frequency bands and similarity against counts of random predictions."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from src.analysis import excess, excess_by_control
from src.analysis.diagnostics import filtered_rates, low_pass_accuracy, pair_similarity
from src.analysis.intervals import paired_interval, wilson_interval
from tests.analysis.conftest import make_table

N = 150
KEYS = [(model, eps) for model in "abc" for eps in (0, 2, 8)]
BANDS = {"all": (0, 0.7), "low": (0, 0.125), "mid": (0.125, 0.25), "high": (0.25, 0.7)}
NEEDS = {"all": "", "source_correct": "a", "target_correct": "t", "joint": "at"}
COUNTS = ["denominator", "success", "control_success", "attack_only", "control_only"]


def drawn(random, keys=KEYS):
    return {key: random.integers(0, 3, N) for key in keys}


def check_excess(row, clean, pair, labels, protocol="joint"):
    """Check a row against the classes of images; the true class is 0."""
    right = {"a": clean["a", 0] == 0, "t": clean[row["target"], 0] == 0}
    counted = np.logical_and.reduce([right[name] for name in NEEDS[protocol]] or [np.ones(N, bool)])
    if labels is not None:
        counted = counted & (labels != 0)
    one, other = (its != 0 if labels is None else its == labels for its in pair)
    masks = [np.ones(N, bool), one, other, one & ~other, other & ~one]
    n, *_, b, c = counts = [int((counted & mask).sum()) for mask in masks]
    assert row[COUNTS].tolist() == counts and row["targeted"] == (labels is not None)
    assert row["success_rate"] == counts[1] / n and row["control_success_rate"] == counts[2] / n
    ends = [float(end) for end in paired_interval(b, c, n)]
    assert row[["excess", "excess_low", "excess_high"]].tolist() == [(b - c) / n, *ends]


@pytest.mark.parametrize("targeted", [False, True])
def test_excess_subtracts_the_controls_successes_on_the_same_images(targeted):
    random = np.random.default_rng(0)
    attack, noise = drawn(random), drawn(random)
    labels = random.integers(0, 3, N) if targeted else None
    attacked, control = (make_table(its, target_label=labels) for its in (attack, noise))
    tables = {"float32": attacked, "noise": control.sample(frac=1, random_state=0)}
    for protocol in NEEDS:
        found = excess_by_control(tables, "float32", "a", ["c", "b"], protocol)
        places = found[["control", "target", "eps_255"]].to_numpy().tolist()
        assert places == [["noise", target, eps] for target in "cb" for eps in (2, 8)]
        for _, row in found.iterrows():
            key = row["target"], int(row["eps_255"])
            check_excess(row, attack, (attack[key], noise[key]), labels, protocol)


def test_a_control_that_lacks_a_row_is_refused():
    table = make_table({("a", 0): [0, 0], ("a", 8): [1, 1]})
    with pytest.raises(ValueError, match="target 'a' and image 1 at eps_255 = 8"):
        excess(table, table[table["index"] == 0], "a", ["a"])


@pytest.mark.parametrize("targeted", [False, True])
def test_filtered_perturbations_are_compared_with_noise_of_their_band(targeted):
    random, parts, filtered = np.random.default_rng(1), [], {}
    attack = drawn(random)
    labels = random.integers(0, 3, N) if targeted else None
    for band, (low, high) in BANDS.items():
        for target in "ba":
            filtered[target, band] = drawn(random, ["attack", "noise"])
            for kind, classes in filtered[target, band].items():
                what = {"frequency_low": low, "frequency_high": high, "band": band, "kind": kind}
                parts.append(make_table({(target, 8): classes}).assign(**what))
    table = pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0)
    frame = filtered_rates(table, make_table(attack, target_label=labels), "a", ["b", "a"])
    assert list(zip(frame["target"], frame["band"], strict=True)) == [
        (target, band) for target in "ba" for band in BANDS
    ]
    for _, row in frame.iterrows():
        check_excess(row, attack, filtered[row["target"], row["band"]].values(), labels)
        assert (row["frequency_low"], row["frequency_high"]) == BANDS[row["band"]]


def test_low_passed_images_are_counted_beside_the_same_ones_unfiltered():
    kinds = {("b", 0.375): [0, 0, 1], ("b", 0.0625): [1, 2, 0], ("a", 0.25): [0, 0, 0]}
    low_passed = make_table(kinds).rename(columns={"eps_255": "cutoff"})
    clean = make_table({("a", 0): [0, 0, 0, 0], ("b", 0): [0, 0, 1, 0], ("c", 0): [0, 0, 0]})
    frame = low_pass_accuracy(low_passed, clean.sample(frac=1, random_state=0))
    frame = frame.sort_values(["target", "cutoff"], ascending=[False, True])
    assert frame["target"].tolist() == ["b", "b", "b", "a", "a"]
    assert frame["cutoff"].tolist() == [0.0625, 0.375, np.inf, 0.25, np.inf]
    assert frame["n"].eq(3).all() and frame["correct"].tolist() == [1, 2, 2, 3, 3]
    np.testing.assert_allclose(frame["accuracy"], [1 / 3, 2 / 3, 2 / 3, 1, 1])
    interval = wilson_interval(frame["correct"], 3)
    np.testing.assert_array_equal(frame[["accuracy_low", "accuracy_high"]].T, interval)


def similarity_of(first, second, fooled, cosine, index=None):
    """Return the similarity of source `a` to itself and to `b`."""
    n = len(first)
    classes = {("a", 0): first, ("b", 0): second, ("a", 8): [1] * n}
    table = make_table(classes | {("b", 4): [0] * n, ("b", 8): fooled})
    like = pd.DataFrame({"index": np.tile(np.arange(n), 2), "target": np.repeat(["a", "b"], n)})
    like = like.assign(cosine=[*[1.0] * n, *cosine]).sample(frac=1, random_state=0)
    if index is not None:
        like = like[like["index"].isin(index)]
    return pair_similarity(table, like, "a", ["a", "b"], 8, "joint").set_index("target")


def test_a_pair_is_described_on_its_counted_images_that_have_a_cosine():
    random = np.random.default_rng(3)
    first, second, fooled = random.integers(0, 5, (3, N)) // 3
    second = np.where(random.random(N) < 0.5, first, second)
    cosine = np.where(random.random(N) < 0.1, np.nan, random.uniform(-0.3, 0.9, N))
    index = np.arange(10, N)
    found = similarity_of(first, second, fooled, cosine, index)
    counted = index[(first[index] == 0) & (second[index] == 0)]
    row, known = found.loc["b"], cosine[counted][~np.isnan(cosine[counted])]
    n, k = len(counted), (fooled[counted] != 0).sum()
    assert (row["n"], row["relation"]) == (n, "transfer")
    ends = student.interval(
        0.95, len(known) - 1, known.mean(), known.std(ddof=1) / len(known) ** 0.5
    )
    names = ["cosine", "cosine_low", "cosine_high"]
    assert row[names].tolist() == pytest.approx([known.mean(), *ends])
    ends = [float(end) for end in wilson_interval(k, n)]
    names = ["success_rate", "success_rate_low", "success_rate_high"]
    assert row[names].tolist() == pytest.approx([k / n, *ends])
    # Cohen's kappa of all clean images with the variance of Fleiss, Cohen and Everitt (1969).
    cells = pd.crosstab(first == 0, second == 0, normalize=True).to_numpy()
    of_first, of_second = cells.sum(axis=1), cells.sum(axis=0)
    expected = of_first @ of_second
    kappa = (cells.trace() - expected) / (1 - expected)
    weights = np.eye(2) - np.add.outer(of_second, of_first) * (1 - kappa)
    variance = (cells * weights**2).sum() - (kappa - expected * (1 - kappa)) ** 2
    half = 1.959964 * np.sqrt(variance / N) / (1 - expected)
    assert row[["kappa", "kappa_low", "kappa_high"]].tolist() == pytest.approx(
        [kappa, kappa - half, kappa + half]
    )
    white = found.loc["a"]
    assert white["relation"] == "white box" and white["n"] == (first[index] == 0).sum()
    assert white[["cosine", "kappa", "success_rate"]].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("first", "second", "kappa"),
    [([0, 1], [0, 1], 1), ([0, 1], [1, 0], -1), ([0, 0], [0, 0], np.nan), ([1, 2], [1, 2], np.nan)],
)
def test_error_consistency_of_extremes(first, second, kappa):
    """Models that are always right, or always wrong, agree by necessity."""
    row = similarity_of(first, second, first, [0.1] * 2).loc["b"]
    found = row[["kappa", "kappa_low", "kappa_high"]].tolist()
    assert found == pytest.approx([kappa] * 3, nan_ok=True)
    almost = similarity_of([0] * 8 + [1] * 4, [0] * 8 + [1] * 3 + [0], [1] * 12, [0.1] * 12)
    opposite = similarity_of([0] * 6 + [1] * 6, [1] * 5 + [0] * 7, [1] * 12, [0.1] * 12)
    assert almost.loc["b", ["kappa", "kappa_high"]].tolist() == pytest.approx([0.8, 1])
    assert opposite.loc["b", "kappa_low"] == -1 < opposite.loc["b", "kappa"]
