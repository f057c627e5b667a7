"""From pixels to logits: alone, in an ensemble, and with weights in other layouts."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from src.models import Ensemble, PixelClassifier, fold_batch_norms


def test_each_channel_is_normalised_and_the_gradient_reaches_pixels_through_the_resize():
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    images = torch.rand(2, 3, 4, 5)
    seen = PixelClassifier(nn.Identity(), mean, std).prepare(images)
    for channel in range(3):
        expected = (images[:, channel] - mean[channel]) / std[channel]
        torch.testing.assert_close(seen[:, channel], expected)
    images = torch.rand(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    model = PixelClassifier(nn.Flatten(), mean, std, input_size=4).double()
    assert torch.autograd.gradcheck(model, images)


@pytest.mark.parametrize(("shape", "side"), [((32, 32), 75), ((20, 31), 24)])
def test_resizing_is_that_of_interpolate(shape, side):
    images = torch.rand(2, 3, *shape, dtype=torch.float64)
    expected = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    model = PixelClassifier(nn.Identity(), [0] * 3, [1] * 3, input_size=side)
    torch.testing.assert_close(model.double().prepare(images), expected)
    assert torch.equal(model.prepare(expected), expected)
    with torch.autocast("cpu", torch.bfloat16):  # half a grey level would be lost
        torch.testing.assert_close(model.float().prepare(images.float()), expected.float())


class Returns(nn.Module):
    """A network that returns what a function makes of its logits."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(12, 3), change

    def forward(self, images):
        return self.change(self.linear(images.flatten(1)))


def test_logits_may_be_in_a_dictionary_or_an_object():
    images = torch.rand(5, 3, 2, 2)
    for change in (dict, SimpleNamespace):
        network = Returns(lambda logits, change=change: change(logits=logits))
        for each in (network, fold_batch_norms(network)):
            logits = PixelClassifier(each, [0] * 3, [1] * 3)(images)
            assert torch.equal(logits, network.linear(images.flatten(1)))
    for change in (lambda logits: {"scores": logits}, lambda logits: logits[1:]):
        with pytest.raises(ValueError, match="N = 5"):
            PixelClassifier(Returns(change), [0] * 3, [1] * 3)(images)


class Fixed(nn.Module):
    """Predicts the same logits for all images."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor([logits])

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def test_averages_of_three_members_against_hand_computed_ones():
    images = torch.zeros(2, 3, 4, 4)
    logits = torch.tensor([[0.0, 2.0, 4.0], [3.0, 0.0, 0.0], [0.0, 4.0, 2.0]])
    members, p = [Fixed(*row) for row in logits.tolist()], logits.softmax(1)
    geometric = p.prod(0) ** (1 / 3)
    expected = {
        "logits": torch.tensor([1.0, 2.0, 2.0]).softmax(0),
        "probabilities": p.mean(0),
        "loss": geometric / geometric.sum(),
    }
    for average, probabilities in expected.items():
        ensemble = Ensemble(members, average)
        found = ensemble(images)
        torch.testing.assert_close(found.softmax(1), probabilities.expand(2, 3))
        attacked = logits[:, None].expand(3, 2, 3) if average == "loss" else found
        assert torch.equal(ensemble.attacked(images), attacked)
