"""Targets behind a defence: what the defence is given, what it must return, and what is drawn."""

import pytest
import torch
from torch import Tensor, nn

from src.attacks import Philox
from src.defences import BitDepth, Defended, Smoothing

INDEX = torch.tensor([5, 2, 9, 4, 11])


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 8, 10, generator=torch.Generator().manual_seed(0))


def test_a_defence_changes_copies_alone_and_may_round(images):
    before = images.clone()
    assert Defended(nn.Flatten(), lambda images: images.mul_(0))(images, INDEX).max() == 0
    assert torch.equal(images, before)
    Defended(nn.Flatten(), with_value(1 + 5e-7))(images, INDEX)


class NoiseModule(nn.Module):
    def forward(self, images: Tensor, random: Philox) -> Tensor:
        return (images + 0.1 * random.normal(*images.shape[1:])).clamp(0, 1)


def test_a_module_or_a_method_may_draw(images):
    for defence in (NoiseModule(), NoiseModule().forward):
        target = Defended(nn.Flatten(), defence, repeats=2, seed=7)
        assert target.randomised and target(images, INDEX).shape == (2, 5, 240)


def fails(images: Tensor) -> Tensor:
    raise KeyError("no palette")


def with_value(value: float):
    def defence(images: Tensor) -> Tensor:
        images[2, 1, 3, 4] = value
        return images

    return defence


class Votes:
    def __init__(self, found: object) -> None:
        self.found = found

    def __call__(self, images: Tensor) -> Tensor:
        return images

    def classify(self, classifier: nn.Module, images: Tensor) -> object:
        return self.found


REFUSED = [
    (fails, "KeyError: 'no palette'$"),
    (lambda images: images[:, :1], r"\(5, 3, 8, 10\), not \(5, 1, 8, 10\)"),
    (lambda images: images.numpy(), "not ndarray"),
    *[(with_value(value), "image 9") for value in (torch.nan, 1.00001, -0.00001)],
    *[(Votes(found), "logits") for found in (None, torch.zeros(5), torch.zeros(4, 10))],
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
