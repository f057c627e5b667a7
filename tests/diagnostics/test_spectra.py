"""The table of spectra, against the images that were attacked."""

import numpy as np
import pytest
import torch

from src.attacks import fgsm

ONLY = {"spectra": True}


def reference(images: np.ndarray):
    """Return power per coefficient and shares by bin of 1/64, image by image, of numpy's FFT."""
    side = images.shape[-1]
    power = (np.abs(np.fft.fft2(images.astype(np.float64))) ** 2).mean(1) / side**2
    power[:, 0, 0] = 0
    frequency = np.fft.fftfreq(side)
    radius = np.hypot(frequency[:, None], frequency[None])
    radius[0, 0] = -1
    per_bin, shares = [], []
    for low in np.arange(1, 46) / 64:  # the first one holds the constant alone
        inside = (radius >= low) & (radius < low + 1 / 64)
        per_bin.append(power[:, inside].mean(1))
        shares.append(power[:, inside].sum(1) / power.sum((1, 2)))
    return np.array(per_bin), np.array(shares)


def test_rows_are_the_spectra_of_images_and_perturbations(images, linear, batch_of, diagnosed):
    dataset, model = images(11, 64), linear(0, side=64)
    found = diagnosed(dataset, model, {"a": model}, only=ONLY).spectra
    assert list(found) == [
        *("kind", "eps_255", "frequency_low", "frequency_high", "coefficients"),
        *("n", "power", "share", "share_sd"),
    ]
    clean, batch = batch_of(dataset)
    adversarial = fgsm(model, clean, batch.labels, 8 / 255)
    for kind, eps_255, what in (("image", 0, clean), ("perturbation", 8, adversarial - clean)):
        rows = found[found["kind"] == kind]
        power, shares = reference(what.numpy())
        assert (rows["eps_255"] == eps_255).all() and (rows["n"] == 11).all()
        np.testing.assert_allclose(rows["power"], power.mean(1), rtol=1e-4)
        np.testing.assert_allclose(rows["share"], shares.mean(1), rtol=1e-4)
        np.testing.assert_allclose(rows["share_sd"], shares.std(1, ddof=1), rtol=1e-3)
        assert rows["share"].sum() == pytest.approx(1)
        np.testing.assert_allclose(rows["frequency_low"], np.arange(1, 46) / 64)
        assert rows["coefficients"].sum() == 64 * 64 - 1
    assert found["kind"].tolist() == ["image"] * 45 + ["perturbation"] * 45


def test_images_without_power_are_not_counted(images, diagnosed):
    class Blind(torch.nn.Module):
        def forward(self, images):  # sees bright images alone
            sees = images[:, :1, 0, 0] > 0.5
            return torch.where(sees, images[:, :, 0, 1], images[:, :, 0, 1].detach() * 0)

    dataset = images(11)
    found = diagnosed(dataset, Blind(), {"a": Blind()}, only=ONLY).spectra
    whole = dataset.__getitems__(list(range(11)))
    bright = int((whole.images[:, 0, 0, 0] > 127.5).sum())
    rows = found[found["kind"] == "perturbation"]
    assert 0 < bright < 11 and (rows["n"] == bright).all()
    assert rows["share"].sum() == pytest.approx(1)
    assert (found.loc[found["kind"] == "image", "n"] == 11).all()


def test_one_image_has_no_deviation_and_no_perturbation_no_share(images, linear, diagnosed):
    model = linear(0)
    found = diagnosed(images(1), model, {"a": model}, only=ONLY).spectra
    assert found["share_sd"].isna().all() and not found["share"].isna().any()
    model[1].weight.data.zero_()
    found = diagnosed(images(3), model, {"a": model}, only=ONLY).spectra
    rows = found[found["kind"] == "perturbation"]
    assert (rows["n"] == 0).all() and rows[["power", "share", "share_sd"]].isna().all(axis=None)
