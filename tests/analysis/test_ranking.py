"""Rankings against tables worked out by hand and against an exact test of all sign flips."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from src.analysis.ranking import rankings


def _rows(success: dict[tuple[str, str, str], list[int]], aimed: bool = False) -> pd.DataFrame:
    """Return outcomes of images by (attack, source, target); -1 is an image not counted."""
    parts = [
        pd.DataFrame(
            {
                "attack": attack,
                "source": source,
                "target": target,
                "index": range(len(values)),
                "target_label": 3.0 if aimed else np.nan,
                "counted": [value >= 0 for value in values],
                "success": [value == 1 for value in values],
            }
        )
        for (attack, source, target), values in success.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_an_image_has_its_mean_over_the_other_targets_that_count_it() -> None:
    rows = _rows(
        {
            ("mi", "a", "a"): [1, 1, 1, 1],  # the white box, left out
            ("mi", "a", "b"): [1, 0, -1, -1],
            ("mi", "a", "c"): [1, 1, 0, -1],
            ("bim", "a", "b"): [0, 0, -1, -1],
            ("bim", "a", "c"): [1, 0, 0, -1],
        }
    )
    ranked = rankings(rows)
    assert ranked["attack"].tolist() == ["mi", "bim"]
    assert ranked["mean"].tolist() == pytest.approx([(1 + 0.5 + 0) / 3, (0.5 + 0 + 0) / 3])
    assert ranked["images"].tolist() == [3, 3]
    assert ranked["targets"].tolist() == [2, 2]
    assert ranked["rank"].tolist() == [1, 2]
    assert ranked[["low", "high"]].isna().all(axis=None)  # three images have no interval
    assert ranked["undecided"].all()


def test_sign_flips_agree_with_all_of_them_and_holm_corrects_them() -> None:
    random = np.random.default_rng(3)
    values = {
        name: (random.random(12) < share) for name, share in zip("xyz", (1, 0.4, 0.1), strict=True)
    }
    rows = _rows({(name, "a", "b"): list(map(int, its)) for name, its in values.items()})
    ranked = rankings(rows).set_index("attack")
    best = ranked.index[0]
    exact = {}
    for name in ranked.index[1:]:
        difference = values[name].astype(float) - values[best]
        flips = np.array(list(product([-1, 1], repeat=12))) @ difference
        exact[name] = np.mean(np.abs(flips) >= abs(difference.sum()) - 1e-9)
    smaller, larger = sorted(exact, key=lambda name: exact[name])
    holm = {smaller: 2 * exact[smaller], larger: max(exact[larger], 2 * exact[smaller])}
    for name, p in holm.items():
        # Monte Carlo: the standard error of a share p of 9,999 flips, doubled by the correction
        assert ranked["p_holm"][name] == pytest.approx(
            p, abs=8 * np.sqrt(p * (1 - p) / 9_999) + 3e-4
        )
    assert np.isnan(ranked["p_holm"][best])
    assert ranked["undecided"].tolist() == [
        True,
        *(holm[name] >= 0.05 for name in ranked.index[1:]),
    ]


def test_intervals_are_those_of_a_binomial_share() -> None:
    rows = _rows({("mi", "a", "b"): [1] * 300 + [0] * 100})
    row = rankings(rows).iloc[0]
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (row["low"], row["high"]) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)


@pytest.mark.parametrize("value", [0, 1])
def test_images_that_are_all_alike_have_an_interval_too(value: int) -> None:
    rows = _rows({("mi", "a", target): [value] * 60 for target in "bc"})
    row = rankings(rows).iloc[0]
    exact = 1 - 0.025 ** (1 / 60)  # Clopper and Pearson's, which is longer than Wilson's
    assert 0.5 * exact < row["high"] - row["low"] < 1.2 * exact
    assert row["low"] <= value <= row["high"]


def test_sources_are_averaged_where_an_attack_has_them_all() -> None:
    rows = _rows(
        {
            ("mi", "a", "b"): [1, 1],
            ("mi", "b", "a"): [0, 1],
            ("bim", "a", "b"): [1, 1],
            ("mi", "a+b", "c"): [1, 0],
        }
    )
    ranked = rankings(rows)
    both = ranked[ranked["source"] == "mean of 2 sources"]
    assert both["attack"].tolist() == ["mi"]
    assert both["mean"].tolist() == [0.75]
    assert set(ranked["source"]) == {"mean of 2 sources", "a", "b", "a+b"}
    assert ranked.set_index("source")["kind"]["a+b"] == "untargeted of ensembles"


def test_sources_behind_a_defence_are_in_no_mean() -> None:
    sources = {"a": [1, 1, 0, 0], "b": [1, 0, 0, 0], "a@jpeg": [1, 1, 1, 1], "b@jpeg": [1, 1, 1, 0]}
    ranked = rankings(_rows({("mi", source, "c"): its for source, its in sources.items()}))
    ranked = ranked.set_index("source")
    assert ranked["mean"].to_dict() == {
        "mean of 2 sources": 0.375,
        **{source: np.mean(its) for source, its in sources.items()},
    }
    assert set(ranked.loc[["a@jpeg", "b@jpeg"], "kind"]) == {"untargeted behind a defence"}


def test_targeted_attacks_are_ranked_apart() -> None:
    plain = _rows({("mi", "a", "b"): [1, 0]})
    aimed = _rows({("logit", "a", "b"): [0, 0]}, aimed=True)
    ranked = rankings(pd.concat([plain, aimed], ignore_index=True))
    assert ranked["kind"].tolist() == ["untargeted", "targeted"]
    assert ranked["rank"].tolist() == [1, 1]


def test_jobs_without_another_model_have_no_ranking() -> None:
    assert rankings(_rows({("mi", "a", "a"): [1, 0]})).empty
