"""Diagnostics inside the pass: invariants of all, gradients by autograd, and visibility."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from src.attacks import pgd
from src.data import Batch
from src.images.storage import AttackedImages
from src.measure.visibility import Visibility
from src.models import Ensemble
from src.utils.vocabulary import CONTROLS
from tests.measure.small import all_of, curved, diagnosed, make_images

TABLES = {"flips", "spectra", "filtered", "visibility", "low_passed", "similarity"}


def test_predictions_stay_the_same_to_the_last_bit():
    """That rows depend on no other image is shown by `tests.run.test_growth`."""
    networks = {"a": curved(0), "b": curved(1)}
    attacked = make_images(model=networks["a"]), networks["a"], networks, partial(pgd, steps=2)
    words = {"storage": "uint8", "variants": ["float32"], "controls": True}
    plain = diagnosed(*attacked, **words)
    full = diagnosed(*attacked, only={"bisection": 3, "tables": ["all"]}, **words)
    for name, table in plain.results.predictions.items():
        assert full.results.predictions[name].equals(table)
    assert list(plain.results.predictions) == ["uint8", "float32", *CONTROLS]
    assert plain.results.gradients == full.results.gradients
    assert plain.results.diagnostics == {} and set(full.results.diagnostics) == TABLES
    assert len(full.flips) > 0  # attacks were run in between


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
