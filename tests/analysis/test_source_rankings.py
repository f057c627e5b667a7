"""Rankings of sources against tables worked out by hand, and least squares over images."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis.ranking import ALL_TARGETS, source_rankings
from tests.analysis.conftest import rows_of


def _over_targets(outcomes) -> pd.DataFrame:
    """Return the rankings of sources over all targets."""
    ranked = source_rankings(outcomes)
    one_of = ranked.groupby("attack")["target"].transform("first")
    return ranked[ranked["target"] == one_of].reset_index(drop=True)


def test_a_source_without_counted_images_is_in_no_ranking(outcomes_of) -> None:
    fooled = {"a": [1] * 40, "b": [0] * 40, "broken": [-1] * 40}
    rows = {("mi", source, target): its for source, its in fooled.items() for target in "tuv"}
    assert _over_targets(outcomes_of(rows_of(rows)))["source"].tolist() == ["a", "b"]


def test_sources_are_compared_on_the_images_that_each_target_counts_for_all(outcomes_of) -> None:
    """The weak source counts only the first half, and is worse there."""
    fooled = {"weak": [1] * 10 + [0] * 30 + [-1] * 40, "other": [1] * 20 + [0] * 20 + [1] * 40}
    rows = {("mi", source, target): its for source, its in fooled.items() for target in "tu"}
    ranked = _over_targets(outcomes_of(rows_of(rows)))
    assert ranked["source"].tolist() == ["other", "weak"]
    assert ranked["mean"].tolist() == pytest.approx([0.5, 0.25])
    assert ranked["images"].tolist() == [40, 40]
    assert ranked["difference"].iloc[1] == pytest.approx(-0.25)


def test_a_sources_value_is_its_fit_over_all_targets(outcomes_of) -> None:
    """The rates are a source effect plus a target effect, and each source lacks itself."""
    source = {"a": 0.3, "b": 0.2, "c": 0.05}
    target = {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.0, "e": 0.6}
    rows = {
        ("mi", s, t): [1] * round(80 * (own + its)) + [0] * round(80 * (1 - own - its))
        for s, own in source.items()
        for t, its in target.items()
    }
    ranked = _over_targets(outcomes_of(rows_of(rows))).set_index("source")
    values = {name: effect + np.mean(list(target.values())) for name, effect in source.items()}
    assert ranked["mean"].to_dict() == pytest.approx(values)
    assert ranked["targets"].eq(5).all() and not ranked["extrapolated"].any()
    assert ranked["difference"]["c"] == pytest.approx(-0.25)


def test_sources_are_tested_by_flipping_what_each_image_contributes(outcomes_of) -> None:
    random = np.random.default_rng(4)
    shares = {"a": 0.6, "b": 0.45, "c": 0.3}
    values = {(s, t): random.random(80) < shares[s] for s in shares for t in "abcde" if s != t}
    rows = {("mi", *pair): [*map(int, its)] for pair, its in values.items()}
    ranked = _over_targets(outcomes_of(rows_of(rows))).set_index("source")
    pairs = list(values)
    design = np.array([[s == x for x in "abc"] + [t == x for x in "bcde"] for s, t in pairs], float)
    effects = np.linalg.lstsq(design, np.array([values[pair] for pair in pairs]), rcond=None)[0]
    parts = effects[0] - effects[1]  # of a and b, image by image
    assert ranked["difference"]["b"] == pytest.approx(-parts.mean())
    others = [effects[0] - effects[2], effects[1] - effects[2], parts]
    signs = random.integers(0, 2, (20_000, 80)) * 2 - 1
    largest = np.max([np.abs(signs @ d) / np.sqrt(d @ d) for d in others], axis=0)
    p = np.mean(largest >= abs(parts.sum()) / np.sqrt(parts @ parts))
    assert ranked["p"]["b"] == pytest.approx(p, abs=0.02)
    assert not ranked["undecided"]["c"] and ranked["difference_high"]["c"] < 0


def test_a_value_beyond_all_or_nothing_is_called_extrapolated(outcomes_of) -> None:
    """The target that a lacks, itself, is fooled less from b than all others by 90 points."""
    rows = {("mi", "a", t): [1] * 2 + [0] * 38 for t in "cd"}
    rows |= {("mi", "b", t): [1] * 38 + [0] * 2 for t in "cd"}
    rows["mi", "b", "a"] = [0] * 40
    ranked = _over_targets(outcomes_of(rows_of(rows))).set_index("source")
    assert ranked["mean"].to_dict() == pytest.approx({"b": 1.9 / 3, "a": 1.9 / 3 - 0.9})
    assert ranked["extrapolated"].to_dict() == {"b": False, "a": True}


def test_sources_with_fewer_than_two_common_targets_are_not_ranked(outcomes_of) -> None:
    rows = {("mi", source, target): [1, 0] * 20 for source in "ab" for target in "abc"}
    rows["mi", "a", "d"] = [1, 0] * 20
    ranked = _over_targets(outcomes_of(rows_of(rows)))
    assert ranked[["rank", "mean"]].isna().all(axis=None)
    assert ranked["lacks"].tolist() == ["d as a target of both a and b"] * 2
    rows["mi", "b", "d"] = [1, 0] * 20
    assert _over_targets(outcomes_of(rows_of(rows)))["rank"].tolist() == [1, 2]


def test_sources_are_ranked_over_the_attacks_that_all_of_them_have(outcomes_of) -> None:
    rows = {
        (attack, source, target): [int(source == "a"), 0] * 20
        for attack in ("mi", "bim")
        for source in "ab"
        for target in "cd"
    }
    rows["fgsm", "a", "c"] = [0, 0] * 20
    ranked = _over_targets(outcomes_of(rows_of(rows)))
    assert ranked["attack"].unique().tolist() == ["mean of 2 attacks", "mi", "bim"]
    assert ranked["mean"].tolist() == pytest.approx([0.5, 0] * 3)
    assert not ranked["extrapolated"].any()


def test_a_target_that_counts_no_image_for_all_sources_is_left_out(outcomes_of) -> None:
    values = {
        ("mi", source, target): [-1] * 40 if target == "d" else [1, 0] * 20
        for source in "abc"
        for target in "defg"
    }
    ranked = _over_targets(outcomes_of(rows_of(values)))
    assert ranked["targets"].tolist() == [3, 3, 3] and ranked["rank"].notna().all()


NETWORKS = {"a": 0.55, "b": 0.5, "c": 0.3}


def _between_networks(extra: dict[str, dict[str, float]], images: int = 400) -> dict:
    """Return random outcomes of networks that attack each other, and of more targets by share."""
    random = np.random.default_rng(3)
    right = {name: random.random(images) < 0.9 for name in "abc"}
    shares = {(s, t): NETWORKS[s] for s in "abc" for t in "abc" if s != t}
    shares |= {(s, t): share for t, its in extra.items() for s, share in its.items()}
    return {
        ("mi", s, t): np.where(right[s] & right.get(t, True), random.random(images) < share, -1)
        for (s, t), share in shares.items()
    }


def test_sources_are_ranked_on_each_target_by_the_images_that_all_of_them_count(
    outcomes_of,
) -> None:
    """Two sources on a target: the shares of pandas, and McNemar's exact p of SciPy."""
    values = _between_networks({})
    ranked = source_rankings(outcomes_of(rows_of(values)))
    assert (
        ranked.loc[ranked["target"] == ALL_TARGETS, "lacks"]
        .eq("1 more target besides a, b, c")
        .all()
    )
    frame = pd.DataFrame(values)
    for target, pair in {"a": "bc", "b": "ac", "c": "ab"}.items():
        its = frame.xs(target, axis=1, level=2)["mi"]
        # The third network's outcomes say which images it classifies correctly.
        its = its[(frame != -1).all(axis=1)]
        rows = ranked[ranked["target"] == target].set_index("source")
        assert rows["mean"].to_dict() == pytest.approx(its.mean().to_dict())
        assert rows["images"].eq(len(its)).all() and set(rows.index) == set(pair)
        first, second = rows.index
        only = [
            int(((its[x] == 1) & (its[y] == 0)).sum()) for x, y in (rows.index, rows.index[::-1])
        ]
        p = binomtest(only[0], sum(only)).pvalue
        assert rows.loc[second, "p"] == pytest.approx(p, abs=0.02), (first, second)
        assert rows.loc[second, "undecided"] == (p >= 0.05)


