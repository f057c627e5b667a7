"""Predictions for filtered perturbations and for low-passed images."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.fft import dctn, idctn

from src.attacks import bim, noise_signs
from src.measure.frequencies import CORNER

ONLY = {"tables": ["filtered", "low_passed"]}
BOUNDS = {"all": (0, CORNER), "low": (0, 0.125), "mid": (0.125, 0.25), "high": (0.25, CORNER)}


def filtered(change: np.ndarray, low: float, high: float) -> np.ndarray:
    frequency = np.fft.fftfreq(change.shape[-1])
    radius = np.hypot(frequency[:, None], frequency[None])
    mask = (radius >= low) & ((radius < high) | (high == CORNER))
    return np.fft.ifft2(np.fft.fft2(change.astype(np.float64)) * mask).real


def mirrored(images: np.ndarray, cutoff: float) -> np.ndarray:
    """Low-pass by a cosine transform, which takes images for mirrored at their borders."""
    frequency = np.arange(images.shape[-1]) / (2 * images.shape[-1])
    mask = np.hypot(frequency[:, None], frequency[None]) < cutoff
    spectra = dctn(images.astype(np.float64), axes=(-2, -1)) * mask
    return idctn(spectra, axes=(-2, -1))


def check(rows: pd.DataFrame, network, images: np.ndarray, labels: torch.Tensor) -> None:
    top = network(torch.from_numpy(images.clip(0, 1)).float()).softmax(1)
    assert rows["predicted"].tolist() == top.argmax(1).tolist()
    np.testing.assert_allclose(rows["confidence"], top.amax(1), atol=1e-4)
    true = top[torch.arange(len(labels)), labels]
    np.testing.assert_allclose(rows["true_confidence"], true, atol=1e-4)
    assert rows["label"].tolist() == labels.tolist()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rows_are_predictions_for_filtered_perturbations(norm, images, curved, batch_of, diagnosed):
    networks = {"b": curved(1, side=16), "a": curved(0, side=16)}
    dataset, attack = images(11, 16, low=0), partial(bim, steps=3, norm=norm)
    run = diagnosed(dataset, networks["a"], networks, attack, only=ONLY, norm=norm)
    found = run.filtered
    assert len(found) == 11 * 2 * 4 * 2 and (found["eps_255"] == 8).all()
    clean, batch = batch_of(dataset)
    change = (attack(networks["a"], clean, batch.labels, 8 / 255) - clean).numpy()
    signs = noise_signs(0, batch.index, clean)
    noise = ((clean + 8 / 255 * signs).clamp(0, 1) - clean).numpy()
    for (target, name, kind), rows in found.groupby(["target", "band", "kind"]):
        assert rows["index"].tolist() == list(range(11))
        low, high = BOUNDS[name]
        assert set(rows["frequency_low"]) == {low} and set(rows["frequency_high"]) == {high}
        whole = {"attack": change, "noise": noise}[kind]
        part = filtered(whole, low, high)
        lengths = (np.linalg.norm(x.reshape(11, -1), axis=1) for x in (noise, part))
        factor = np.ones(11) if name == "all" else np.divide(*lengths)
        expected = clean.numpy() + part * factor[:, None, None, None]
        check(rows, networks[target], expected, batch.labels)
    assert found["target"].drop_duplicates().tolist() == ["b", "a"]


def test_rows_are_predictions_for_smooth_clean_images(images, curved, batch_of, diagnosed):
    networks = {"b": curved(1, side=16), "a": curved(0, side=16)}
    dataset = images(11, 16, low=0)
    found = diagnosed(dataset, networks["a"], networks, only=ONLY).low_passed
    cutoffs = [0.0625, 0.125, 0.1875, 0.25, 0.375]
    assert len(found) == 11 * 2 * 5 and sorted(set(found["cutoff"])) == cutoffs
    clean, batch = batch_of(dataset)
    for (target, cutoff), rows in found.groupby(["target", "cutoff"]):
        assert rows["index"].tolist() == list(range(11))
        check(rows, networks[target], mirrored(clean.numpy(), cutoff), batch.labels)
    assert found["cutoff"].tolist() == sorted(cutoffs * 11) * 2
