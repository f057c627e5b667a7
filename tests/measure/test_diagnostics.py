"""Diagnostics beside closed forms, autograd, NumPy, SciPy and scikit-image, and invariants."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from scipy.fft import dctn, idctn
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from src.attacks import fgsm, noise_signs, pgd
from src.data import Batch
from src.images.storage import AttackedImages
from src.measure import frequencies as measured
from src.measure.frequencies import CORNER, band, radial_power
from src.measure.prediction_rows import to_lists
from src.measure.visibility import Visibility
from src.models import Ensemble
from src.utils.vocabulary import CONTROLS
from tests.measure.small import all_of, curved, diagnosed, linear, make_images

TABLES = {"spectra", "filtered", "visibility", "low_passed", "similarity"}


def test_predictions_stay_the_same_to_the_last_bit():
    """That rows depend on no other image is shown by `tests.run.test_growth`."""
    networks = {"a": curved(0), "b": curved(1)}
    attacked = make_images(model=networks["a"]), networks["a"], networks, partial(pgd, steps=2)
    words = {"storage": "uint8", "variants": ["float32"], "controls": True}
    plain = diagnosed(*attacked, **words)
    full = diagnosed(*attacked, only={"tables": ["all"]}, **words)
    for name, table in plain.results.predictions.items():
        assert full.results.predictions[name].equals(table)
    assert list(plain.results.predictions) == ["uint8", "float32", *CONTROLS]
    assert plain.results.gradients == full.results.gradients
    assert plain.results.diagnostics == {} and set(full.results.diagnostics) == TABLES


def gradient(logits, labels: torch.Tensor, clean: torch.Tensor) -> np.ndarray:
    """Return the gradients of the summed cross-entropy of logits (M, N, C), in double."""
    variable = clean.double().requires_grad_()
    losses = [
        nn.functional.cross_entropy(each, labels, reduction="sum") for each in logits(variable)
    ]
    (found,) = torch.autograd.grad(sum(losses), variable)
    return found.flatten(1).numpy()


@pytest.mark.parametrize("average", [None, "logits", "probabilities", "loss"])
def test_the_similarity_is_that_of_gradients_by_autograd(average):
    """An ensemble is differentiated as it is attacked; a zero gradient has none."""
    networks = {name: curved(seed) for seed, name in enumerate("abcd")}
    networks["d"][3].weight.data.zero_()
    members = ["a"] if average is None else ["a", "b"]
    source = networks["a"]
    if average:
        source = Ensemble([networks[name] for name in members], average)
    found = diagnosed(make_images(), source, networks, only={"tables": ["similarity"]}, max_batch=3)
    (clean, batch), found = all_of(make_images()), found.similarity
    double = {name: nn.Sequential(*curved(seed)).double() for seed, name in enumerate("abc")}
    both = Ensemble([double[name] for name in members], average or "logits")
    attacked = both.member_logits if average == "loss" else lambda x: both(x)[None]
    own = gradient(attacked, batch.labels, clean)
    for name, network in double.items():
        other = gradient(lambda x, network=network: network(x)[None], batch.labels, clean)
        norms = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
        rows = found[found["target"] == name]
        assert rows["index"].tolist() == list(range(11))
        assert rows["label"].tolist() == batch.labels.tolist()
        np.testing.assert_allclose(rows["cosine"], (own * other).sum(1) / norms, atol=1e-4)
    assert found.loc[found["target"] == "d", "cosine"].isna().all()
    assert found.loc[found["target"] == "c", "cosine"].abs().max() < 0.9


def observed(clean, *levels):
    """Return the rows of some versions of images, (N, 3, H, W) each, at 4/255, 8/255, ..."""
    numbers = torch.arange(len(clean)) + 5
    batch = Batch((255 * clean).round().to(torch.uint8), torch.zeros_like(numbers), numbers)
    budgets = [4.0 * number for number in range(1, len(levels) + 1)]
    versions = {
        eps: AttackedImages(clean, images, batch, eps, "linf")
        for eps, images in zip(budgets, levels, strict=True)
    }
    return Visibility().rows(SimpleNamespace(version=versions.get, budgets=budgets)).to_pandas()


@pytest.mark.parametrize("side", [10, 11, 45])
def test_psnr_and_ssim_are_those_of_scikit_image(side):
    """Images of fewer than 11 pixels have no SSIM."""
    random = torch.Generator().manual_seed(side)
    clean = torch.rand(3, 3, side, side, generator=random)
    noisy = (clean + 0.2 * torch.randn(clean.shape, generator=random)).clamp(0, 1)
    smooth = torch.nn.functional.avg_pool2d(clean, 3, stride=1, padding=1)
    rows = observed(clean, noisy, smooth, clean)
    assert list(rows["index"]) == [5, 6, 7] * 3 and list(rows["eps_255"])[::3] == [4, 8, 12]
    wanted = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for number, image in enumerate((*noisy, *smooth)):
        pair = clean[number % 3].double().numpy(), image.double().numpy()
        psnr, change = peak_signal_noise_ratio(*pair, data_range=1), 255 * (pair[1] - pair[0])
        found = rows.loc[number, ["psnr", "linf_255", "rms_255"]].tolist()
        sizes = psnr, np.abs(change).max(), np.sqrt(np.mean(change**2))
        assert found == pytest.approx(sizes, abs=1e-4)
        if side > 10:
            ssim = structural_similarity(*pair, channel_axis=0, data_range=1, **wanted)
            assert rows["ssim"][number] == pytest.approx(ssim, abs=1e-4)
    assert np.isinf(rows["psnr"][6:]).all() and not rows["linf_255"][6:].any()
    assert rows["ssim"].isna().tolist() == [side < 11] * 9


BATCH = 6


def radii(height: int, width: int) -> np.ndarray:
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])


def reference(images: np.ndarray) -> np.ndarray:
    """Return the power about the mean in each bin, image by image."""
    *_, height, width = images.shape
    bins = min(64, height, width)
    power = (np.abs(np.fft.fft2(images.astype(np.float64))) ** 2).mean(1) / (height * width)
    power[:, 0, 0] = 0
    last = math.ceil(CORNER * bins) - 1
    number = np.floor(radii(height, width) * bins + 1e-9).astype(int).clip(max=last)
    return np.stack([np.bincount(number.ravel(), one.ravel(), last + 1) for one in power])


@pytest.mark.parametrize("sides", [(8, 8), (33, 33), (48, 20), (96, 130)])
def test_the_bins_hold_the_power_about_the_mean(sides):
    edges, number = measured.radial_bins(*sides)
    count = min(64, *sides)
    wanted = np.arange(math.ceil(CORNER * count) + 1) / count
    np.testing.assert_allclose(edges, np.minimum(wanted, CORNER), atol=1e-12)
    assert edges[-2] < CORNER and number.shape == sides
    images = torch.rand(3, 3, *sides, dtype=torch.float64)
    np.testing.assert_allclose(
        radial_power(images), reference(images.numpy()), rtol=1e-9, atol=1e-12
    )


def test_a_frequency_on_a_bound_belongs_above_it():
    for side in (16, 48, 392):  # 49 * (1 / 392) is below 1 / 8
        columns = torch.arange(side, dtype=torch.float64)
        wave = torch.cos(math.pi / 4 * columns + 0.3).expand(1, 3, side, side)  # 1/8 per pixel
        torch.testing.assert_close(band(wave, 0.125, 0.25), wave, atol=1e-12, rtol=0)
        assert band(wave, 0, 0.125).abs().max() < 1e-12


def test_what_rounding_leaves_is_not_scaled_up():
    clean = torch.rand(1, 3, 32, 32)
    change = (clean * 0.8 + 8 / 255) - clean * 0.8  # constant, but for the last digits
    assert 0 < measured.rescaled(band(change, 0.25, math.inf), change).abs().max() < 1e-6
    assert not measured.rescaled(torch.zeros_like(clean), torch.zeros_like(clean)).any()


def test_rows_are_the_spectra_of_images_and_perturbations():
    dataset, model = make_images(11, 64), linear(0, side=64)
    found = diagnosed(dataset, model, {"a": model}, only={"tables": ["spectra"]}).spectra
    assert list(found) == ["kind", "eps_255", "frequency_low", "frequency_high", "n", "share"]
    clean, batch = all_of(dataset)
    change = fgsm(model, clean, batch.labels, 8 / 255) - clean
    for kind, eps_255, what in (("image", 0, clean), ("perturbation", 8, change)):
        rows = found[found["kind"] == kind]
        assert (rows["eps_255"] == eps_255).all() and (rows["n"] == 11).all()
        power = reference(what.numpy())
        shares = (power / power.sum(1, keepdims=True)).mean(0)[1:]  # of the first, a constant
        np.testing.assert_allclose(rows["share"], shares, rtol=1e-4)
        np.testing.assert_allclose(rows["frequency_low"], np.arange(1, 46) / 64)
        high = np.minimum(np.arange(2, 47) / 64, CORNER)
        np.testing.assert_allclose(rows["frequency_high"], high)
    assert found["kind"].tolist() == ["image"] * 45 + ["perturbation"] * 45


def test_images_without_power_are_not_counted():
    """Shares are means over the other images."""
    clean = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for moved in ([1, 3], []):
        change = torch.zeros_like(clean)
        change[moved] = clean[moved]
        power = {"clean": radial_power(clean), "perturbation": radial_power(change)}
        rows = pa.table({name: to_lists(values) for name, values in power.items()})
        found = measured.mean_spectra(rows, 8, 4.0).to_pandas().set_index(["kind", "n"])["share"]
        shares = power["clean"] / power["clean"].sum(1, keepdim=True)
        np.testing.assert_allclose(found["image", 4], shares.mean(0)[1:])
        np.testing.assert_allclose(found["perturbation", len(moved)], shares[moved].mean(0)[1:])


def filtered(change: np.ndarray, low: float, high: float) -> np.ndarray:
    radius = radii(*change.shape[-2:])
    mask = (radius >= low) & ((radius < high) | (high == CORNER))
    return np.fft.ifft2(np.fft.fft2(change.astype(np.float64)) * mask).real


def mirrored(images: np.ndarray, cutoff: float) -> np.ndarray:
    """Low-pass by a cosine transform, which takes images for mirrored at their borders."""
    frequency = np.arange(images.shape[-1]) / (2 * images.shape[-1])
    mask = np.hypot(frequency[:, None], frequency[None]) < cutoff
    spectra = dctn(images.astype(np.float64), axes=(-2, -1)) * mask
    return idctn(spectra, axes=(-2, -1))


def check(rows: pd.DataFrame, network, images: np.ndarray, labels: torch.Tensor) -> None:
    """Compare rows with a network's predictions for images."""
    top = network(torch.from_numpy(images.clip(0, 1)).float()).softmax(1)
    assert rows["predicted"].tolist() == top.argmax(1).tolist()
    np.testing.assert_allclose(rows["confidence"], top.amax(1), atol=1e-4)
    true = top[torch.arange(len(labels)), labels]
    np.testing.assert_allclose(rows["true_confidence"], true, atol=1e-4)
    assert rows["label"].tolist() == labels.tolist()
    assert rows["index"].tolist() == list(range(len(labels)))


