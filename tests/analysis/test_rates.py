from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from src.analysis import rates, rates_by_protocol
from src.analysis.intervals import bounded_mean_interval
from src.analysis.transfer_rates import confidence_bands

# Four images, label 0. Clean: a is correct on images 0, 1, 2; b on 0, 1, 3 - so both on 0 and 1.
# At 8/255: a is correct on image 0 only; b on 0, 2 and 3.
WRONG = 1
TABLE = [
    ("a", 0.0, [0, 0, 0, WRONG], [0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.7, 0.1]),
    ("a", 8.0, [0, WRONG, WRONG, WRONG], [0.5, 0.6, 0.7, 0.8], [0.5, 0.2, 0.1, 0.0]),
    ("b", 0.0, [0, 0, WRONG, 0], [0.8, 0.6, 0.9, 0.7], [0.8, 0.6, 0.05, 0.7]),
    ("b", 8.0, [0, WRONG, 0, 0], [0.4, 0.8, 0.6, 0.5], [0.4, 0.1, 0.6, 0.5]),
]


def predictions(rows=TABLE):
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "index": [10, 11, 12, 13],
                    "label": 0,
                    "target": target,
                    "eps_255": eps,
                    "predicted": predicted,
                    "confidence": np.asarray(confidence, dtype=np.float32),
                    "true_confidence": np.asarray(true_confidence, dtype=np.float32),
                }
            )
            for target, eps, predicted, confidence, true_confidence in rows
        ],
        ignore_index=True,
    )


def at(table, target, eps):
    return table[(table["target"] == target) & (table["eps_255"] == eps)].iloc[0]


# protocol -> target -> (denominator, still correct, confidence, true confidence) at 8/255
BY_HAND = {
    "all": {"a": (4, 1, 2.6 / 4, 0.8 / 4), "b": (4, 3, 2.3 / 4, 1.6 / 4)},
    "source_correct": {"a": (3, 1, 1.8 / 3, 0.8 / 3), "b": (3, 2, 1.8 / 3, 1.1 / 3)},
    "target_correct": {"a": (3, 1, 1.8 / 3, 0.8 / 3), "b": (3, 2, 1.7 / 3, 1.0 / 3)},
    "joint": {"a": (3, 1, 1.8 / 3, 0.8 / 3), "b": (2, 1, 1.2 / 2, 0.5 / 2)},
}


@pytest.mark.parametrize(("protocol", "target"), list(product(BY_HAND, "ab")))
def test_rates_equal_the_hand_computed_ones(protocol, target):
    row = at(rates(predictions(), "a", ["a", "b"], protocol), target, 8.0)
    denominator, still_correct, confidence, true_confidence = BY_HAND[protocol][target]
    assert (row["denominator"], row["still_correct"]) == (denominator, still_correct)
    assert row["robust_accuracy"] == still_correct / denominator
    assert row["success_rate"] == pytest.approx(1 - still_correct / denominator)
    assert row["confidence"] == pytest.approx(confidence, abs=1e-7)
    assert row["true_confidence"] == pytest.approx(true_confidence, abs=1e-7)
    interval = binomtest(still_correct, denominator).proportion_ci(method="wilson")
    assert row["robust_accuracy_low"] == pytest.approx(interval.low, abs=1e-12)
    assert row["robust_accuracy_high"] == pytest.approx(interval.high, abs=1e-12)


def test_rows_follow_the_order_of_the_targets_and_the_rising_budget():
    expected = rates(predictions(), "a", ["b", "a"])
    places = list(zip(expected["target"], expected["eps_255"], strict=True))
    assert places == [("b", 0.0), ("b", 8.0), ("a", 0.0), ("a", 8.0)]
    shuffled = predictions().sample(frac=1.0, random_state=0)
    pd.testing.assert_frame_equal(rates(shuffled, "a", ["b", "a"]), expected)
    shuffled["target"] = pd.Categorical(shuffled["target"], categories=["a", "b", "unused"])
    pd.testing.assert_frame_equal(rates(shuffled, "a", ["b", "a"]), expected)


def test_an_empty_denominator_gives_nan_rates_and_zero_counts():
    table = predictions()
    table.loc[(table["target"] == "a") & (table["eps_255"] == 0), "predicted"] = WRONG
    row = at(rates(table, "a", ["b"]), "b", 8.0)
    assert (row["denominator"], row["still_correct"]) == (0, 0)
    names = ["robust_accuracy", "success_rate", "robust_accuracy_low", "robust_accuracy_high"]
    assert row[[*names, "confidence", "true_confidence"]].isna().all()


def test_a_nan_confidence_shows_only_where_its_image_counts():
    table = predictions()
    broken = (table["target"] == "b") & (table["eps_255"] == 8) & (table["index"] == 12)
    table.loc[broken, "confidence"] = np.nan
    assert at(rates(table, "a", ["b"], "joint"), "b", 8.0)["confidence"] == pytest.approx(0.6)
    assert np.isnan(at(rates(table, "a", ["b"], "all"), "b", 8.0)["confidence"])


def test_lacking_clean_rows_are_refused():
    table = predictions()
    with pytest.raises(ValueError, match=r"clean prediction .* of target 'b' for image 10"):
        rates(table.query("not (target == 'b' and eps_255 == 0)"), "a", ["a", "b"])
    one_image_short = table.query("not (target == 'a' and eps_255 == 0 and index == 10)")
    for protocol in ("source_correct", "joint"):
        with pytest.raises(ValueError, match=f"{protocol}.*'a\\+c'"):
            rates(table, "a+c", ["b"], protocol)
        with pytest.raises(ValueError, match="source 'a' for every image"):
            rates(one_image_short, "a", ["b"], protocol)


