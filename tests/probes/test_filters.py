"""What targets say of filtered perturbations and of low-passed images."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from src.attacks import bim, fgsm
from src.probes.frequency import CORNER

ONLY = {"filters": True}
BOUNDS = {"all": (0, CORNER), "low": (0, 0.125), "band": (0.125, 0.25), "high": (0.25, CORNER)}


def filtered(change: np.ndarray, low: float, high: float) -> np.ndarray:
    frequency = np.fft.fftfreq(change.shape[-1])
    radius = np.hypot(frequency[:, None], frequency[None])
    mask = (radius >= low) & ((radius < high) | (high == CORNER))
    return np.fft.ifft2(np.fft.fft2(change.astype(np.float64)) * mask).real


def check(rows: pd.DataFrame, network, shown: np.ndarray, labels: torch.Tensor) -> None:
    said = network(torch.from_numpy(shown.clip(0, 1)).float()).softmax(1)
    assert rows["predicted"].tolist() == said.argmax(1).tolist()
    np.testing.assert_allclose(rows["confidence"], said.amax(1), atol=1e-4)
    true = said[torch.arange(len(labels)), labels]
    np.testing.assert_allclose(rows["true_confidence"], true, atol=1e-4)
    assert rows["label"].tolist() == labels.tolist()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rows_are_answers_to_filtered_perturbations(norm, images, curved, batch_of, probed):
    networks = {"b": curved(1, side=16), "a": curved(0, side=16)}
    dataset, attack = images(11, 16, low=10), partial(bim, steps=3, norm=norm)
    run = probed(dataset, networks["a"], networks, attack, analysis=ONLY, norm=norm)
    found = run.filtered
    assert list(found) == [
        *("index", "label", "target", "eps_255", "band", "norm", "frequency_low"),
        *("frequency_high", "predicted", "confidence", "true_confidence"),
    ]
    assert len(found) == 11 * 2 * 4 * 2 and (found["eps_255"] == 8).all()
    clean, batch = batch_of(dataset)
    change = (attack(networks["a"], clean, batch.labels, 8 / 255) - clean).numpy()
    for (target, kind, name), rows in found.groupby(["target", "norm", "band"]):
        assert rows["index"].tolist() == list(range(11))
        low, high = BOUNDS[name]
        assert set(rows["frequency_low"]) == {low} and set(rows["frequency_high"]) == {high}
        part = filtered(change, low, high)
        flat = part.reshape(11, -1)
        if kind == "linf":
            factor = 8 / 255 / np.abs(flat).max(1)
        else:
            factor = np.linalg.norm(change.reshape(11, -1), axis=1) / np.linalg.norm(flat, axis=1)
        shown = clean.numpy() + part * factor[:, None, None, None]
        check(rows, networks[target], shown, batch.labels)
    assert found["target"].drop_duplicates().tolist() == ["b", "a"]


def test_the_whole_band_of_equal_length_is_what_the_job_shows(images, curved, probed):
    networks = {"a": curved(0), "b": curved(1)}
    run = probed(images(), networks["a"], networks, analysis=ONLY)
    rows = run.filtered[(run.filtered["band"] == "all") & (run.filtered["norm"] == "l2")]
    shown = run.result.table.to_pandas()
    shown = shown[shown["eps_255"] == 8]
    for column in ("index", "target", "predicted", "confidence", "true_confidence"):
        assert rows[column].tolist() == shown[column].tolist()


def test_other_bands_and_cutoffs(images, curved, batch_of, probed):
    model = curved(0, side=16)
    dataset = images(6, 16)
    analysis = ONLY | {"bands": [0.2, 0.4], "cutoffs": [0.3]}
    run = probed(dataset, model, {"a": model}, analysis=analysis)
    bounds = run.filtered.groupby("band")[["frequency_low", "frequency_high"]].first()
    assert bounds.loc["band"].tolist() == [0.2, 0.4] and bounds.loc["low"].tolist() == [0, 0.2]
    clean, batch = batch_of(dataset)
    change = (fgsm(model, clean, batch.labels, 8 / 255) - clean).numpy()
    part = filtered(change, 0.2, 0.4)
    part *= (8 / 255 / np.abs(part).max((1, 2, 3)))[:, None, None, None]
    rows = run.filtered[(run.filtered["band"] == "band") & (run.filtered["norm"] == "linf")]
    check(rows, model, clean.numpy() + part, batch.labels)
    assert set(run.low_passed["cutoff"]) == {0.3}


def test_low_passed_rows_are_answers_to_smooth_clean_images(images, curved, batch_of, probed):
    networks = {"b": curved(1, side=16), "a": curved(0, side=16)}
    dataset = images(11, 16, low=0)
    found = probed(dataset, networks["a"], networks, analysis=ONLY).low_passed
    assert list(found) == [
        *("index", "label", "target", "cutoff", "predicted", "confidence", "true_confidence"),
    ]
    cutoffs = [0.0625, 0.125, 0.1875, 0.25, 0.375]
    assert len(found) == 11 * 2 * 5 and sorted(set(found["cutoff"])) == cutoffs
    clean, batch = batch_of(dataset)
    for (target, cutoff), rows in found.groupby(["target", "cutoff"]):
        assert rows["index"].tolist() == list(range(11))
        check(rows, networks[target], filtered(clean.numpy(), 0, cutoff), batch.labels)
    assert found["cutoff"].tolist() == sorted(cutoffs * 11) * 2


def test_a_cutoff_beyond_the_corner_leaves_the_image(images, curved, batch_of, probed):
    model, dataset = curved(0), images()
    analysis = ONLY | {"cutoffs": [0.71]}
    rows = probed(dataset, model, {"a": model}, analysis=analysis).low_passed
    clean, batch = batch_of(dataset)
    check(rows, model, clean.numpy(), batch.labels)
