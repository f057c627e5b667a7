"""What 8 bits hold of an adversarial image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.sets import (
    StorageFormat,
    check_budget,
    exceeds,
    jpeg_round_trip,
    parse_storage,
    png_round_trip,
    round_to_8_bits,
)

seeds = st.integers(0, 2**31)
budgets = st.one_of(st.integers(0, 40).map(float), st.floats(0, 40, allow_nan=False))


def pair(seed, eps_255, number=3, size=4, spread=1.5):
    """Clean images and float images around them, some outside the ball."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)
    change = (torch.rand(clean.shape, generator=generator) * 2 - 1) * spread * eps_255 / 255
    return clean, (clean / 255 + change).clamp(0, 1)


def rms(stored, clean):
    return (stored.double() - clean.double()).square().mean(dim=(-3, -2, -1)).sqrt()


@settings(max_examples=60, deadline=None)
@given(seeds, budgets)
def test_linf_is_the_nearest_level_in_the_ball(seed, eps_255):
    clean, adversarial = pair(seed, eps_255)
    stored = round_to_8_bits(adversarial, clean, eps_255)
    radius = math.floor(eps_255 + 1e-4)
    change = stored.int() - clean.int()
    assert change.abs().max() <= radius
    levels = np.arange(256).reshape(256, 1)
    inside = np.abs(levels - clean.numpy().reshape(1, -1).astype(int)) <= radius
    wanted = adversarial.double().numpy().reshape(1, -1) * 255
    distance = np.where(inside, np.abs(levels - wanted), np.inf).min(axis=0)
    found = np.abs(stored.numpy().reshape(-1) - wanted[0])
    np.testing.assert_allclose(found, distance, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(seeds, budgets, st.sampled_from(["linf", "l2"]))
def test_rounding_keeps_the_budget_and_is_idempotent(seed, eps_255, norm):
    clean, adversarial = pair(seed, eps_255, spread=2.5)
    stored = round_to_8_bits(adversarial, clean, eps_255, norm)
    assert not exceeds(stored, clean, eps_255, norm).any()
    assert torch.equal(round_to_8_bits(stored / 255, clean, eps_255, norm), stored)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_budget_gives_the_clean_image(norm):
    clean, adversarial = pair(0, 8.0)
    assert torch.equal(round_to_8_bits(adversarial, clean, 0.0, norm), clean)


def test_less_than_one_level_gives_the_clean_image():
    clean, adversarial = pair(0, 8.0)
    assert torch.equal(round_to_8_bits(adversarial, clean, 0.99), clean)


@pytest.mark.parametrize("eps_255", [8.000001, 7.999999, float(np.float32(8 / 255)) * 255])
def test_float_dust_does_not_move_the_budget(eps_255):
    clean = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    stored = round_to_8_bits(torch.ones(1, 3, 2, 2), clean, eps_255)
    assert torch.equal(stored, clean + 8)
    assert not exceeds(stored, clean, eps_255).any()


def test_floor_mis_stores_and_breaks_the_budget():
    clean = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    unit = clean / 255
    adversarial = (unit - 8 / 255).clamp(0, 1)
    floored = (adversarial * 255).to(torch.uint8)
    assert exceeds(floored, clean, 8).all()
    assert not torch.equal(floored / 255, adversarial)
    stored = round_to_8_bits(adversarial, clean, 8)
    assert torch.equal(stored.int(), (clean.int() - 8).clamp_min(0))


def test_several_budgets_at_once():
    clean, adversarial = pair(3, 20.0)
    grid = torch.tensor([0.0, 0.5, 3.0, 8.5]).reshape(4, 1, 1, 1, 1)
    stacked = adversarial.expand(4, *adversarial.shape)
    for norm in ("linf", "l2"):
        stored = round_to_8_bits(stacked, clean, grid, norm)
        alone = [round_to_8_bits(adversarial, clean, float(eps), norm) for eps in grid]
        assert torch.equal(stored, torch.stack(alone))
        assert exceeds(stored, clean, grid, norm).shape == (4, 3)
        assert not exceeds(stored, clean, grid, norm).any()
        assert exceeds(stored[-1:], clean, grid[:3], norm).all()


def test_l2_rounds_to_nearest_where_that_fits():
    clean, adversarial = pair(1, 8.0, spread=1.0)  # uniform changes: RMS 8 / sqrt(3)
    stored = round_to_8_bits(adversarial, clean, 8.0, "l2")
    assert torch.equal(stored, (adversarial * 255).round().to(torch.uint8))


def test_l2_rounds_toward_the_clean_image_where_nearest_is_too_far():
    clean = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    adversarial = clean / 255 + 2.6 / 255  # RMS 2.6, nearest levels 3 away
    adversarial[1] = (clean[1].float() + 2.4) / 255  # nearest levels 2 away
    stored = round_to_8_bits(adversarial, clean, 2.6, "l2")
    assert torch.equal(stored, clean + 2)


def test_l2_brings_images_outside_the_ball_onto_it():
    clean, adversarial = pair(5, 60.0)
    stored = round_to_8_bits(adversarial, clean, 10.0, "l2")
    size = rms(stored, clean)
    assert (size <= 10).all() and (size > 9).all()
    assert (stored.int() - clean.int()).abs().max() > 10  # the L2 ball is no box


def test_exceeds_is_exact_at_the_border():
    clean = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    stored = clean.clone()
    stored[0, 0, 0, 0], stored[1, 0, 0, 0], stored[2] = 8, 9, 255
    assert exceeds(stored, clean, 8).tolist() == [False, True, True]
    assert exceeds(stored, clean, 8.9).tolist() == [False, True, True]
    size = 8 / math.sqrt(12)
    assert exceeds(stored, clean, size, "l2").tolist() == [False, True, True]
    assert exceeds(stored, clean, size - 0.001, "l2").tolist() == [True, True, True]
    with pytest.raises(ValueError, match=r"2 stored images .* eps_255=8 in the linf .* image 41"):
        check_budget(stored, clean, 8, "linf", np.array([40, 41, 42]))
    check_budget(stored[:1], clean[:1], 8, "linf", np.array([40]))


def test_half_precision_and_doubles_are_rounded_alike():
    clean, adversarial = pair(2, 8.0)
    stored = round_to_8_bits(adversarial, clean, 8)
    assert torch.equal(round_to_8_bits(adversarial.double(), clean, 8), stored)
    assert not exceeds(round_to_8_bits(adversarial.bfloat16(), clean, 8), clean, 8).any()


def test_png_is_lossless_and_jpeg_is_not():
    clean, adversarial = pair(7, 8.0, size=16)
    stored = round_to_8_bits(adversarial, clean, 8)
    assert torch.equal(png_round_trip(stored), stored)
    errors = []
    for quality in (30, 95):
        back = jpeg_round_trip(stored, quality)
        assert back.dtype == torch.uint8 and back.shape == stored.shape
        assert exceeds(back, clean, 8).all()
        errors.append(float(rms(back, stored).mean()))
    assert errors[0] > errors[1] > 0


@pytest.mark.parametrize("quality", [0, 101, True, 75.0])
def test_impossible_jpeg_qualities(quality):
    with pytest.raises(ValueError, match=r"whole number in 1\.\.100"):
        jpeg_round_trip(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), quality)


