"""Spectra and filters of single images, against their definitions."""

import math

import numpy as np
import pytest
import torch

from src.measure.frequencies import CORNER, band, radial_bins, radial_power, rescaled

SIDES = [(8, 8), (33, 33), (48, 20), (96, 130)]


@pytest.mark.parametrize("sides", SIDES)
def test_the_bins_hold_the_power_about_the_mean(sides):
    """Parseval."""
    edges, number = radial_bins(*sides)
    width = 1 / min(64, *sides)
    np.testing.assert_allclose(edges[:-1], np.arange(len(edges) - 1) * width, atol=1e-12)
    assert edges[-1] == CORNER and edges[-2] < CORNER and number.shape == sides
    images = torch.rand(3, 3, *sides, dtype=torch.float64)
    energy = images.var((2, 3), correction=0).mean(1) * sides[0] * sides[1]
    torch.testing.assert_close(radial_power(images).sum(1), energy, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sides", SIDES)
def test_bands_add_up_and_share_nothing(sides):
    images = torch.randn(2, 3, *sides, dtype=torch.float64)
    bounds = [(0, 0.125), (0.125, 0.25), (0.25, math.inf)]
    parts = [band(images, *ends) for ends in bounds]
    torch.testing.assert_close(sum(parts), images, atol=1e-12, rtol=0)
    for part, ends in zip(parts, bounds, strict=True):
        torch.testing.assert_close(band(part, *ends), part, atol=1e-12, rtol=0)
        assert part.flatten().dot((images - part).flatten()).abs() < 1e-9


@pytest.mark.parametrize("side", [16, 24, 32, 48, 392])  # 49 * (1 / 392) is below 1 / 8
def test_a_frequency_on_a_bound_belongs_above_it(side):
    columns = torch.arange(side, dtype=torch.float64)
    wave = torch.cos(math.pi / 4 * columns + 0.3).expand(1, 3, side, side)  # 1/8 cycle per pixel
    torch.testing.assert_close(band(wave, 0.125, 0.25), wave, atol=1e-12, rtol=0)
    assert band(wave, 0, 0.125).abs().max() < 1e-12


def test_what_rounding_leaves_is_not_scaled_up():
    clean = torch.rand(1, 3, 32, 32)
    change = (clean * 0.8 + 8 / 255) - clean * 0.8  # constant, but for the last digits
    assert 0 < rescaled(band(change, 0.25, math.inf), change).abs().max() < 1e-6
    assert not rescaled(torch.zeros_like(clean), torch.zeros_like(clean)).any()
