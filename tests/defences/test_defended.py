"""Rules of each defence, beside independent implementations, and models behind one.

A new defence is tested by being listed in `DEFENCES`.
"""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from scipy.ndimage import median_filter
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional

from src import defences
from src.attacks import PerImageRandom, Philox, Source, bim, fgsm, image_seeds
from src.data.cifar10_mini import cifar10_mini
from src.defences import (
    AttackedDefence,
    BitDepth,
    Defended,
    Jpeg,
    Median,
    RandomResizePad,
    Smoothing,
)
from src.defences.feature_squeezing import soft_round
from src.models import Ensemble
from src.utils.call_target import call_target
from src.utils.hydra_versions import VERSION_BASE

CONF = Path(__file__).resolve().parents[2] / "conf"
DEFENCES = {
    "bit_depth": BitDepth(bits=3),
    "jpeg": Jpeg(quality=75),
    "median": defences.Median(size=2),
    "random_resize_pad": RandomResizePad(lowest=0.9033),
    "smoothing": Smoothing(sigma=0.25, copies=100, alpha=0.001),
}
RANDOM = {"random_resize_pad", "smoothing"}
INDEX = torch.tensor([5, 2, 9, 4, 11])
IMAGES = torch.rand(5, 3, 24, 20, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", DEFENCES)
def test_files_have_the_defaults(name):
    assert {file.stem for file in (CONF / "defence").glob("*.yaml")} == set(DEFENCES)
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        section = dict(compose(f"defence/{name}").defence[name])
    assert section.pop("repeats", None) == (1 if name in RANDOM else None)
    assert call_target(section) == DEFENCES[name] == type(DEFENCES[name])()


@pytest.mark.parametrize("name", DEFENCES)
def test_logits_depend_on_seed_image_and_repetition_alone(name):
    before, defence = IMAGES.clone(), DEFENCES[name]
    target = Defended(nn.Flatten(), defence, repeats=2, seed=7)
    logits = target(IMAGES, INDEX)
    assert logits.shape == (2 if name in RANDOM else 1, 5, 1440)
    assert target.randomised == (name in RANDOM) and torch.equal(IMAGES, before)
    assert torch.equal(target(IMAGES, INDEX).nan_to_num(), logits.nan_to_num())
    parts = [target(IMAGES[rows], INDEX[rows]) for rows in ([3], [1, 0], [4, 2])]
    whole = logits[:, [3, 1, 0, 4, 2]]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-7, equal_nan=True)
    if target.classify is None:
        for number, found in enumerate(logits):
            words = {}
            if name in RANDOM:
                words["random"] = Philox(image_seeds(7, INDEX), IMAGES, 16 + number)
            assert torch.equal(found, defence(IMAGES.clone(), **words).flatten(1))


@pytest.mark.parametrize("name", DEFENCES)
def test_sources_have_finite_gradients_that_differ_only_by_draws(name):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(1584, 4))
    model, gradients = AttackedDefence(network, DEFENCES[name]), []
    random = PerImageRandom(INDEX, IMAGES, INDEX, (IMAGES, INDEX))
    model.draw(random, 1)
    assert random.count == (name in RANDOM)
    for again in (False, False, True):
        if again:
            model.draw(random, 1)
        images = IMAGES.clone().requires_grad_()
        gradients += torch.autograd.grad(model(images).square().sum(), images)
    assert gradients[0].isfinite().all() and gradients[0].flatten(1).any(dim=1).all()
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2]) == (name not in RANDOM)


SEEDS = torch.tensor([31, 4, 15, 9, 26])
LABELS = torch.tensor([0, 1, 2, 3, 0])


@pytest.fixture
def images() -> Tensor:
    return batch(5, 8, 10)


@pytest.fixture
def network() -> nn.Module:
    return small(0)


def small(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 4)
        return nn.Sequential(*layers).double().requires_grad_(False)


def gradient_of(function, at: Tensor) -> Tensor:
    variable = at.clone().requires_grad_()
    loss = nn.functional.cross_entropy(function(variable), LABELS, reduction="sum")
    return torch.autograd.grad(loss, variable)[0]


def test_gradient_goes_straight_through_what_has_none(network, images):
    def squared(images: Tensor) -> Tensor:
        return images.detach() ** 2

    at = images.clone().requires_grad_()
    for defence, way in ((squared, lambda each: each), (Jpeg(), Jpeg().approximate)):
        model, behind = AttackedDefence(network, defence), defence(images)
        assert torch.equal(model(images), network(behind))
        (expected,) = torch.autograd.grad(way(at), at, gradient_of(network, behind))
        assert torch.equal(gradient_of(model, images), expected)


