import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from src.analysis.frequency import (
    BANDS,
    NORMS,
    filter_sentences,
    filtered_rates,
    high_frequency_shares,
    low_pass_accuracy,
    low_pass_sentences,
    spectrum_sentences,
)
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


def test_spectrum_sentences_name_every_job_of_a_few():
    spectra = pd.concat(
        [
            spectra_of(IMAGE, [0.1, 0.1, 0.4, 0.4]),
            spectra_of(IMAGE, [0.6, 0.35, 0.03, 0.02], "bim", "resnet50"),
        ]
    )
    first, second = spectrum_sentences(spectra)
    assert first == (
        "At 0.25 cycles per pixel and above lie 80.0% (fgsm on vgg16), 5.0% (bim on resnet50) of "
        "the power of the perturbations at 8/255, and 10.0% of that of the 50 images themselves "
        "(mean over images, constant part left out)."
    )
    assert second == (
        "Power spread evenly over all frequencies, as of white noise, would have 79.4% there; 1 of "
        "2 jobs have perturbations with a larger such share than the images, and 1 with a larger "
        "one than white noise."
    )


def test_spectrum_sentences_give_the_ends_of_many():
    highs = [0.3, 0.1, 0.5, 0.2]
    spectra = pd.concat(
        [
            spectra_of(IMAGE, [0.5, 0.5 - high, high, 0], "bim", f"m{place}")
            for place, high in enumerate(highs)
        ]
    )
    first, second = spectrum_sentences(spectra)
    assert "lie between 10.0% (bim on m1) and 50.0% (bim on m2) of the power" in first
    assert "; 3 of 4 jobs" in second and "and 0 with" in second


def test_spectrum_sentences_say_what_they_lack():
    spectra = spectra_of(IMAGE, [np.nan] * 4)
    first, second = spectrum_sentences(spectra)
    assert "no spectrum of perturbations has power" in first and second
    without = spectra_of(IMAGE, IMAGE).query("kind == 'perturbation'")
    assert "no spectrum of images has power" in spectrum_sentences(without)[0]
    assert "no spectrum of perturbations" in spectrum_sentences(spectra.iloc[:0])[0]
    with pytest.raises(ValueError, match="spectra table lacks the columns attack"):
        spectrum_sentences(spectra.drop(columns="attack"))


@pytest.fixture
def make_filtered():
    """Make the filtered table of targets' answers in every band and norm."""
    edges = {"all": (0, 0.7), "low": (0, 0.125), "band": (0.125, 0.25), "high": (0.25, 0.7)}

    def make(answers, label=0):
        parts = []
        for (target, norm, band), predicted in answers.items():
            low, high = edges[band]
            part = pd.DataFrame({"index": np.arange(len(predicted)), "label": label})
            parts.append(
                part.assign(
                    target=target,
                    eps_255=8.0,
                    band=band,
                    norm=norm,
                    frequency_low=low,
                    frequency_high=high,
                    predicted=predicted,
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
    ("b", "l2", "low"): [1, 1, 0, 0, 0],
    ("b", "l2", "high"): [0, 0, 1, 0, 1],
    ("b", "linf", "band"): [0, 3, 3, 3, 0],
    ("b", "linf", "all"): PREDICTIONS["b", 8],
    ("a", "linf", "all"): PREDICTIONS["a", 8],
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


@pytest.mark.parametrize("protocol", ["all", "source_correct", "target_correct", "joint"])
@pytest.mark.parametrize("aims", [None, [1, 1, 1, 0, 1]])
def test_the_whole_perturbation_succeeds_as_in_the_rates(make_table, make_filtered, protocol, aims):
    table, filtered = make_table(PREDICTIONS, target_label=aims), make_filtered(FILTERED)
    frame = filtered_rates(filtered, table, "a", ["a", "b"], protocol)
    whole = frame[frame["band"] == "all"].set_index("target")
    expected = rates(table, "a", ["a", "b"], protocol).query("eps_255 == 8").set_index("target")
    assert whole["n"].tolist() == expected["denominator"].tolist()
    assert whole["success"].tolist() == expected["success"].tolist()


def test_no_counted_image_gives_no_rate(make_table, make_filtered):
    table = make_table({("a", 0): [1, 1], ("b", 0): [0, 0], ("b", 8): [0, 1]})
    frame = filtered_rates(make_filtered({("b", "l2", "all"): [0, 1]}), table, "a", ["b"])
    assert frame["n"].tolist() == [0]
    assert frame[["success_rate", "success_rate_low"]].isna().all(axis=None)
    sentences = filter_sentences(frame.assign(source="a", attack="fgsm"))
    assert all("no filtered image is counted" in sentence for sentence in sentences)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(columns="norm"), "filtered table lacks the columns norm"),
        (lambda rows: rows.replace("band", "mid"), "band=mid is not one of all, low, band, high"),
        (lambda rows: rows.replace("l2", "l1"), "norm=l1 is not one of linf, l2"),
        (
            lambda rows: rows.assign(eps_255=np.arange(len(rows)) % 2 + 1.0),
            "one budget, not 1, 2",
        ),
        (lambda rows: pd.concat([rows, rows]), "filtered table has several rows of index"),
        (lambda rows: rows[rows["target"] == "a"], "filtered table has no rows of b"),
        (lambda rows: rows.assign(index=rows["index"] + 1), "predictions lack image 5 of"),
        (
            lambda rows: rows.query("index != 1 or norm != 'l2' or band != 'low'"),
            "has 2 of the 3 images counted for 'b', norm l2, band low",
        ),
    ],
)
def test_tables_that_do_not_fit_are_refused(make_table, make_filtered, change, message):
    filtered = change(make_filtered(FILTERED))
    with pytest.raises(ValueError, match=message):
        filtered_rates(filtered, make_table(PREDICTIONS), "a", ["a", "b"])