def test_all_variants_and_protocols_at_once_equal_one_after_the_other():
    whole = predictions()
    of_b = whole.query("target == 'b'")
    cases = {
        "all source_correct target_correct joint": whole,
        "all target_correct": of_b,
        "all source_correct": whole.query("target == 'a' or eps_255 > 0").query(
            "target == 'b' or eps_255 == 0"
        ),
        "all": whole.query("eps_255 > 0"),
    }
    names = ["variant", "attack", "source", "norm", "protocol"]
    for known, table in cases.items():
        tables = {"uint8": table, "noise": table.assign(predicted=0)}
        found = rates_by_protocol(tables, "a", ["b"], "fgsm", "linf")
        assert list(found.columns[:5]) == names and set(found["protocol"]) == set(known.split())
        for (variant, protocol), rows in found.groupby(["variant", "protocol"]):
            expected = rates(tables[variant], "a", ["b"], protocol)
            mine = rows.drop(columns=names).reset_index(drop=True)
            pd.testing.assert_frame_equal(mine, expected)


# The target label by image; that of image 13 is its own label.
TARGET_LABELS = [1, 2, 1, 0]
TARGETED = [
    *(("a", 0.0, [0, 0, 1, 0]), ("a", 8.0, [1, 1, 1, 0])),
    *(("b", 0.0, [0, 2, 0, 0]), ("b", 8.0, [1, 2, 0, 0])),
]
# protocol -> target -> (denominator, still correct, successes) at 8/255
TARGETED_BY_HAND = {
    "all": {"a": (3, 0, 2), "b": (3, 1, 2)},
    "source_correct": {"a": (2, 0, 1), "b": (2, 0, 2)},
    "target_correct": {"a": (2, 0, 1), "b": (2, 1, 1)},
    "joint": {"a": (2, 0, 1), "b": (1, 0, 1)},
}


def targeted_predictions(labels=TARGET_LABELS):
    table = predictions([(*row, [0.5] * 4, [0.5] * 4) for row in TARGETED])
    table["target_label"] = table["index"].map(dict(zip([10, 11, 12, 13], labels, strict=True)))
    return table.assign(
        target_label=table["target_label"].astype("Int64").mask(table["eps_255"] == 0)
    )


@pytest.mark.parametrize(("protocol", "target"), list(product(TARGETED_BY_HAND, "ab")))
def test_targeted_success_is_to_reach_the_target_label(protocol, target):
    table = targeted_predictions()
    row = at(rates(table, "a", ["a", "b"], protocol), target, 8.0)
    denominator, still_correct, success = TARGETED_BY_HAND[protocol][target]
    assert row["targeted"] and row["denominator"] == denominator
    assert (row["still_correct"], row["success"]) == (still_correct, success)
    assert row["robust_accuracy"] == still_correct / denominator
    assert row["success_rate"] == success / denominator
    interval = binomtest(success, denominator).proportion_ci(method="wilson")
    assert row["success_rate_low"] == pytest.approx(interval.low, abs=1e-12)
    assert row["success_rate_high"] == pytest.approx(interval.high, abs=1e-12)


def test_targeted_success_on_clean_images_is_what_the_model_predicts_anyway():
    table = rates(targeted_predictions(), "a", ["a", "b"], "all")
    assert (at(table, "a", 0.0)["success"], at(table, "a", 0.0)["denominator"]) == (1, 3)
    assert at(rates(targeted_predictions(), "a", ["a"]), "a", 0.0)["success"] == 0


def test_untargeted_success_is_every_counted_image_that_is_not_correct():
    plain = predictions()
    null = plain.assign(target_label=pd.array([pd.NA] * len(plain), dtype="Int64"))
    for protocol in BY_HAND:
        table = rates(plain, "a", ["a", "b"], protocol)
        assert (table["success"] + table["still_correct"] == table["denominator"]).all()
        np.testing.assert_allclose(table["success_rate_low"], 1 - table["robust_accuracy_high"])
        assert not table["targeted"].any()
        pd.testing.assert_frame_equal(rates(null, "a", ["a", "b"], protocol), table)


def test_bands_are_of_the_means_of_the_rates():
    many = pd.concat(
        [predictions().assign(index=lambda t, k=k: t["index"] + 10 * k) for k in range(5)]
    )
    many["confidence"] = np.random.default_rng(0).random(len(many))
    for table in (many, predictions()):
        bands, expected = confidence_bands(table, "a", ["b", "a"]), rates(table, "a", ["b", "a"])
        places = ["target", "eps_255"]
        pd.testing.assert_frame_equal(bands[places], expected[places])
        low, high = bands["confidence_low"], bands["confidence_high"]
        enough = expected["denominator"] >= 10
        assert (low.notna() == enough).all()
        assert ((low < expected["confidence"]) & (expected["confidence"] < high))[enough].all()
    mine = many.query("target == 'a' and eps_255 == 8 and index % 10 != 3")["confidence"]
    row = at(confidence_bands(many, "a", ["a"]), "a", 8.0)
    expected = np.ravel(bounded_mean_interval(mine.to_numpy()[None], np.ones((1, len(mine)), bool)))
    np.testing.assert_allclose(row[["confidence_low", "confidence_high"]].tolist(), expected, 0.03)