BOUNDS = {"all": (0, CORNER), "low": (0, 0.125), "mid": (0.125, 0.25), "high": (0.25, CORNER)}
CUTOFFS = [0.0625, 0.125, 0.1875, 0.25, 0.375]


def test_rows_are_predictions_for_filtered_perturbations_and_smooth_images():
    networks = {"b": curved(1, side=16), "a": curved(0, side=16)}
    dataset, only = make_images(11, 16, low=0), {"tables": ["filtered", "low_passed"]}
    run = diagnosed(dataset, networks["a"], networks, only=only)
    clean, batch = all_of(dataset)
    change = (fgsm(networks["a"], clean, batch.labels, 8 / 255) - clean).numpy()
    signs = noise_signs(0, batch.index, clean)
    noise = ((clean + 8 / 255 * signs).clamp(0, 1) - clean).numpy()
    assert len(run.filtered) == 11 * 2 * 4 * 2 and (run.filtered["eps_255"] == 8).all()
    assert run.filtered["target"].drop_duplicates().tolist() == ["b", "a"]
    for (target, name, kind), rows in run.filtered.groupby(["target", "band", "kind"]):
        low, high = BOUNDS[name]
        assert set(rows["frequency_low"]) == {low} and set(rows["frequency_high"]) == {high}
        part = filtered({"attack": change, "noise": noise}[kind], low, high)
        lengths = (np.linalg.norm(x.reshape(11, -1), axis=1) for x in (noise, part))
        factor = np.ones(11) if name == "all" else np.divide(*lengths)
        expected = clean.numpy() + part * factor[:, None, None, None]
        check(rows, networks[target], expected, batch.labels)
    assert run.low_passed["cutoff"].tolist() == sorted(CUTOFFS * 11) * 2
    for (target, cutoff), rows in run.low_passed.groupby(["target", "cutoff"]):
        check(rows, networks[target], mirrored(clean.numpy(), cutoff), batch.labels)