def rates_of(source, target, success, n=10):
    """Rates with these successes in the bands of each norm."""
    edges = [(0, 0.7), (0, 0.125), (0.125, 0.25), (0.25, 0.7)]
    return pd.DataFrame(
        [
            (source, target, band, norm, low, high, n, k)
            for norm in NORMS
            for band, (low, high), k in zip(BANDS, edges, success[norm], strict=True)
        ],
        columns=[
            *("source", "target", "band", "norm", "frequency_low", "frequency_high"),
            *("n", "success"),
        ],
    ).assign(attack="bim")


def test_filter_sentences_sum_over_the_pairs_that_are_not_white_box():
    frame = pd.concat(
        [
            rates_of("a", "b", {"linf": [9, 1, 2, 7], "l2": [9, 5, 2, 4]}),
            rates_of("a+c", "b", {"linf": [8, 2, 2, 5], "l2": [8, 2, 2, 3]}),
            rates_of("a+c", "a", {"linf": [10, 10, 0, 0], "l2": [10, 10, 0, 0]}),
        ]
    )
    first, second = filter_sentences(frame)
    assert first == (
        "At equal L-infinity norm, over 2 pairs that are not white box (bim), the attacks succeed "
        "with the low frequencies (below 0.125 cycles per pixel) on 3 / 20 = 15.00%, the middle "
        "ones (0.125 to 0.25) on 4 / 20 = 20.00%, the high ones (from 0.25) on 12 / 20 = 60.00%; "
        "the whole perturbation on 17 / 20 = 85.00%: most often with the high ones."
    )
    assert second.startswith("At equal L2 norm")
    assert second.endswith("17 / 20 = 85.00%: no part succeeds more often than all others.")


def test_filter_sentences_fall_back_on_white_boxes():
    frame = rates_of("a", "a", {"linf": [9, 1, 2, 7], "l2": [9, 5, 2, 4]})
    first, second = filter_sentences(frame[frame["norm"] == "linf"])
    assert "over 1 pair that is white box (bim)" in first
    assert second.endswith("no filtered image is counted.")


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


def accuracy_of(counts, n=100):
    frame = pd.DataFrame(
        [(target, cutoff, n, k) for target, found in counts.items() for cutoff, k in found.items()],
        columns=["target", "cutoff", "n", "correct"],
    )
    return frame.assign(accuracy=frame["correct"] / frame["n"])


def test_low_pass_sentences_tell_accuracy_and_where_it_halves():
    frame = accuracy_of(
        {
            "a": {0.0625: 50, 0.125: 39, 0.25: 60, 0.375: 80},  # not at 0.125, so not at 0.0625
            "b": {0.0625: 10, 0.125: 20, 0.25: 20, 0.375: 40},
            "c": {0.0625: 0, 0.125: 0, 0.25: 0, 0.375: 0},
        }
    )
    first, second = low_pass_sentences(frame.sample(frac=1, random_state=0).sort_values("target"))
    assert first == (
        "Of clean images that keep only the frequencies below 0.25 cycles per pixel, a recognises "
        "60 / 100 = 60.00%, b recognises 20 / 100 = 20.00%, c recognises 0 / 100 = 0.00%; with "
        "those below 0.375, a recognises 80 / 100 = 80.00%, b recognises 40 / 100 = 40.00%, c "
        "recognises 0 / 100 = 0.00%."
    )
    assert second == (
        "The lowest cutoff down to which a model keeps at least half of its accuracy at 0.375 "
        "cycles per pixel is 0.25 (a), 0.125 (b), none (c)."
    )
    first, _ = low_pass_sentences(accuracy_of({"a": {0.125: 3}}))
    assert first.endswith("below 0.125 cycles per pixel, a recognises 3 / 100 = 3.00%.")
    assert low_pass_sentences(frame.iloc[:0])[0] == "No image was low-passed."
