import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from src.analysis.frequency import (
    filtered_rates,
    high_frequency_shares,
    low_pass_accuracy,
)
from src.analysis.frequency_words import filter_sentences
from src.analysis.intervals import paired_interval
from src.analysis.rates import rates


def spectra_of(image, perturbation, attack="fgsm", source="vgg16"):
    """Spectra of four bins, 1/8 cycle per pixel wide, with these shares of the power."""
    parts = [
        pd.DataFrame(
            {
                "kind": kind,
                "eps_255": eps,
                "frequency_low": np.arange(4) / 8,
                "frequency_high": np.arange(1, 5) / 8,
                "coefficients": [3, 10, 20, 30],
                "n": 50,
                "power": 1.0,
                "share": share,
                "share_sd": 0.1,
            }
        )
        for kind, eps, share in (("image", 0.0, image), ("perturbation", 8.0, perturbation))
    ]
    return pd.concat(parts).assign(attack=attack, source=source)


IMAGE = [0.7, 0.2, 0.07, 0.03]


def test_power_is_summed_from_the_bin_that_begins_at_the_frequency():
    spectra = spectra_of(IMAGE, [0.1, 0.2, 0.3, 0.4]).sample(frac=1, random_state=0)
    shares = high_frequency_shares(spectra).set_index("kind").loc[["image", "perturbation"]]
    np.testing.assert_allclose(shares["share"], [0.1, 0.7])
    np.testing.assert_allclose(shares["flat_share"], 50 / 63)
    assert shares["frequency"].eq(0.25).all() and shares["n"].eq(50).all()
    assert shares["eps_255"].tolist() == [0, 8]
    inside = high_frequency_shares(spectra, above=0.26)
    assert inside["frequency"].eq(0.375).all() and sorted(inside["share"]) == [0.03, 0.4]
    beyond = high_frequency_shares(spectra, above=0.5)
    assert beyond["frequency"].isna().all() and beyond["share"].eq(0).all()


@pytest.fixture
def make_filtered():
    """Make the filtered table of targets' answers in every band and norm, to attack and noise."""
    edges = {"all": (0, 0.7), "low": (0, 0.125), "band": (0.125, 0.25), "high": (0.25, 0.7)}

    def make(answers, label=0):
        parts = []
        for (target, norm, band), kinds in answers.items():
            low, high = edges[band]
            for kind, predicted in zip(("attack", "noise"), kinds, strict=True):
                part = pd.DataFrame({"index": np.arange(len(predicted)), "label": label})
                parts.append(
                    part.assign(
                        target=target,
                        eps_255=8.0,
                        band=band,
                        norm=norm,
                        kind=kind,
                        frequency_low=low,
                        frequency_high=high,
                        predicted=predicted,
                        confidence=0.5,
                        true_confidence=0.25,
                    )
                )
        return pd.concat(parts, ignore_index=True).sample(frac=1, random_state=0)

    return make


# Label 0; both are right when clean on images 0, 1 and 3.
PREDICTIONS = {
    ("a", 0): [0, 0, 0, 0, 1],
    ("b", 0): [0, 0, 2, 0, 1],
    ("a", 8): [1, 1, 0, 1, 1],
    ("b", 8): [1, 0, 2, 0, 1],
}
FILTERED = {
    ("b", "l2", "low"): ([1, 1, 0, 0, 0], [1, 0, 1, 2, 1]),
    ("b", "l2", "high"): ([0, 0, 1, 0, 1], [0, 2, 0, 2, 0]),
    ("b", "linf", "band"): ([0, 3, 3, 3, 0], [0, 0, 3, 3, 3]),
    ("b", "linf", "all"): (PREDICTIONS["b", 8], [0, 0, 0, 0, 0]),
    ("a", "linf", "all"): (PREDICTIONS["a", 8], [0, 0, 0, 0, 0]),
}


