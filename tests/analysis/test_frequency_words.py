import numpy as np
import pandas as pd
import pytest

from src.analysis.frequency import BANDS, NORMS
from src.analysis.frequency_words import (
    filter_sentences,
    low_pass_sentences,
    spectrum_sentences,
)
from src.analysis.intervals import paired_interval

IMAGE = [0.7, 0.2, 0.07, 0.03]


def spectra_of(image, perturbation, attack="fgsm", source="vgg16", n=50):
    """Spectra of four bins, 1/8 cycle per pixel wide, with these shares of the power."""
    parts = [
        pd.DataFrame(
            {
                "kind": kind,
                "eps_255": eps,
                "frequency_low": np.arange(4) / 8,
                "frequency_high": np.arange(1, 5) / 8,
                "coefficients": [3, 10, 20, 30],
                "n": n,
                "share": share,
            }
        )
        for kind, eps, share in (("image", 0.0, image), ("perturbation", 8.0, perturbation))
    ]
    return pd.concat(parts).assign(attack=attack, source=source)


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
        "2 jobs have perturbations with a larger such share than their images, and 1 with a "
        "larger one than white noise."
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


def test_each_job_is_compared_with_its_own_images():
    spectra = pd.concat(
        [
            spectra_of([0.4, 0.1, 0.3, 0.2], [0.5, 0.1, 0.2, 0.2], "fgsm", "a", n=40),
            spectra_of([0.9, 0.05, 0.03, 0.02], [0.6, 0.3, 0.06, 0.04], "fgsm", "b"),
        ]
    )
    first, second = spectrum_sentences(spectra)
    assert "40.0% (fgsm on a), 10.0% (fgsm on b) of the power" in first
    assert "and 5.0% to 50.0% of that of the 40 to 50 images themselves" in first
    # b has more than its own images, though less than those of a; a has less than its own.
    assert "; 1 of 2 jobs" in second


def rates_of(source, target, success, noise=(1, 1, 1, 1), n=40, targeted=False):
    """Rates with these successes in the bands of each norm, and of noise in both."""
    frame = pd.DataFrame(
        [
            (source, target, band, norm, n, k, m)
            for norm in NORMS
            for band, k, m in zip(BANDS, success[norm], noise, strict=True)
        ],
        columns=["source", "target", "band", "norm", "n", "success", "noise_success"],
    ).assign(attack="bim", targeted=targeted)
    low, high = paired_interval(frame["success"] - 1, frame["noise_success"] - 1, n)
    excess = (frame["success"] - frame["noise_success"]) / n
    return frame.assign(excess=excess, excess_low=low, excess_high=high)


def test_filter_sentences_count_the_pairs_whose_interval_is_above_noise():
    frame = pd.concat(
        [
            rates_of("a", "b", {"linf": [30, 20, 2, 3], "l2": [30, 21, 30, 4]}, (1, 20, 1, 1)),
            rates_of("a+c", "b", {"linf": [30, 4, 2, 30], "l2": [30, 30, 2, 1]}),
            rates_of("a+c", "a", {"linf": [40, 40, 40, 40], "l2": [40, 40, 40, 40]}),
        ]
    )
    first, second = filter_sentences(frame)
    assert "equal L-infinity norm" in first and "equal L2 norm" in second
    assert "not white box" in first and "share images" in first
    assert "in 0 of 2 for the low ones (0.0% to 7.5%)" in first
    assert "0 of 2 for the middle ones (2.5%), 1 of 2 for the high ones (5.0% to 72.5%)" in first
    assert "in 1 of 2 for the low ones (2.5% to 72.5%), 1 of 2 for the middle ones" in second
    assert not any(word in first + second for word in ("most", "least", "best"))


def test_targeted_successes_are_told_only_without_others():
    successes = {"linf": [9, 1, 2, 7], "l2": [9, 5, 2, 4]}
    aimed = rates_of("a", "b", successes, targeted=True)
    frame = pd.concat([aimed.assign(attack="pgd"), rates_of("a", "b", successes)])
    for sentence in filter_sentences(frame):
        assert "not white box, untargeted" in sentence and " of 1 " in sentence
    for sentence in filter_sentences(aimed):
        assert "untargeted" not in sentence and " of 1 " in sentence


def test_filter_sentences_fall_back_on_white_boxes():
    frame = rates_of("a", "a", {"linf": [9, 1, 2, 7], "l2": [9, 5, 2, 4]})
    first, second = filter_sentences(frame[frame["norm"] == "linf"])
    assert "pairs white box" in first
    assert second.endswith("no filtered image is counted.")


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


def test_low_pass_sentences_measure_against_the_unfiltered_images():
    frame = accuracy_of(
        {
            "a": {0.125: 20, 0.25: 39, 0.375: 40, np.inf: 80},
            "b": {0.125: 10, 0.25: 20, 0.375: 20, np.inf: 80},
        }
    )
    first, second = low_pass_sentences(frame)
    assert first == (
        "Of clean images that keep only the frequencies below 0.25 cycles per pixel, a recognises "
        "39 / 100 = 39.00%, b recognises 20 / 100 = 20.00%; with all of them, a recognises "
        "80 / 100 = 80.00%, b recognises 80 / 100 = 80.00%."
    )
    assert second == (
        "The lowest cutoff down to which a model keeps at least half of its accuracy on the "
        "unfiltered images is 0.375 (a), none (b)."
    )
    assert low_pass_sentences(frame[frame["cutoff"] == np.inf])[0] == "No image was low-passed."
