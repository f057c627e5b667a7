"""The blocks of the small networks stand for torchvision's, to attacks too."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import inception, resnet
from torchvision.models.googlenet import Inception
from torchvision.ops import Conv2dNormActivation

from src import attacks
from src.models import small


def _build(make: Callable[[int], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return make(10).eval()


def _inception(channels: int, width: int) -> nn.Module:
    return Inception(channels, 2 * width, 2 * width, 4 * width, width, width, width)


def _convolution(channels: int, width: int, size: int = 1) -> nn.Module:
    return inception.BasicConv2d(channels, width, kernel_size=size, padding=size // 2)


def _gradient(network: nn.Module, images: Tensor) -> Tensor:
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(images)[:, 1].sum(), images)
    return gradient


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (small.resnet_small, "sgm ghost linbp bpa"),
        (small.inception_small, "ghost linbp bpa"),
        (small.mobilenet_small, "ghost bpa"),
        (small.vgg_small, "linbp"),
        (small.vit_small, "tgr pna_patchout sgm"),
    ],
)
def test_blocks_stand_for_torchvision(make, names, monkeypatch):
    ours = _build(make)
    monkeypatch.setattr(small, "BasicBlock", resnet.BasicBlock)
    monkeypatch.setattr(small, "BasicConv2d", _convolution)
    monkeypatch.setattr(small, "Inception", _inception)
    monkeypatch.setattr(small, "Conv2dNormActivation", Conv2dNormActivation)
    theirs = _build(make)
    assert repr(ours) == repr(theirs)  # class names, names of modules and their settings
    first, second = ours.state_dict(), theirs.state_dict()
    assert [*first] == [*second] and all(map(torch.equal, first.values(), second.values()))
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        gradients = [_gradient(its.train(training), images) for its in (ours, theirs)]
        assert torch.equal(*gradients)
    for name in names.split():
        attack, labels = getattr(attacks, name), torch.tensor([3, 4])
        found = [attack(its, images, labels, 8 / 255, steps=2) for its in (ours, theirs)]
        assert torch.equal(*found), name
        assert not torch.equal(found[0], images)
