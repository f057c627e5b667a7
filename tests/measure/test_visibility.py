"""Visibility of perturbations against scikit-image and closed forms."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from src.data import Batch
from src.images.storage import AttackedImages
from src.measure.visibility import Visibility


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


@pytest.mark.parametrize("side", [11, 32, 45])
def test_psnr_and_ssim_are_those_of_scikit_image(side):
    random = torch.Generator().manual_seed(side)
    clean = torch.rand(3, 3, side, side, generator=random)
    noisy = (clean + 0.2 * torch.randn(clean.shape, generator=random)).clamp(0, 1)
    smooth = torch.nn.functional.avg_pool2d(clean, 3, stride=1, padding=1)
    rows = observed(clean, noisy, smooth)
    assert list(rows["index"]) == [5, 6, 7, 5, 6, 7] and list(rows["eps_255"]) == [4] * 3 + [8] * 3
    wanted = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for number, image in enumerate((*noisy, *smooth)):
        pair = clean[number % 3].double().numpy(), image.double().numpy()
        psnr = peak_signal_noise_ratio(*pair, data_range=1)
        ssim = structural_similarity(*pair, channel_axis=0, data_range=1, **wanted)
        assert rows["psnr"][number] == pytest.approx(psnr, abs=1e-4)
        assert rows["ssim"][number] == pytest.approx(ssim, abs=1e-4)


def test_sizes_have_closed_forms():
    clean = torch.full((3, 3, 16, 16), 0.5)
    half = torch.zeros_like(clean)
    half[..., :8] = 8 / 255
    rows = observed(clean, clean + 4 / 255, clean + half, clean)
    assert rows["linf_255"].tolist() == pytest.approx([4] * 3 + [8] * 3 + [0] * 3, abs=1e-4)
    root = 8 / math.sqrt(2)
    assert rows["rms_255"].tolist() == pytest.approx([4] * 3 + [root] * 3 + [0] * 3, abs=1e-4)
    assert rows["psnr"][0] == pytest.approx(20 * math.log10(255 / 4), abs=1e-4)
    assert np.isinf(rows["psnr"][6:]).all() and (rows["ssim"][6:] == 1).all()


def test_images_below_the_window_have_no_ssim():
    clean = torch.rand(2, 3, 10, 10)
    rows = observed(clean, clean / 2)
    assert rows["ssim"].isna().all() and rows["psnr"].notna().all()
