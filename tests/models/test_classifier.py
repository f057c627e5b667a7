from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from src.models import PixelClassifier, fold_batch_norms


class Preprocessing(nn.Module):
    """A classifier whose logits are the pixels that its network sees."""

    def __init__(self, **kwargs):
        super().__init__()
        settings = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 2.0]} | kwargs
        self.classifier = PixelClassifier(nn.Flatten(), **settings)

    def forward(self, images):
        size = self.classifier.input_size
        shape = images.shape[1:] if size is None else (3, size, size)
        return self.classifier(images).unflatten(1, shape)


def test_normalises_each_channel():
    images = torch.rand(2, 3, 4, 5)
    seen = Preprocessing()(images)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 2.0)]):
        torch.testing.assert_close(seen[:, channel], (images[:, channel] - mean) / std)


@pytest.mark.parametrize(("shape", "side"), [((299, 299), 224), ((32, 32), 75), ((20, 31), 24)])
def test_resizing_is_that_of_interpolate(shape, side):
    images = torch.rand(2, 3, *shape, dtype=torch.float64)
    expected = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    model = Preprocessing(mean=[0, 0, 0], std=[1, 1, 1], input_size=side)
    torch.testing.assert_close(model.double()(images), expected)
    assert torch.equal(model(expected), expected)
    with torch.autocast("cpu", torch.bfloat16):  # half a grey level would be lost
        torch.testing.assert_close(model.float()(images.float()), expected.float())


def test_gradient_reaches_pixels_through_the_resize():
    torch.manual_seed(0)
    images = torch.rand(1, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    model = Preprocessing(input_size=4).double()
    assert torch.autograd.gradcheck(model, images)
    (gradient,) = torch.autograd.grad(model(images).sum(), images)
    assert (gradient != 0).all()


class Returns(nn.Module):
    """A network that returns what a function makes of its logits."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(12, 3), change

    def forward(self, images):
        return self.change(self.linear(images.flatten(1)))


NO_LOGITS = {
    "integers": lambda logits: logits.argmax(1),
    "dictionary": lambda logits: {"scores": logits},
    "a row too few": lambda logits: logits[1:],
}


@pytest.mark.parametrize("kind", NO_LOGITS)
def test_what_is_no_logits_is_refused(kind):
    model = PixelClassifier(Returns(NO_LOGITS[kind]), [0] * 3, [1] * 3)
    with pytest.raises(ValueError, match="N = 5"):
        model(torch.rand(5, 3, 2, 2))


LOGITS = {
    "dictionary": lambda logits: {"loss": None, "logits": logits},
    "object": lambda logits: SimpleNamespace(logits=logits),
    "both": lambda logits: type("Output", (dict,), {"logits": logits})(logits=logits),
}


@pytest.mark.parametrize("kind", LOGITS)
def test_logits_may_be_in_a_dictionary_or_an_object(kind):
    network = Returns(LOGITS[kind])
    images = torch.rand(5, 3, 2, 2, requires_grad=True)
    for each in (network, fold_batch_norms(network)):
        logits = PixelClassifier(each, [0] * 3, [1] * 3)(images)
        assert torch.equal(logits, network.linear(images.flatten(1)))
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert (gradient != 0).all()