def test_successes_are_counted_on_the_protocols_images(make_table, make_filtered):
    table, filtered = make_table(PREDICTIONS), make_filtered(FILTERED)
    frame = filtered_rates(filtered, table, "a", ["b", "a"])
    assert list(zip(frame["target"], frame["norm"], frame["band"], strict=True)) == [
        *(("b", "linf", "all"), ("b", "linf", "band"), ("b", "l2", "low"), ("b", "l2", "high")),
        ("a", "linf", "all"),
    ]
    assert frame["n"].tolist() == [3, 3, 3, 3, 4]
    assert frame["success"].tolist() == [1, 2, 2, 0, 3]
    assert frame["frequency_low"].tolist() == [0, 0.125, 0, 0.25, 0]
    assert frame["frequency_high"].tolist() == [0.7, 0.25, 0.125, 0.7, 0.7]
    np.testing.assert_allclose(frame["success_rate"], [1 / 3, 2 / 3, 2 / 3, 0, 3 / 4])
    interval = proportion_confint(frame["success"], frame["n"], method="wilson")
    np.testing.assert_allclose(
        frame[["success_rate_low", "success_rate_high"]].T, interval, atol=1e-12
    )
    assert list(frame.columns[:5]) == ["target", "band", "norm", "frequency_low", "frequency_high"]


def test_noise_is_subtracted_image_by_image(make_table, make_filtered):
    frame = filtered_rates(make_filtered(FILTERED), make_table(PREDICTIONS), "a", ["b", "a"])
    assert frame["noise_success"].tolist() == [0, 1, 2, 2, 0]
    assert frame["attack_only"].tolist() == [1, 1, 1, 0, 3]
    assert frame["noise_only"].tolist() == [0, 0, 1, 2, 0]
    np.testing.assert_allclose(frame["noise_success_rate"], [0, 1 / 3, 2 / 3, 2 / 3, 0])
    np.testing.assert_allclose(frame["excess"], [1 / 3, 1 / 3, 0, -2 / 3, 3 / 4])
    interval = paired_interval(frame["attack_only"], frame["noise_only"], frame["n"])
    np.testing.assert_allclose(frame[["excess_low", "excess_high"]].T, interval)


@pytest.mark.parametrize("protocol", ["all", "source_correct", "target_correct", "joint"])
@pytest.mark.parametrize("aims", [None, [1, 1, 1, 0, 1]])
def test_the_whole_perturbation_succeeds_as_in_the_rates(make_table, make_filtered, protocol, aims):
    table, filtered = make_table(PREDICTIONS, target_label=aims), make_filtered(FILTERED)
    frame = filtered_rates(filtered, table, "a", ["a", "b"], protocol)
    whole = frame[frame["band"] == "all"].set_index("target")
    expected = rates(table, "a", ["a", "b"], protocol).query("eps_255 == 8").set_index("target")
    assert whole["n"].tolist() == expected["denominator"].tolist()
    assert whole["success"].tolist() == expected["success"].tolist()
    assert frame["targeted"].tolist() == [aims is not None] * len(frame)


def test_noise_succeeds_where_it_reaches_the_class_aimed_for(make_table, make_filtered):
    table = make_table(PREDICTIONS, target_label=[1, 2, 1, 2, 1])
    frame = filtered_rates(make_filtered(FILTERED), table, "a", ["b"]).query("band == 'low'")
    row = frame.iloc[0]  # of images 0, 1 and 3, the noise reaches the class on 0 and 3
    assert (row["n"], row["success"], row["noise_success"]) == (3, 1, 2)
    assert (row["attack_only"], row["noise_only"]) == (0, 1)


