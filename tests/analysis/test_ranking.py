"""Rankings of attacks and sources against tables worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from src.analysis.intervals import wilson_interval
from src.analysis.ranking import rankings, repetition, source_rankings


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


def test_an_image_has_its_mean_over_the_other_targets_that_count_it(outcomes_of) -> None:
    rows = _rows(
        {
            ("mi", "a", "a"): [1, 1, 1, 1],  # the white box, left out
            ("mi", "a", "b"): [1, 0, -1, -1],
            ("mi", "a", "c"): [1, 1, 0, -1],
            ("bim", "a", "b"): [0, 0, -1, -1],
            ("bim", "a", "c"): [1, 0, 0, -1],
        }
    )
    ranked = rankings(outcomes_of(rows))
    assert ranked["attack"].tolist() == ["mi", "bim"]
    assert ranked["mean"].tolist() == pytest.approx([(1 + 0.5 + 0) / 3, (0.5 + 0 + 0) / 3])
    assert ranked["images"].tolist() == [3, 3]
    assert ranked["targets"].tolist() == [2, 2]
    assert ranked["rank"].tolist() == [1, 2]
    assert ranked[["low", "high"]].isna().all(axis=None)  # three images have no interval
    assert ranked["undecided"].all()


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


def test_an_attack_that_beats_the_first_directly_is_not_called_weaker(outcomes_of) -> None:
    first = [1] * 70 + [0] * 60 + [-1] * 70  # the larger mean, but on other images
    other = [-1] * 70 + [1] * 60 + [0] * 70
    rows = _rows({("mi", "a", "b"): first, ("bim", "a", "b"): other})
    row = rankings(outcomes_of(rows)).set_index("attack").loc["bim"]
    assert row["rank"] == 2 and row["difference"] == 1 and row["p"] < 0.05 and row["undecided"]


def test_a_source_without_counted_images_is_in_no_ranking(outcomes_of) -> None:
    fooled = {"a": [1] * 40, "b": [0] * 40, "broken": [-1] * 40}
    rows = {("mi", source, target): its for source, its in fooled.items() for target in "tuv"}
    assert source_rankings(outcomes_of(_rows(rows)))["source"].tolist() == ["a", "b"]


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
    assert ranked.iloc[-1][["attack", "kind", "rank"]].tolist() == ["logit", "targeted", 1]
    ranked = ranked[ranked["kind"] != "targeted"]
    both = ranked[ranked["source"] == "mean of 2 sources"]
    assert both["attack"].tolist() == ["mi"]
    assert both["mean"].tolist() == [0.75]
    assert set(ranked["source"]) == {"mean of 2 sources", "a", "b", "a+b"}
    assert ranked.set_index("source")["kind"]["a+b"] == "untargeted of ensembles"


def test_sources_behind_a_defence_are_in_no_mean(outcomes_of) -> None:
    sources = {"a": [1, 1, 0, 0], "b": [1, 0, 0, 0], "a@jpeg": [1, 1, 1, 1], "b@jpeg": [1, 1, 1, 0]}
    rows = _rows({("mi", source, "c"): its for source, its in sources.items()})
    ranked = rankings(outcomes_of(rows))
    ranked = ranked.set_index("source")
    assert ranked["mean"].to_dict() == {
        "mean of 2 sources": 0.375,
        **{source: np.mean(its) for source, its in sources.items()},
    }
    assert set(ranked.loc[["a@jpeg", "b@jpeg"], "kind"]) == {"untargeted behind a defence"}


def test_each_defence_has_a_ranking_and_the_own_network_is_in_none(outcomes_of) -> None:
    values = {("b", "none"): [1, 1], ("b", "jpeg"): [1, 0], ("a", "jpeg"): [1, 1]}
    ranked = rankings(outcomes_of(_rows({("mi", "a", name): its for name, its in values.items()})))
    assert dict(zip(ranked["defence"], ranked["mean"], strict=True)) == {"none": 1, "jpeg": 0.5}


def test_two_sources_are_compared_on_the_targets_that_are_neither_of_them(outcomes_of) -> None:
    random = np.random.default_rng(4)
    values = {
        ("mi", source, target): list(map(int, random.random(60) < share))
        for source, share in {"a": 0.8, "b": 0.4, "c": 0.3}.items()
        for target in "abcde"
    }
    ranked = source_rankings(outcomes_of(_rows(values))).set_index("source")
    means = {
        (one, other): np.mean([values["mi", one, t] for t in "abcde" if t not in (one, other)])
        for one in "abc"
        for other in "abc"
        if one != other
    }
    assert list(ranked.index) == ["a", "b", "c"] and (ranked["targets"] == 3).all()
    for one in "abc":
        others = [other for other in "abc" if other != one]
        mean = np.mean([means[one, other] for other in others])
        advantage = np.mean([means[one, other] - means[other, one] for other in others])
        assert ranked.loc[one, ["mean", "advantage"]].tolist() == pytest.approx([mean, advantage])
        if one != "a":
            assert ranked["difference"][one] == pytest.approx(means[one, "a"] - means["a", one])
    assert not ranked["undecided"].iloc[1:].any() and (ranked["difference_high"].iloc[1:] < 0).all()


def test_sources_with_fewer_than_two_common_targets_are_not_ranked(outcomes_of) -> None:
    rows = {("mi", source, target): [1, 0] * 20 for source in "ab" for target in "abc"}
    assert source_rankings(outcomes_of(_rows(rows))).empty
    rows |= {("mi", source, "d"): [1, 0] * 20 for source in "ab"}
    assert len(source_rankings(outcomes_of(_rows(rows)))) == 2


def test_sources_are_ranked_over_the_attacks_that_all_of_them_have(outcomes_of) -> None:
    rows = {
        (attack, source, target): [int(source == "a"), 0] * 20
        for attack in ("mi", "bim")
        for source in "ab"
        for target in "cd"
    }
    rows["fgsm", "a", "c"] = [0, 0] * 20
    ranked = source_rankings(outcomes_of(_rows(rows)))
    assert ranked["attack"].unique().tolist() == ["mean of 2 attacks", "mi", "bim"]
    assert ranked["advantage"].tolist() == [0.5, -0.5] * 3


def test_repetition_is_zero_given_the_difficulty_and_one_of_copies() -> None:
    random = np.random.default_rng(5)
    difficulty = random.random(4000)
    alone = (random.random((20, 4000)) < difficulty).astype(float)
    assert abs(repetition(alone)) < 0.05 < np.corrcoef(alone)[0, 1]
    copies = np.repeat(alone, 2, axis=0)
    pairs = 20 / (40 * 39 / 2)  # of all pairs these are copies of each other
    assert repetition(copies) == pytest.approx(pairs, abs=0.02)
    table = np.corrcoef(alone[:3])
    partial = [  # from the correlations, as textbooks have it
        (table[a, b] - table[a, c] * table[b, c])
        / np.sqrt((1 - table[a, c] ** 2) * (1 - table[b, c] ** 2))
        for a, b, c in ((0, 1, 2), (0, 2, 1), (1, 2, 0))
    ]
    assert repetition(alone[:3]) == pytest.approx(np.mean(partial))
    assert np.isnan(repetition(alone[:2]))
