"""The table of spectra, against the images that were attacked."""

import numpy as np
import pytest
import torch

from src.attacks import fgsm

ONLY = {"tables": ["spectra"]}


def reference(images: np.ndarray):
    """Return the shares by bin of 1/64, image by image, of numpy's FFT."""
    side = images.shape[-1]
    power = (np.abs(np.fft.fft2(images.astype(np.float64))) ** 2).mean(1) / side**2
    power[:, 0, 0] = 0
    frequency = np.fft.fftfreq(side)
    radius = np.hypot(frequency[:, None], frequency[None])
    radius[0, 0] = -1
    shares = []
    for low in np.arange(1, 46) / 64:  # the first one holds the constant alone
        inside = (radius >= low) & (radius < low + 1 / 64)
        shares.append(power[:, inside].sum(1) / power.sum((1, 2)))
    return np.array(shares)


def test_rows_are_the_spectra_of_images_and_perturbations(images, linear, batch_of, diagnosed):
    dataset, model = images(11, 64), linear(0, side=64)
    found = diagnosed(dataset, model, {"a": model}, only=ONLY).spectra
    assert list(found) == ["kind", "eps_255", "frequency_low", "frequency_high", "n", "share"]
    clean, batch = batch_of(dataset)
    adversarial = fgsm(model, clean, batch.labels, 8 / 255)
    for kind, eps_255, what in (("image", 0, clean), ("perturbation", 8, adversarial - clean)):
        rows = found[found["kind"] == kind]
        assert (rows["eps_255"] == eps_255).all() and (rows["n"] == 11).all()
        np.testing.assert_allclose(rows["share"], reference(what.numpy()).mean(1), rtol=1e-4)
        assert rows["share"].sum() == pytest.approx(1)
        np.testing.assert_allclose(rows["frequency_low"], np.arange(1, 46) / 64)
    assert found["kind"].tolist() == ["image"] * 45 + ["perturbation"] * 45


def test_images_without_power_are_not_counted(images, linear, diagnosed):
    class Blind(torch.nn.Module):
        def forward(self, images):  # sees bright images alone
            sees = images[:, :1, 0, 0] > 0.5
            return torch.where(sees, images[:, :, 0, 1], images[:, :, 0, 1].detach() * 0)

    dataset = images(11)
    found = diagnosed(dataset, Blind(), {"a": Blind()}, only=ONLY).spectra
    whole = dataset[:11]
    bright = int((whole.images[:, 0, 0, 0] > 127.5).sum())
    rows = found[found["kind"] == "perturbation"]
    assert 0 < bright < 11 and (rows["n"] == bright).all()
    assert rows["share"].sum() == pytest.approx(1)
    assert (found.loc[found["kind"] == "image", "n"] == 11).all()
    model = linear(0)
    model[1].weight.data.zero_()
    found = diagnosed(images(3), model, {"a": model}, only=ONLY).spectra
    rows = found[found["kind"] == "perturbation"]
    assert (rows["n"] == 0).all() and rows["share"].isna().all()
