"""Rounding of adversarial images to 8 bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.attacks import noise_signs
from src.data import Batch
from src.images.storage import AttackedImages, change_size, exceeds, round_to_8_bits

seeds = st.integers(0, 2**31)
budgets = st.one_of(st.integers(0, 40).map(float), st.floats(0, 40, allow_nan=False))


def pair(seed, eps_255, size=4, spread=1.5):
    """Clean images and float images around them, some outside the ball."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=generator)
    change = (torch.rand(clean.shape, generator=generator) * 2 - 1) * spread * eps_255 / 255
    return clean, (clean / 255 + change).clamp(0, 1)


@settings(max_examples=30, deadline=None)
@given(seeds, budgets)
def test_linf_is_the_nearest_level_in_the_ball(seed, eps_255):
    clean, adversarial = pair(seed, eps_255)
    stored = round_to_8_bits(adversarial, clean, eps_255)
    levels = np.arange(256).reshape(256, 1)
    change = np.abs(levels - clean.numpy().reshape(1, -1).astype(int))
    wanted = adversarial.double().numpy().reshape(1, -1) * 255
    distances = np.where(change <= math.floor(eps_255 + 1e-4), np.abs(levels - wanted), np.inf)
    found = np.take_along_axis(distances, stored.numpy().reshape(1, -1).astype(int), axis=0)
    np.testing.assert_allclose(found[0], distances.min(axis=0), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(seeds, budgets, st.sampled_from(["linf", "l2"]))
def test_rounding_keeps_the_budget_and_is_idempotent(seed, eps_255, norm):
    clean, adversarial = pair(seed, eps_255, spread=2.5)
    stored = round_to_8_bits(adversarial, clean, eps_255, norm)
    assert not exceeds(change_size(stored, clean, norm), eps_255, norm).any()
    assert torch.equal(round_to_8_bits(stored / 255, clean, eps_255, norm), stored)


def test_float_rounding_does_not_move_the_budget():
    clean = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    for eps_255 in (8.000001, 7.999999, float(np.float32(8 / 255)) * 255):
        stored = round_to_8_bits(torch.ones(1, 3, 2, 2), clean, eps_255)
        assert torch.equal(stored, clean + 8) and not exceeds(torch.tensor(8), eps_255, "linf")


def test_l2_rounds_to_nearest_or_toward_the_clean_image_or_onto_the_ball():
    clean, adversarial = pair(1, 8.0, spread=1.0)  # uniform changes: RMS 8 / sqrt(3)
    stored = round_to_8_bits(adversarial, clean, 8.0, "l2")
    assert torch.equal(stored, (adversarial * 255).round().to(torch.uint8))
    clean = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    adversarial = clean / 255 + 2.6 / 255  # RMS 2.6, nearest levels 3 away
    adversarial[1] = (clean[1].float() + 2.4) / 255  # nearest levels 2 away
    assert torch.equal(round_to_8_bits(adversarial, clean, 2.6, "l2"), clean + 2)
    clean, adversarial = pair(5, 60.0)
    stored = round_to_8_bits(adversarial, clean, 10.0, "l2")
    size = change_size(stored, clean, "l2")
    assert (size <= 10).all() and (size > 9).all()
    assert (stored.int() - clean.int()).abs().max() > 10  # the L2 ball is no box


def test_sizes_are_exact_at_the_border():
    clean = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    stored = clean.clone()
    stored[0, 0, 0, 0], stored[1, 0, 0, 0], stored[2] = 8, 9, 255
    linf, l2 = (change_size(stored, clean, norm) for norm in ("linf", "l2"))
    size = 8 / math.sqrt(12)
    assert linf.tolist() == [8, 9, 255] and l2.tolist() == pytest.approx([size, size * 9 / 8, 255])
    assert exceeds(linf, 8.9, "linf").tolist() == [False, True, True]
    assert exceeds(l2, size, "l2").tolist() == [False, True, True]
    assert exceeds(l2, size - 0.001, "l2").all()


def test_controls_move_pixels_by_noise_or_by_other_perturbations():
    clean = torch.full((2, 3, 4, 4), 0.5)
    change = torch.linspace(-8, 8, 16).view(1, 1, 4, 4).expand(2, 3, 4, 4) / 255
    change = change * torch.tensor([1.0, 0.5]).view(2, 1, 1, 1)
    levels = (clean * 255).round().to(torch.uint8)
    batch = Batch(levels, torch.tensor([0, 1]), torch.tensor([3, 7]))
    attacked = AttackedImages(clean, clean + change, batch, 8.0, "linf")
    noise = attacked.control("noise", "float32", 1)
    torch.testing.assert_close(noise, clean + 8 / 255 * noise_signs(1, batch.index, clean))
    stored = 255 * attacked.control("noise", "stored", 1)
    torch.testing.assert_close(stored, stored.round(), rtol=0, atol=1e-4)
    others = attacked.control("shuffled", "float32", 0, torch.tensor([1, 0])) - clean
    torch.testing.assert_close(others, change.flip(0), rtol=0, atol=1e-6)
    control = attacked.control("shuffled", "float32", 0) - clean  # of a universal perturbation
    for image, own in zip(control, change, strict=True):
        assert torch.allclose(image, image[:1], atol=1e-6)  # channels together
        values = image[0].flatten().sort().values
        assert torch.allclose(values, own[0].flatten(), atol=1e-6)
        assert not torch.allclose(image, own)
