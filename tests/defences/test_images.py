"""Each defence of images against an independent implementation, and its gradient."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import median_filter
from scipy.stats import binomtest
from torch import Tensor
from torch.nn import functional

from src.attacks import Philox
from src.data.cifar10_mini import cifar10_mini
from src.defences import BitDepth, Jpeg, Median, RandomResizePad, Smoothing
from src.defences.feature_squeezing import soft_round


def batch(count: int = 4, height: int = 33, width: int = 40) -> Tensor:
    shape = (count, 3, height, width)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_is_the_nearest_level_with_the_gradient_of_a_staircase(bits):
    images = torch.arange(256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    levels, steps = np.linspace(0, 1, 2**bits), 2**bits - 1
    nearest = levels[np.abs(images.numpy()[..., None] - levels).argmin(axis=-1)]
    np.testing.assert_allclose(BitDepth(bits)(images).numpy(), nearest, atol=1e-7)
    images = batch(2, 5, 6).requires_grad_()
    (found,) = torch.autograd.grad(BitDepth(bits)(images).sum(), images)
    ahead, behind = (soft_round(steps * images.detach() + step) for step in (7e-6, -7e-6))
    torch.testing.assert_close(found, (ahead - behind) / 14e-6)


@pytest.mark.parametrize(
    ("size", "quality", "offset", "most"),
    [
        ((33, 40), 10, 0, 5.5),
        ((27, 21), 75, 0, 1.8),
        ((27, 21), 75, 1, 1.8),
        ((26, 32), 75, 15, 1.8),
    ],
)
def test_jpeg_is_that_of_pillow_on_a_grid_that_padding_moves(size, quality, offset, most):
    """Its approximation is near; with nearest pixels it would be 8 to 11 grey levels off."""
    images, defence = smooth_images(*size), Jpeg(quality, offset)
    expected, pad = [], ((offset, 0), (offset, 0), (0, 0))
    for image in images.permute(0, 2, 3, 1).numpy():
        file, levels = io.BytesIO(), np.rint(image * 255).astype(np.uint8)
        picture = Image.fromarray(np.pad(levels, pad, mode="edge"))
        picture.save(file, "JPEG", quality=quality)
        expected.append(np.asarray(Image.open(file))[offset:, offset:] / 255)
    np.testing.assert_array_equal(defence(images).permute(0, 2, 3, 1).numpy(), np.stack(expected))
    soft = Jpeg(quality, offset, temperature=0.001).approximate(images)
    assert 255 * (soft - defence(images)).abs().mean() < most
    few = images[:1, :, :5, :6].clone().requires_grad_()
    assert torch.autograd.gradcheck(defence.approximate, few)


def smooth_images(height: int = 33, width: int = 40) -> Tensor:
    return functional.interpolate(batch(4, 5, 6), (height, width), mode="bicubic").clamp(0, 1)


def test_images_stored_as_jpeg_hardly_change_on_their_own_grid_alone():
    levels, defence = cifar10_mini("test", n_test=40).images, Jpeg(temperature=0.001)
    images = torch.from_numpy(levels).permute(0, 3, 1, 2) / 255.0
    change = [255 * (Jpeg(offset=n)(images) - images).abs().mean() for n in (0, 4, 8)]
    assert change[0] < 0.5 < 2 < min(change[1:])
    assert 255 * (defence.approximate(images) - defence(images)).abs().mean() < 0.6


def test_the_staircase_lies_between_rounding_and_the_identity():
    values = torch.linspace(-2, 2, 401, dtype=torch.float64).requires_grad_()
    whole = torch.arange(-2.0, 3)
    torch.testing.assert_close(soft_round(whole, 0.12), whole)
    assert torch.autograd.gradcheck(soft_round, values)
    torch.testing.assert_close(soft_round(values, 100.0), values, atol=1e-5, rtol=0)
    sigmoid = 1 / (1 + math.exp(-(0.7 - 0.5) / 0.2))  # at 1.7, stretched from [least, 1 - least]
    least = 1 / (1 + math.exp(0.5 / 0.2))
    expected = torch.tensor(1 + (sigmoid - least) / (1 - 2 * least))
    torch.testing.assert_close(soft_round(torch.tensor(1.7), 0.2), expected)


@pytest.mark.parametrize("size", [2, 3])
def test_median_is_that_of_scipy_with_its_gradient_at_the_first_of_equal_pixels(size):
    images = (batch() * 9).round() / 9  # with many ties
    expected = median_filter(images.numpy(), size=(1, 1, size, size), mode="reflect")
    np.testing.assert_array_equal(Median(size)(images).numpy(), expected)
    images = torch.full((1, 1, size, size), 0.5, requires_grad=True)
    images.data[0, 0, -1, -1] = 0.0  # now the median is among the equal ones
    (gradient,) = torch.autograd.grad(Median(size)(images)[0, 0, size // 2, size // 2], images)
    order = size**2 // 2 - 1  # sorted, the last pixel comes first
    assert gradient.flatten().argmax() == order and gradient.sum() == 1


def test_random_resize_pad_is_a_smaller_image_somewhere_on_grey():
    images = batch(400, 20, 30)
    defence, seeds = RandomResizePad(lowest=0.8), torch.arange(400)
    found = defence(images, Philox(seeds, images))
    black = defence(torch.zeros_like(images), Philox(seeds, images))[:, 0] < 0.25
    drawn = []
    for image, result, inside in zip(images, found, black, strict=True):
        rows, columns = (inside.any(dim=axis).nonzero()[:, 0] for axis in (1, 0))
        size, place = (len(rows), len(columns)), (int(rows[0]), int(columns[0]))
        expected = torch.full((3, 20, 30), 0.5, dtype=torch.float64)
        expected[:, rows[:, None], columns] = functional.interpolate(
            image[None], size, mode="bilinear", antialias=True
        )[0]
        assert torch.allclose(result, expected, rtol=0, atol=1e-13)
        drawn.append((size[0], *place))
    heights, tops, lefts = np.array(drawn).T
    assert (np.bincount(heights)[16:] > 50).all() and set(heights) == {16, 17, 18, 19, 20}
    assert set(lefts[heights == 16]) == set(range(7))
    assert abs(np.corrcoef(tops[heights == 16], lefts[heights == 16])[0, 1]) < 0.4


def test_smoothing_adds_unclipped_noise_of_its_standard_deviation():
    images = batch(8)
    noise = Smoothing(sigma=0.5)(images, Philox(torch.arange(8), images)) - images
    assert noise.mean().abs() < 0.01 and (noise.std() - 0.5).abs() < 0.01
    assert (images + noise).min() < 0 and (images + noise).max() > 1


@pytest.mark.parametrize("alpha", [0.001, 0.3])
def test_a_vote_abstains_where_the_binomial_test_does(alpha):
    votes = torch.where(torch.arange(20)[:, None] < torch.arange(21), 2, 1)
    votes[:3, :5] = 0  # a third class, whose votes are in no test
    images, cast = torch.zeros(21, 3, 2, 4), iter(functional.one_hot(votes, 4).float())
    defence = Smoothing(copies=20, alpha=alpha)
    logits = defence.classify(lambda _: next(cast), images, Philox(torch.arange(21), images))
    for column, found in zip(votes.T, logits, strict=True):
        counts = torch.bincount(column, minlength=4)
        first, second = counts.sort(descending=True).values[:2].tolist()
        undecided = binomtest(first, first + second, 0.5).pvalue > alpha
        assert bool(found.isnan().all()) == bool(found.isnan().any()) == undecided
        if not undecided:
            torch.testing.assert_close(found.exp(), counts / 20)
            assert found.argmax() == counts.argmax() and found.min() < math.log(1e-37)


def test_settings_without_a_meaning_are_refused():
    wrong = [(BitDepth, {"bits": 9}), (BitDepth, {"bits": 2.5}), (Jpeg, {"quality": 0})]
    wrong += [(Jpeg, {"temperature": 0.0}), (Median, {"size": 4})]
    wrong += [(RandomResizePad, {"lowest": 1.1}), (Smoothing, {"copies": 0})]
    for kind, settings in wrong:
        with pytest.raises(ValueError, match=next(iter(settings))):
            kind(**settings)
