"""Rankings of attacks and sources against tables worked out by hand."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis.image_outcomes import joined
from src.analysis.intervals import wilson_interval
from src.analysis.ranking import ALL_TARGETS, rankings, source_rankings


def _rows(success: dict[tuple[str, str, str], list[int]], aimed: bool = False) -> pd.DataFrame:
    """Return outcomes of images by (attack, source, target); -1 is an image not counted."""
    parts = [
        pd.DataFrame(
            {
                "attack": attack,
                "source": source,
                "target": [target] * len(values),
                "index": range(len(values)),
                "target_label": 3.0 if aimed else np.nan,
                "counted": [value >= 0 for value in values],
                "success": [value == 1 for value in values],
            }
        )
        for (attack, source, target), values in success.items()
    ]
    return pd.concat(parts, ignore_index=True)


def _over_targets(outcomes) -> pd.DataFrame:
    """Return the rankings of sources over all targets."""
    ranked = source_rankings(outcomes)
    one_of = ranked.groupby("attack")["target"].transform("first")
    return ranked[ranked["target"] == one_of].reset_index(drop=True)


def test_success_is_the_mean_over_targets_of_their_means_over_other_sources(outcomes_of) -> None:
    rows = _rows(
        {
            ("mi", "a", "a"): [1, 1, 1, 1],  # the white box, left out
            ("mi", "a", "b"): [1, 0, -1, -1],
            ("mi", "a", "c"): [1, 1, 0, -1],
            ("mi", "b", "c"): [1, 0, 0, 0],
            ("bim", "a", "b"): [0, 0, -1, -1],
            ("bim", "a", "c"): [1, 0, 0, -1],
            ("bim", "b", "c"): [1, 0, 0, 0],
        }
    )
    ranked = rankings(outcomes_of(rows))
    ranked = ranked[ranked["source"] == "mean of 2 sources"]
    assert ranked["attack"].tolist() == ["mi", "bim"]
    means = [(1 / 2 + (2 / 3 + 1 / 4) / 2) / 2, (0 + (1 / 3 + 1 / 4) / 2) / 2]
    assert ranked["mean"].tolist() == pytest.approx(means)
    assert ranked["difference"].iloc[1] == pytest.approx(means[1] - means[0])
    assert ranked["images"].tolist() == [4, 4]
    assert ranked["targets"].tolist() == [2, 2]
    assert ranked["rank"].tolist() == [1, 2]
    assert ranked[["low", "high"]].isna().all(axis=None)  # four images have no interval
    assert ranked["undecided"].all()


def test_a_difference_is_tested_by_flipping_what_each_image_contributes(outcomes_of) -> None:
    """The number of counted images differs between pairs; a plain loop over random signs."""
    random = np.random.default_rng(3)
    counted = {("a", "b"): 60, ("a", "c"): 50, ("b", "c"): 35, ("b", "a"): 40}
    values = {
        (attack, *pair): [*map(int, random.random(n) < share), *[-1] * (60 - n)]
        for attack, share in {"mi": 0.6, "bim": 0.45}.items()
        for pair, n in counted.items()
    }
    ranked = rankings(outcomes_of(_rows(values)))
    row = ranked[ranked["source"] == "mean of 2 sources"].iloc[1]
    parts = np.zeros(60)
    for (source, target), n in counted.items():
        sources = sum(other == target for _, other in counted)
        first, second = (np.array(values[name, source, target][:n]) for name in ("bim", "mi"))
        parts[:n] += 60 * (first - second) / (n * sources * 3)
    assert row["difference"] == pytest.approx(parts.mean())
    signs = random.integers(0, 2, (20_000, 60)) * 2 - 1
    p = np.mean(np.abs(signs @ parts) >= abs(parts.sum()) - 1e-9)
    assert row["p"] == pytest.approx(p, abs=0.02)
    assert row["discordance"] == pytest.approx(np.square(parts).mean())


def test_a_mean_has_wilsons_interval_which_is_not_empty_at_the_ends(outcomes_of) -> None:
    rows = _rows({("mi", "a", "b"): [1] * 300 + [0] * 100, ("bim", "a", "b"): [0] * 400})
    ranked = rankings(outcomes_of(rows)).set_index("attack")
    for attack, sum_of_scores in {"mi": 300, "bim": 0}.items():
        ends = [float(end) for end in wilson_interval(sum_of_scores, 400)]
        assert ranked.loc[attack, ["low", "high"]].tolist() == pytest.approx(ends)
    assert ranked["high"]["bim"] > 0.005


def test_the_difference_from_the_first_has_an_interval_that_agrees_with_the_mark(
    outcomes_of,
) -> None:
    random = np.random.default_rng(2)
    shares = {"a": 0.5, "b": 0.48, "c": 0.4, "d": 0.3, "e": 0.05}
    values = {name: list(map(int, random.random(200) < share)) for name, share in shares.items()}
    found = outcomes_of(_rows({(name, "s", "t"): its for name, its in values.items()}))
    ranked = rankings(found)
    first, others = ranked.iloc[0], ranked.iloc[1:]
    assert first[["difference", "p"]].isna().all() and first["undecided"]
    assert others["difference"].tolist() == pytest.approx(others["mean"] - first["mean"])
    apart = (others["difference_low"] > 0) | (others["difference_high"] < 0)
    assert (apart == ~others["undecided"]).all() and apart.nunique() == 2
    assert (others["undecided"] == (others["p"] >= 0.05)).all()
    beside = rankings(found, against="c").set_index("attack")
    assert beside["difference"]["a"] == pytest.approx(np.mean(values["a"]) - np.mean(values["c"]))
    assert np.isnan(beside["p"]["c"]) and beside["p"]["e"] < 0.05
    assert rankings(found, against="none such")["p"].isna().all()


def test_below_30_images_nothing_is_decided(outcomes_of) -> None:
    rows = _rows({("mi", "a", "b"): [1] * 29, ("bim", "a", "b"): [0] * 29})
    ranked = rankings(outcomes_of(rows))
    assert ranked["undecided"].all() and ranked[["p", "difference_low"]].isna().all(axis=None)
    assert ranked["difference"].iloc[1] == -1


def test_attacks_are_compared_on_the_images_that_count_for_all(outcomes_of) -> None:
    first = [1] * 70 + [0] * 60 + [-1] * 70
    other = [-1] * 70 + [1] * 60 + [0] * 70
    rows = _rows({("mi", "a", "b"): first, ("bim", "a", "b"): other})
    row = rankings(outcomes_of(rows)).set_index("attack").loc["bim"]
    assert row[["rank", "mean", "images"]].tolist() == [1, 1, 60]


def test_an_attack_that_lacks_a_pair_is_listed_last_without_a_rank(outcomes_of) -> None:
    fooled = {"mi": [1] * 20 + [0] * 20, "bim": [0] * 40, "pgd": [1] * 40}
    rows = {(name, "s", target): its for name, its in fooled.items() for target in "tu"}
    del rows["pgd", "s", "u"]
    ranked = rankings(outcomes_of(_rows(rows))).set_index("attack")
    assert ranked["rank"].fillna(0).to_dict() == {"mi": 1, "bim": 2, "pgd": 0}
    assert ranked["lacks"].to_dict() == {"mi": "", "bim": "", "pgd": "s -> u"}
    assert ranked.loc["pgd", ["mean", "difference", "p"]].isna().all()
    assert ranked.loc["pgd", "undecided"]


@pytest.mark.parametrize("names", [*permutations("pqr")], ids="".join)
def test_names_order_what_differs_by_rounding_alone(outcomes_of, names) -> None:
    """Three that fool 1, 2 and 3 of 7 images, each on other targets: sums of thirds of sevenths."""
    fooled = {
        (name, target): [1] * k + [0] * (7 - k)
        for name, counts in zip(names, ((1, 2, 3), (2, 3, 1), (3, 1, 2)), strict=True)
        for target, k in zip("tuv", counts, strict=True)
    }
    attacks = rankings(
        outcomes_of(_rows({(name, "s", target): its for (name, target), its in fooled.items()}))
    )
    sources = source_rankings(
        outcomes_of(_rows({("mi", name, target): its for (name, target), its in fooled.items()}))
    )
    sources = sources[sources["target"] == ALL_TARGETS]
    for ranked, of in ((attacks, "attack"), (sources, "source")):
        assert ranked[of].tolist() == ["p", "q", "r"] and ranked["rank"].tolist() == [1, 2, 3]
        assert ranked["difference"].isna().tolist() == [True, False, False]  # the first is compared


def test_seeds_are_averaged_per_image(outcomes_of) -> None:
    seeds = [[1, 1, 0, -1], [1, 0, 0, 0]]
    parts = [outcomes_of(_rows({("mi", "a", "b"): its})) for its in seeds]
    ranked = rankings(joined(parts))
    assert ranked[["mean", "images"]].iloc[0].tolist() == [(1 + 0.5 + 0) / 3, 3]


def test_a_source_without_counted_images_is_in_no_ranking(outcomes_of) -> None:
    fooled = {"a": [1] * 40, "b": [0] * 40, "broken": [-1] * 40}
    rows = {("mi", source, target): its for source, its in fooled.items() for target in "tuv"}
    assert _over_targets(outcomes_of(_rows(rows)))["source"].tolist() == ["a", "b"]


def test_sources_are_compared_on_the_images_that_each_target_counts_for_all(outcomes_of) -> None:
    """The weak source counts only the first half, and is worse there."""
    fooled = {"weak": [1] * 10 + [0] * 30 + [-1] * 40, "other": [1] * 20 + [0] * 20 + [1] * 40}
    rows = {("mi", source, target): its for source, its in fooled.items() for target in "tu"}
    ranked = _over_targets(outcomes_of(_rows(rows)))
    assert ranked["source"].tolist() == ["other", "weak"]
    assert ranked["mean"].tolist() == pytest.approx([0.5, 0.25])
    assert ranked["images"].tolist() == [40, 40]
    assert ranked["difference"].iloc[1] == pytest.approx(-0.25)


def test_sources_are_averaged_where_an_attack_has_them_all(outcomes_of) -> None:
    rows = _rows(
        {
            ("mi", "a", "b"): [1, 1],
            ("mi", "b", "a"): [0, 1],
            ("bim", "a", "b"): [1, 1],
            ("mi", "a+b", "c"): [1, 0],
        }
    )
    targeted = _rows({("logit", "a", "b"): [0, 0]}, aimed=True)
    ranked = rankings(outcomes_of(pd.concat([rows, targeted], ignore_index=True)))
    assert ranked.iloc[-1][["attack", "targeted", "rank"]].tolist() == ["logit", True, 1]
    ranked = ranked[~ranked["targeted"]]
    both = ranked[ranked["source"] == "mean of 2 sources"]
    assert both["attack"].tolist() == ["mi", "bim"]
    assert both["mean"].iloc[0] == 0.75
    assert both["lacks"].tolist() == ["", "b -> a"]
    assert set(ranked["source"]) == {"mean of 2 sources", "a", "b", "a+b"}
    assert list(ranked.loc[ranked["ensemble"], "source"].unique()) == ["a+b"]


def test_sources_behind_a_defence_are_in_no_mean(outcomes_of) -> None:
    sources = {"a": [1, 1, 0, 0], "b": [1, 0, 0, 0], "a@jpeg": [1, 1, 1, 1], "b@jpeg": [1, 1, 1, 0]}
    rows = _rows({("mi", source, "c"): its for source, its in sources.items()})
    ranked = rankings(outcomes_of(rows))
    ranked = ranked.set_index("source")
    assert ranked["mean"].to_dict() == {
        "mean of 2 sources": 0.375,
        **{source: np.mean(its) for source, its in sources.items()},
    }
    assert ranked.index[ranked["source_defended"]].unique().tolist() == ["a@jpeg", "b@jpeg"]


def test_each_defence_has_a_ranking_and_the_own_network_is_in_none(outcomes_of) -> None:
    values = {("b", "none"): [1, 1], ("b", "jpeg"): [1, 0], ("a", "jpeg"): [1, 1]}
    ranked = rankings(outcomes_of(_rows({("mi", "a", name): its for name, its in values.items()})))
    assert dict(zip(ranked["defence"], ranked["mean"], strict=True)) == {"none": 1, "jpeg": 0.5}


def test_a_sources_value_is_its_fit_over_all_targets(outcomes_of) -> None:
    """The rates are a source effect plus a target effect, and each source lacks itself."""
    source = {"a": 0.3, "b": 0.2, "c": 0.05}
    target = {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.0, "e": 0.6}
    rows = {
        ("mi", s, t): [1] * round(80 * (own + its)) + [0] * round(80 * (1 - own - its))
        for s, own in source.items()
        for t, its in target.items()
    }
    ranked = _over_targets(outcomes_of(_rows(rows))).set_index("source")
    values = {name: effect + np.mean(list(target.values())) for name, effect in source.items()}
    assert ranked["mean"].to_dict() == pytest.approx(values)
    assert ranked["targets"].eq(5).all() and not ranked["extrapolated"].any()
    assert ranked["difference"]["c"] == pytest.approx(-0.25)


def test_sources_are_tested_by_flipping_what_each_image_contributes(outcomes_of) -> None:
    random = np.random.default_rng(4)
    shares = {"a": 0.6, "b": 0.45, "c": 0.3}
    values = {(s, t): random.random(80) < shares[s] for s in shares for t in "abcde" if s != t}
    rows = {("mi", *pair): [*map(int, its)] for pair, its in values.items()}
    ranked = _over_targets(outcomes_of(_rows(rows))).set_index("source")
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
    ranked = _over_targets(outcomes_of(_rows(rows))).set_index("source")
    assert ranked["mean"].to_dict() == pytest.approx({"b": 1.9 / 3, "a": 1.9 / 3 - 0.9})
    assert ranked["extrapolated"].to_dict() == {"b": False, "a": True}


def test_sources_with_fewer_than_two_common_targets_are_not_ranked(outcomes_of) -> None:
    rows = {("mi", source, target): [1, 0] * 20 for source in "ab" for target in "abc"}
    rows["mi", "a", "d"] = [1, 0] * 20
    ranked = _over_targets(outcomes_of(_rows(rows)))
    assert ranked[["rank", "mean"]].isna().all(axis=None)
    assert ranked["lacks"].tolist() == ["d as a target of both a and b"] * 2
    rows["mi", "b", "d"] = [1, 0] * 20
    assert _over_targets(outcomes_of(_rows(rows)))["rank"].tolist() == [1, 2]


def test_sources_are_ranked_over_the_attacks_that_all_of_them_have(outcomes_of) -> None:
    rows = {
        (attack, source, target): [int(source == "a"), 0] * 20
        for attack in ("mi", "bim")
        for source in "ab"
        for target in "cd"
    }
    rows["fgsm", "a", "c"] = [0, 0] * 20
    ranked = _over_targets(outcomes_of(_rows(rows)))
    assert ranked["attack"].unique().tolist() == ["mean of 2 attacks", "mi", "bim"]
    assert ranked["mean"].tolist() == pytest.approx([0.5, 0] * 3)
    assert not ranked["extrapolated"].any()


def test_a_pair_that_is_left_out_still_says_which_images_its_source_classifies(outcomes_of) -> None:
    right = [1, 0] * 10 + [-1] * 20  # `a` classifies half of the images correctly
    values = {
        ("mi", source, target): right if source == "a" else [1, 0] * 20
        for source in "abc"
        for target in "defg"
    }
    kept, left = (outcomes_of(_rows(values)) for _ in range(2))
    target = [its.model for its in left.targets].index("d")
    left.evaluated[[source == "a" for _, source in left.jobs], target] = False
    for outcomes in (kept, left):
        assert _over_targets(outcomes)["images"].tolist() == [20, 20, 20]


def test_a_target_that_counts_no_image_for_all_sources_is_left_out(outcomes_of) -> None:
    values = {
        ("mi", source, target): [-1] * 40 if target == "d" else [1, 0] * 20
        for source in "abc"
        for target in "defg"
    }
    ranked = _over_targets(outcomes_of(_rows(values)))
    assert ranked["targets"].tolist() == [3, 3, 3] and ranked["rank"].notna().all()


def test_a_pair_that_one_attack_does_not_count_is_left_out_for_all(outcomes_of) -> None:
    values = {
        (attack, source, "c"): [1, 0] * 20 for attack in ("mi", "bim") for source in ("a", "b")
    }
    values["bim", "a", "c"] = [-1] * 40  # all images have the target's class as their own
    values["mi", "a", "c"] = [1] * 40
    ranked = rankings(outcomes_of(_rows(values, aimed=True))).query("source == 'mean of 2 sources'")
    assert ranked["mean"].tolist() == [0.5, 0.5] and ranked["lacks"].tolist() == ["", ""]


def test_the_order_of_jobs_decides_nothing_if_two_attacks_lack_one_pair_each(outcomes_of) -> None:
    values = {
        (attack, source, target): ([1, 0] if attack == "mi" else [1, 1]) * 20
        for attack in ("mi", "bim")
        for source in ("a", "b")
        for target in ("c", "d")
    }
    del values["mi", "a", "c"], values["bim", "b", "d"]
    of_jobs = [
        {key: its for key, its in values.items() if key[:2] == job}
        for job in dict.fromkeys(key[:2] for key in values)
    ]
    parts = [outcomes_of(_rows(its)) for its in of_jobs]
    first, last = (rankings(joined(order)) for order in (parts, parts[::-1]))
    columns = ["attack", "source", "mean", "lacks"]
    pd.testing.assert_frame_equal(first[columns], last[columns])


def test_intervals_widen_where_one_target_counts_few_images(outcomes_of) -> None:
    random, covered = np.random.default_rng(0), 0
    for _ in range(200):
        values = {
            ("mi", "a", target): [*map(int, random.random(n) < 0.3), *[-1] * (120 - n)]
            for target, n in (("b", 12), ("c", 114))
        }
        row = rankings(outcomes_of(_rows(values))).iloc[0]
        covered += row["low"] <= 0.3 <= row["high"]
    assert covered >= 0.88 * 200


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
    ranked = source_rankings(outcomes_of(_rows(values)))
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
        lacks = source_rankings(outcomes_of(_rows(rows)))["lacks"].iloc[0]
        assert "more target" in lacks


def test_one_target_ranks_two_sources_and_a_white_box_ranks_none(outcomes_of) -> None:
    rows = {("mi", s, "t"): [1] * n + [0] * (60 - n) for s, n in {"a": 30, "b": 5}.items()}
    ranked = source_rankings(outcomes_of(_rows(rows)))
    assert ranked[["target", "source", "rank"]].to_numpy().tolist() == [
        ["t", "a", 1],
        ["t", "b", 2],
    ]
    assert not ranked["undecided"].iloc[1] and ranked["depends_on"].eq("").all()
    rows = {("mi", s, s): [1, 0] * 30 for s in "ab"}
    assert source_rankings(outcomes_of(_rows(rows))).empty


def test_a_lead_that_one_target_decides_names_it_and_where_the_second_is_ahead(
    outcomes_of,
) -> None:
    """Leaving each target out, by least squares of each image over the others."""
    values = _between_networks({"d": {"a": 0.2, "b": 0.7, "c": 0.1}})
    ranked = source_rankings(outcomes_of(_rows(values)))
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
    both = frame[images].xs("c", axis=1, level=1)
    wins, losses = (both["a"] > both["b"]).sum(), (both["a"] < both["b"]).sum()
    ahead = wins > losses and binomtest(wins, wins + losses).pvalue < 0.05
    assert whole["reversed_on"].iloc[0] == ("c (a)" if ahead else "")


def test_an_attack_ahead_on_every_target_depends_on_none(outcomes_of) -> None:
    random = np.random.default_rng(6)
    shares = {
        "even": {"t": 0.6, "u": 0.6},
        "one": {"t": 0.9, "u": 0.4},
        "low": {"t": 0.2, "u": 0.2},
    }

    def ranked(*attacks):
        rows = {
            (name, "s", target): [*map(int, random.random(300) < share)]
            for name in attacks
            for target, share in shares[name].items()
        }
        return rankings(outcomes_of(_rows(rows))).iloc[0]

    first = ranked("even", "low")
    assert first[["attack", "depends_on", "reversed_on"]].tolist() == ["even", "", ""]
    first = ranked("one", "low")
    assert first[["attack", "depends_on", "reversed_on"]].tolist() == ["one", "", ""]
    shares["low"]["u"] = 0.5
    first = ranked("one", "low")
    assert first[["attack", "depends_on", "reversed_on"]].tolist() == ["one", "t", "u (low)"]