def test_no_counted_image_gives_no_rate(make_table, make_filtered):
    table = make_table({("a", 0): [1, 1], ("b", 0): [0, 0], ("b", 8): [0, 1]})
    frame = filtered_rates(make_filtered({("b", "l2", "all"): ([0, 1], [0, 0])}), table, "a", ["b"])
    assert frame["n"].tolist() == [0]
    rates_of_none = ["success_rate", "success_rate_low", "noise_success_rate", "excess"]
    assert frame[rates_of_none].isna().all(axis=None)
    assert not frame["targeted"].any()
    sentences = filter_sentences(frame.assign(source="a", attack="fgsm"))
    assert all("no filtered image is counted" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="norm"), "filtered table lacks the columns norm"),
        (lambda rows: rows.replace("band", "mid"), "band=mid is not one of all, low, band, high"),
        (lambda rows: rows.replace("l2", "l1"), "norm=l1 is not one of linf, l2"),
        (lambda rows: rows.replace("noise", "hum"), "kind=hum is not one of attack, noise"),
        (lambda rows: rows.drop(columns="kind"), "no noise to compare with: an earlier version"),
        (
            lambda rows: rows.assign(eps_255=np.arange(len(rows)) % 2 + 1.0),
            "one budget, not 1, 2",
        ),
        (lambda rows: pd.concat([rows, rows]), "has 10 of the 5 images that were shown to 'a'"),
        (lambda rows: rows[rows["target"] == "a"], "filtered table has no rows of b"),
        (lambda rows: rows.assign(index=rows["index"] + 1), "clean prediction .* for image 5"),
        (
            lambda rows: rows.query("index != 1 or norm != 'l2' or band != 'low'"),
            "has 4 of the 5 images that were shown to 'b', norm l2, band low",
        ),
        (
            lambda rows: rows.query("index != 1 or norm != 'l2' or kind != 'noise'"),
            "control's table lacks 1 of 5 rows of the attack, first index 1, target 'b'",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(make_table, make_filtered, change, message):
    filtered = change(make_filtered(FILTERED))
    with pytest.raises(ValueError, match=message):
        filtered_rates(filtered, make_table(PREDICTIONS), "a", ["a", "b"])


def test_low_pass_accuracy_counts_all_images():
    low_passed = pd.DataFrame(
        [
            (index, 0, target, cutoff, answer)
            for (target, cutoff), answers in {
                ("b", 0.375): [0, 0, 0, 1],
                ("b", 0.0625): [1, 2, 3, 0],
                ("a", 0.25): [0, 0, 0, 0],
            }.items()
            for index, answer in enumerate(answers)
        ],
        columns=["index", "label", "target", "cutoff", "predicted"],
    )
    frame = low_pass_accuracy(low_passed)
    assert frame["target"].tolist() == ["b", "b", "a"]
    assert frame["cutoff"].tolist() == [0.0625, 0.375, 0.25]
    assert frame["n"].tolist() == [4, 4, 4] and frame["correct"].tolist() == [1, 3, 4]
    np.testing.assert_allclose(frame["accuracy"], [0.25, 0.75, 1])
    interval = proportion_confint(frame["correct"], 4, method="wilson")
    np.testing.assert_allclose(frame[["accuracy_low", "accuracy_high"]].T, interval)
    with pytest.raises(ValueError, match=r"several rows of index 0, target b, cutoff 0\.375"):
        low_pass_accuracy(pd.concat([low_passed, low_passed]))
    with pytest.raises(ValueError, match="low_passed table lacks the columns cutoff"):
        low_pass_accuracy(low_passed.drop(columns="cutoff"))
    assert low_pass_accuracy(low_passed.iloc[:0]).empty


def low_passed_of(answers):
    return pd.DataFrame(
        [
            (index, 0, target, cutoff, answer)
            for (target, cutoff), row in answers.items()
            for index, answer in enumerate(row)
        ],
        columns=["index", "label", "target", "cutoff", "predicted"],
    )


def test_unfiltered_images_stand_at_no_cutoff():
    low_passed = low_passed_of({("b", 0.25): [0, 1, 1], ("a", 0.25): [0, 0, 1]})
    clean = low_passed_of({("a", 0): [0, 0, 0, 0], ("b", 0): [0, 0, 1, 0], ("c", 0): [0, 0, 0]})
    clean = clean.drop(columns="cutoff").sample(frac=1, random_state=0)
    frame = low_pass_accuracy(low_passed, clean)
    assert frame["target"].tolist() == ["b", "b", "a", "a"]
    assert frame["cutoff"].tolist() == [0.25, np.inf] * 2
    assert frame["n"].eq(3).all() and frame["correct"].tolist() == [1, 2, 2, 3]
    np.testing.assert_allclose(frame["accuracy"], [1 / 3, 2 / 3, 2 / 3, 1])
    with pytest.raises(ValueError, match="clean table lacks image 1 of 'a', which was low-passed"):
        low_pass_accuracy(low_passed, clean.query("index != 1 or target != 'a'"))
    with pytest.raises(ValueError, match="clean table has several rows of index"):
        low_pass_accuracy(low_passed, pd.concat([clean, clean]))
    with pytest.raises(ValueError, match="clean table lacks the columns label"):
        low_pass_accuracy(low_passed, clean.drop(columns="label"))
    with pytest.raises(ValueError, match="finite cutoffs"):
        low_pass_accuracy(low_passed.assign(cutoff=np.inf))