def test_names_of_stored_forms():
    assert parse_storage("float32") == StorageFormat("float32")
    assert parse_storage("uint8").quality is None
    assert parse_storage("png").kind == "png"
    assert [parse_storage(f"jpeg{q}").quality for q in (1, 75, 100)] == [1, 75, 100]


@pytest.mark.parametrize("text", ["jpeg", "jpeg0", "jpeg101", "jpeg075", "JPEG75", "", None, 8])
def test_other_stored_forms_are_refused(text):
    with pytest.raises(ValueError, match=r"not one of float32, uint8, png, and jpeg1 to jpeg100"):
        parse_storage(text)


def test_wrong_arguments_are_refused():
    clean = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    good = torch.zeros(2, 3, 4, 4)
    for adversarial in (clean, good + math.nan, good + math.inf):
        with pytest.raises(ValueError, match="finite floats"):
            round_to_8_bits(adversarial, clean, 8)
    with pytest.raises(ValueError, match="norm=l1 is not one of linf, l2"):
        round_to_8_bits(good, clean, 8, "l1")
    with pytest.raises(ValueError, match="images must be uint8"):
        round_to_8_bits(good, good, 8)
    with pytest.raises(ValueError, match="clean must be uint8"):
        exceeds(clean, clean[0], 8)
    with pytest.raises(ValueError, match="last three axes have length 1"):
        round_to_8_bits(good, clean, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    for eps_255 in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and at least 0"):
            exceeds(clean, clean, eps_255)
