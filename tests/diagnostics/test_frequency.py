"""Spectra and filters, against the definitions."""

import math

import numpy as np
import pytest
import torch

from src.diagnostics.band_filters import rescaled, split
from src.diagnostics.frequency import CORNER, band, radial_edges, radial_power

SIDES = [(8, 8), (33, 33), (48, 20), (96, 130)]


def cosine(side: int, vertical: int, horizontal: int, phase: float = 0.3) -> torch.Tensor:
    rows, columns = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    wave = torch.cos(2 * math.pi * (vertical * rows + horizontal * columns) / side + phase)
    return wave.expand(1, 3, side, side)


@pytest.mark.parametrize("sides", SIDES)
def test_bins_hold_every_frequency_but_the_constant_once(sides):
    edges = radial_edges(*sides)
    width = 1 / min(64, *sides)
    np.testing.assert_allclose(edges[:-1], np.arange(len(edges) - 1) * width, atol=1e-12)
    assert edges[-1] == CORNER and edges[-2] < CORNER
    sums, coefficients, _ = radial_power(torch.rand(2, 3, *sides))
    assert sums.shape == (2, len(edges) - 1) == (2, len(coefficients))
    assert coefficients.sum() == sides[0] * sides[1] - 1
    frequencies = [np.fft.fftfreq(side) for side in sides]
    radius = np.hypot(frequencies[0][:, None], frequencies[1][None]).ravel()[1:]
    counts, _ = np.histogram(radius + 1e-9, bins=[*edges[:-1], 1])
    assert coefficients.tolist() == counts.tolist()


@pytest.mark.parametrize("sides", SIDES)
def test_parseval(sides):
    images = torch.rand(3, 3, *sides, dtype=torch.float64)
    sums, _, constant = radial_power(images)
    energy = images.square().sum((2, 3)).mean(1)
    torch.testing.assert_close(sums.sum(1) + constant, energy, rtol=1e-12, atol=0)
    mean = images.mean((2, 3)).square().mean(1) * sides[0] * sides[1]
    torch.testing.assert_close(constant, mean, rtol=1e-12, atol=0)


@pytest.mark.parametrize("side", [32, 299])
@pytest.mark.parametrize(("vertical", "horizontal"), [(0, 3), (5, 0), (4, 3), (-6, 8), (16, 16)])
def test_a_cosine_lands_in_its_bin(side, vertical, horizontal):
    sums, _, constant = radial_power(cosine(side, vertical, horizontal))
    edges = radial_edges(side, side)
    radius = math.hypot(vertical, horizontal) / side
    place = np.flatnonzero(edges[:-1] <= radius + 1e-9)[-1]  # the last one holds the corner too
    energy = cosine(side, vertical, horizontal)[0, 0].square().sum()
    assert sums[0, place] == pytest.approx(float(energy), rel=1e-9)
    assert float(sums.sum() - sums[0, place] + constant) < 1e-9 * float(energy)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bands_add_up_and_share_nothing(sides, dtype):
    images = torch.randn(2, 3, *sides, dtype=dtype)
    bounds = [(0.0, 0.125), (0.125, 0.25), (0.25, CORNER)]
    parts = [split(images, *ends) for ends in bounds]
    accuracy = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(sum(parts), images, atol=accuracy, rtol=0)
    for first, (low, high) in zip(parts, bounds, strict=True):
        assert first.dtype == dtype
        torch.testing.assert_close(split(first, low, high), first, atol=accuracy, rtol=0)
        for other in parts:
            if other is not first:
                products = (first * other).sum((1, 2, 3))
                assert (products.abs() < 1e2 * accuracy * images.square().sum()).all()


@pytest.mark.parametrize("side", [16, 24, 32, 48, 392])  # 49 * (1 / 392) is below 1 / 8
def test_a_frequency_on_a_bound_belongs_above_it(side):
    wave = cosine(side, 0, side // 8)  # 1/8 cycle per pixel
    torch.testing.assert_close(band(wave, 0.125, 0.25), wave, atol=1e-12, rtol=0)
    assert band(wave, 0, 0.125).abs().max() < 1e-12
    grey = torch.full((1, 3, side, side), 0.4)
    torch.testing.assert_close(band(grey, 0, 0.01), grey)


def test_rescaled_reaches_the_budget_or_the_length():
    whole = torch.randn(4, 3, 16, 16) * 0.02
    part = band(whole, 0.2, 0.3)
    linf = rescaled(part, whole, 8 / 255, "linf")
    np.testing.assert_allclose(linf.abs().amax((1, 2, 3)), 8 / 255, rtol=1e-5)
    l2 = rescaled(part, whole, 8 / 255, "l2")
    np.testing.assert_allclose(l2.flatten(1).norm(dim=1), whole.flatten(1).norm(dim=1), rtol=1e-5)
    for scaled in (linf, l2):
        cosines = torch.cosine_similarity(scaled.flatten(1), part.flatten(1))
        np.testing.assert_allclose(cosines, 1, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_stays_nothing(norm):
    """Also what rounding leaves of a part that should not be there."""
    zero = torch.zeros(1, 3, 32, 32)
    assert torch.equal(rescaled(zero, zero, 0.1, norm), zero)
    clean = torch.rand(1, 3, 32, 32)
    change = (clean * 0.8 + 8 / 255) - clean * 0.8  # constant, but for the last digits
    high = split(change, 0.25, CORNER)
    assert 0 < rescaled(high, change, 8 / 255, norm).abs().max() < 1e-6
