"""Rankings of attacks against tables worked out by hand."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from src.analysis.intervals import wilson_interval
from src.analysis.outcomes import joined
from src.analysis.ranking import ALL_TARGETS, rankings, source_rankings
from tests.analysis.conftest import rows_of


def test_success_is_the_mean_over_targets_of_their_means_over_other_sources(outcomes_of) -> None:
    rows = rows_of(
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
    ranked = rankings(outcomes_of(rows_of(values)))
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
    rows = rows_of({("mi", "a", "b"): [1] * 300 + [0] * 100, ("bim", "a", "b"): [0] * 400})
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
    found = outcomes_of(rows_of({(name, "s", "t"): its for name, its in values.items()}))
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
    rows = rows_of({("mi", "a", "b"): [1] * 29, ("bim", "a", "b"): [0] * 29})
    ranked = rankings(outcomes_of(rows))
    assert ranked["undecided"].all() and ranked[["p", "difference_low"]].isna().all(axis=None)
    assert ranked["difference"].iloc[1] == -1


def test_attacks_are_compared_on_the_images_that_count_for_all(outcomes_of) -> None:
    first = [1] * 70 + [0] * 60 + [-1] * 70
    other = [-1] * 70 + [1] * 60 + [0] * 70
    rows = rows_of({("mi", "a", "b"): first, ("bim", "a", "b"): other})
    row = rankings(outcomes_of(rows)).set_index("attack").loc["bim"]
    assert row[["rank", "mean", "images"]].tolist() == [1, 1, 60]


def test_an_attack_that_lacks_a_pair_is_listed_last_without_a_rank(outcomes_of) -> None:
    fooled = {"mi": [1] * 20 + [0] * 20, "bim": [0] * 40, "pgd": [1] * 40}
    rows = {(name, "s", target): its for name, its in fooled.items() for target in "tu"}
    del rows["pgd", "s", "u"]
    ranked = rankings(outcomes_of(rows_of(rows))).set_index("attack")
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
        outcomes_of(rows_of({(name, "s", target): its for (name, target), its in fooled.items()}))
    )
    sources = source_rankings(
        outcomes_of(rows_of({("mi", name, target): its for (name, target), its in fooled.items()}))
    )
    sources = sources[sources["target"] == ALL_TARGETS]
    for ranked, of in ((attacks, "attack"), (sources, "source")):
        assert ranked[of].tolist() == ["p", "q", "r"] and ranked["rank"].tolist() == [1, 2, 3]
        assert ranked["difference"].isna().tolist() == [True, False, False]  # the first is compared


def test_seeds_are_averaged_per_image(outcomes_of) -> None:
    seeds = [[1, 1, 0, -1], [1, 0, 0, 0]]
    parts = [outcomes_of(rows_of({("mi", "a", "b"): its})) for its in seeds]
    ranked = rankings(joined(parts))
    assert ranked[["mean", "images"]].iloc[0].tolist() == [(1 + 0.5 + 0) / 3, 3]


def test_sources_are_averaged_where_an_attack_has_them_all(outcomes_of) -> None:
    rows = rows_of(
        {
            ("mi", "a", "b"): [1, 1],
            ("mi", "b", "a"): [0, 1],
            ("bim", "a", "b"): [1, 1],
            ("mi", "a+b", "c"): [1, 0],
        }
    )
    targeted = rows_of({("logit", "a", "b"): [0, 0]}, aimed=True)
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
    rows = rows_of({("mi", source, "c"): its for source, its in sources.items()})
    ranked = rankings(outcomes_of(rows))
    ranked = ranked.set_index("source")
    assert ranked["mean"].to_dict() == {
        "mean of 2 sources": 0.375,
        **{source: np.mean(its) for source, its in sources.items()},
    }
    assert ranked.index[ranked["source_defended"]].unique().tolist() == ["a@jpeg", "b@jpeg"]


def test_each_defence_has_a_ranking_and_the_own_network_is_in_none(outcomes_of) -> None:
    values = {("b", "none"): [1, 1], ("b", "jpeg"): [1, 0], ("a", "jpeg"): [1, 1]}
    ranked = rankings(
        outcomes_of(rows_of({("mi", "a", name): its for name, its in values.items()}))
    )
    assert dict(zip(ranked["defence"], ranked["mean"], strict=True)) == {"none": 1, "jpeg": 0.5}


def test_a_pair_that_one_attack_does_not_count_is_left_out_for_all(outcomes_of) -> None:
    values = {
        (attack, source, "c"): [1, 0] * 20 for attack in ("mi", "bim") for source in ("a", "b")
    }
    values["bim", "a", "c"] = [-1] * 40  # all images have the target's class as their own
    values["mi", "a", "c"] = [1] * 40
    ranked = rankings(outcomes_of(rows_of(values, aimed=True))).query(
        "source == 'mean of 2 sources'"
    )
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
    parts = [outcomes_of(rows_of(its)) for its in of_jobs]
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
        row = rankings(outcomes_of(rows_of(values))).iloc[0]
        covered += row["low"] <= 0.3 <= row["high"]
    assert covered >= 0.88 * 200


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
        return rankings(outcomes_of(rows_of(rows))).iloc[0]

    first = ranked("even", "low")
    assert first[["attack", "depends_on"]].tolist() == ["even", ""]
    first = ranked("one", "low")
    assert first[["attack", "depends_on"]].tolist() == ["one", ""]
    shares["low"]["u"] = 0.5
    first = ranked("one", "low")
    assert first[["attack", "depends_on"]].tolist() == ["one", "t"]


def test_a_target_that_counts_no_image_is_in_no_number_of_targets(outcomes_of) -> None:
    rows = {
        (attack, "a", target): [-1] * 4 if target == "never" else [hit, 0, 1, 1]
        for attack, hit in (("mi", 1), ("bim", 0))
        for target in ("b", "c", "never")
    }
    ranked = rankings(outcomes_of(rows_of(rows)))
    assert ranked["mean"].tolist() == pytest.approx([0.75, 0.5])
    assert ranked["targets"].tolist() == [2, 2]