def test_a_missing_target_is_never_a_source_itself(outcomes_of) -> None:
    for rows in (
        {("mi", s, (t, "jpeg")): [1, 0] * 20 for s in "abc" for t in "abc"},
        {("mi", s, t): [1, 0] * 20 for s in ("a+b", "b+c") for t in "abc"},
    ):
        lacks = source_rankings(outcomes_of(rows_of(rows)))["lacks"].iloc[0]
        assert "more target" in lacks


def test_one_target_ranks_two_sources_and_a_white_box_ranks_none(outcomes_of) -> None:
    rows = {("mi", s, "t"): [1] * n + [0] * (60 - n) for s, n in {"a": 30, "b": 5}.items()}
    ranked = source_rankings(outcomes_of(rows_of(rows)))
    assert ranked[["target", "source", "rank"]].to_numpy().tolist() == [
        ["t", "a", 1],
        ["t", "b", 2],
    ]
    assert not ranked["undecided"].iloc[1] and ranked["depends_on"].eq("").all()
    rows = {("mi", s, s): [1, 0] * 30 for s in "ab"}
    assert source_rankings(outcomes_of(rows_of(rows))).empty


def test_a_lead_that_one_target_decides_names_it_and_where_the_second_is_ahead(
    outcomes_of,
) -> None:
    """Leaving each target out, by least squares of each image over the others."""
    values = _between_networks({"d": {"a": 0.2, "b": 0.7, "c": 0.1}})
    ranked = source_rankings(outcomes_of(rows_of(values)))
    whole = ranked[ranked["target"] == ALL_TARGETS]
    assert whole["source"].iloc[0] == "b" and not whole["undecided"].iloc[1:].any()
    frame = pd.DataFrame(values)["mi"]
    images = (frame != -1).all(axis=1)
    random, lost = np.random.default_rng(5), []
    for target in "abcd":
        rest = frame.loc[images, [pair for pair in frame if pair[1] != target]]
        design = np.array([[s == x for x in "abc"] + [t == x for x in "abcd"] for s, t in rest])
        effects = np.linalg.pinv(design.astype(float)) @ rest.to_numpy(float).T
        parts = np.array([effects[1] - effects[0], effects[1] - effects[2]])
        signs = random.integers(0, 2, (4000, parts.shape[1])) * 2 - 1
        scale = np.sqrt(np.square(parts).sum(axis=1))
        largest = np.abs(signs @ parts.T / scale).max(axis=1)
        p = [np.mean(largest >= abs(its)) for its in parts.sum(axis=1) / scale]
        ahead = bool((parts.mean(axis=1) > 0).all() and max(p) < 0.05)
        lost += [target] * (not ahead)
    assert whole["depends_on"].tolist() == [", ".join(lost), "", ""] and lost == ["d"]


@pytest.mark.parametrize("lacking", ["bim", "mi"])
def test_a_mean_over_attacks_has_only_the_pairs_of_all(outcomes_of, lacking) -> None:
    rates = {"a": 0.6, "b": 0.4}
    rows = {
        (attack, source, target): [1] * round(40 * rate) + [0] * round(40 * (1 - rate))
        for attack in ("bim", "mi")
        for source, rate in rates.items()
        for target in "tuv"
        if (attack, target) != (lacking, "v")
    }
    ranked = _over_targets(outcomes_of(rows_of(rows)))
    ranked = ranked[ranked["attack"] == "mean of 2 attacks"].set_index("source")
    assert ranked["mean"].to_dict() == pytest.approx(rates)
    assert ranked["targets"].eq(2).all()
