"""Targets behind a defence: what the defence is given, what it must return, and what is drawn."""

import pytest
import torch
from torch import Tensor, nn

from src.attacks import Philox, image_seeds
from src.defences import BitDepth, Defended, RandomResizePad

INDEX = torch.tensor([5, 2, 9, 4, 11])


class Noise:
    def __call__(self, images: Tensor, random: Philox) -> Tensor:
        return (images + 0.1 * random.normal(*images.shape[1:])).clamp(0, 1)


class NoiseModule(nn.Module):
    def forward(self, images: Tensor, random: Philox) -> Tensor:
        return Noise()(images, random)


DRAWING = [Noise(), NoiseModule(), Noise().__call__, RandomResizePad(0.5)]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 8, 10, generator=torch.Generator().manual_seed(0))


def test_deterministic_defence_is_called_once(images):
    target = Defended(nn.Flatten(), BitDepth(), repeats=3)
    assert not target.randomised
    assert torch.equal(target(images, INDEX), BitDepth()(images).flatten(1)[None])


@pytest.mark.parametrize("defence", DRAWING)
def test_draws_depend_on_seed_image_and_repetition_alone(images, defence):
    target = Defended(nn.Flatten(), defence, repeats=2, seed=7)
    logits = target(images, INDEX)
    assert target.randomised and logits.shape == (2, 5, 240)
    for repetition in (0, 1):
        random = Philox(image_seeds(7, INDEX), images, 16 + repetition)
        assert torch.equal(logits[repetition], defence(images, random).flatten(1))
    parts = [target(images[rows], INDEX[rows]) for rows in ([3], [1, 0], [4, 2])]
    permuted = logits[:, [3, 1, 0, 4, 2]]
    torch.testing.assert_close(torch.cat(parts, dim=1), permuted, rtol=0, atol=2e-7)
    assert torch.equal(target(images, INDEX), logits)
    assert not torch.equal(Defended(nn.Flatten(), defence, seed=8)(images, INDEX), logits[:1])


def test_defence_changes_copies_alone(images):
    before = images.clone()
    assert Defended(nn.Flatten(), lambda images: images.mul_(0))(images, INDEX).max() == 0
    assert torch.equal(images, before)


def fails(images: Tensor) -> Tensor:
    raise KeyError("no palette")


def with_value(value: float):
    def defence(images: Tensor) -> Tensor:
        images[2, 1, 3, 4] = value
        return images

    return defence


@pytest.mark.parametrize(
    ("defence", "refusal"),
    [
        (fails, "^defence=mine: KeyError: 'no palette'$"),
        (
            lambda images: images[:, :1],
            r"^defence=mine .* \(5, 3, 8, 10\), not \(5, 1, 8, 10\)[.]$",
        ),
        (lambda images: images.numpy(), "^defence=mine .* not ndarray"),
        (with_value(torch.nan), "^defence=mine .* for image 9[.]$"),
        (with_value(1.00001), "^defence=mine .* for image 9[.]$"),
        (with_value(-0.00001), "^defence=mine .* for image 9[.]$"),
    ],
)
def test_what_is_no_image_is_refused(images, defence, refusal):
    with pytest.raises(ValueError, match=refusal):
        Defended(nn.Flatten(), defence, name="mine")(images, INDEX)


def test_rounding_errors_are_no_failure(images):
    Defended(nn.Flatten(), with_value(1 + 5e-7))(images, INDEX)


class Lost(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).where(torch.arange(5)[:, None] != 3, float("nan"))


def test_targets_without_finite_logits_do_not_abstain(images):
    with pytest.raises(ValueError, match=r"BitDepth.* NaN or infinity for image 4"):
        Defended(Lost(), BitDepth())(images, INDEX)


@pytest.mark.parametrize("found", [None, torch.zeros(5), torch.zeros(4, 10)])
def test_classify_must_return_logits_of_every_image(images, found):
    class Votes:
        def __call__(self, images: Tensor) -> Tensor:
            return images

        def classify(self, classifier: nn.Module, images: Tensor) -> Tensor:
            return found

    with pytest.raises(ValueError, match="Votes: classify must return logits"):
        Defended(nn.Flatten(), Votes())(images, INDEX)