@pytest.mark.parametrize("defence", [RandomResizePad(0.6), Smoothing()])
def test_the_mean_loss_or_of_a_vote_the_mean_probability_is_attacked(network, images, defence):
    """-log(mean over draws of p_y), equation 6 of SmoothAdv, and not the mean of -log(p_y)."""
    found = fgsm(AttackedDefence(network, defence, draws=3), images, LABELS, 0.01, seeds=SEEDS)
    seeds, at = Philox(SEEDS, images).integers(0, 2**31), images.clone().requires_grad_()
    shown = [defence(at, Philox(seeds, images, number)) for number in range(3)]
    chance = torch.stack([network(each).softmax(dim=1) for each in shown])[:, range(5), LABELS]
    is_vote = isinstance(defence, Smoothing)
    loss = -chance.mean(dim=0).log() if is_vote else -chance.log().mean(dim=0)
    (gradient,) = torch.autograd.grad(loss.sum(), at)
    torch.testing.assert_close(found, (images + 0.01 * gradient.sign()).clamp(0, 1))


def test_budgets_and_batches_share_an_images_draws(network, images):
    model, budgets = AttackedDefence(network, RandomResizePad(0.6), 2), [0.01, 0.05]
    both = bim(model, images, LABELS, budgets, seeds=SEEDS, steps=3)
    for number, eps in enumerate(budgets):
        alone = bim(model, images[3:], LABELS[3:], eps, seeds=SEEDS[3:], steps=3)
        torch.testing.assert_close(both[number, 3:], alone)
    others = bim(model, images, LABELS, budgets, seeds=SEEDS + 1, steps=3)
    assert not torch.allclose(others, both)


def test_a_call_without_draws_and_an_error_name_the_defence(network, images):
    with pytest.raises(ValueError, match=r"^defence=mine is randomised"):
        AttackedDefence(network, Smoothing(), name="mine")(images)
    with pytest.raises(ValueError, match=r"^defence=mine: IndexError: "):
        AttackedDefence(network, lambda images: images[:, 7], name="mine")(images)


def test_members_and_layers_are_those_behind_the_defence(images):
    ensemble = Ensemble([small(0), small(1)], "loss")
    source = Source(AttackedDefence(ensemble, BitDepth()), "0")
    features, shown = source.features(images), BitDepth()(images)
    for member in (0, 1):
        assert torch.equal(source.logits(images, member), small(member)(shown))
        assert torch.equal(features[member], small(member)[0](shown))


def test_a_defence_changes_copies_alone_and_may_round(images):
    before = images.clone()
    assert Defended(nn.Flatten(), lambda images: images.mul_(0))(images, INDEX).max() == 0
    assert torch.equal(images, before)
    Defended(nn.Flatten(), with_value(1 + 5e-7))(images, INDEX)


def with_value(value: float):
    def defence(images: Tensor) -> Tensor:
        images[2, 1, 3, 4] = value
        return images

    return defence


def votes(found: object):
    def defence(images: Tensor) -> Tensor:
        return images

    defence.classify = lambda classifier, images: found
    return defence


REFUSED = [
    (lambda images: {}["no palette"], "KeyError: 'no palette'$"),
    (lambda images: images[:, :1], r"\(5, 3, 8, 10\), not \(5, 1, 8, 10\)"),
    (lambda images: images.numpy(), "not ndarray"),
    *[(with_value(value), "image 9") for value in (torch.nan, 1.00001, -0.00001)],
    *[(votes(found), "logits") for found in (None, torch.zeros(4, 10))],
]


def test_what_is_no_image_and_no_vote_is_refused(images):
    for defence, refusal in REFUSED:
        with pytest.raises(ValueError, match=f"^defence=mine.*{refusal}"):
            Defended(nn.Flatten(), defence, name="mine")(images, INDEX)


class Lost(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).where(torch.arange(len(images))[:, None] != 3, float("nan"))


def test_targets_without_finite_logits_do_not_abstain(images):
    with pytest.raises(ValueError, match=r"BitDepth.* NaN or infinity for image 4"):
        Defended(Lost(), BitDepth())(images, INDEX)
    with pytest.raises(ValueError, match=r"^defence=rs: .* NaN or infinity"):
        Defended(Lost(), Smoothing(), name="rs")(images, INDEX)


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
    images = functional.interpolate(batch(4, 5, 6), size, mode="bicubic").clamp(0, 1)
    defence = Jpeg(quality, offset)
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
