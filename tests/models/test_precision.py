"""Weights in bfloat16 and memory layouts: faster, with the results of plain autocasting."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from src.attacks import bim
from src.data import Batch
from src.images.attacker import Attacker
from src.models import (
    PixelClassifier,
    cast_weights,
    choose_layout,
    fold_batch_norms,
    is_castable,
    use_channels_last,
)
from src.models.small import inception_small, mobilenet_small, resnet_small, vgg_small, vit_small

NETWORKS = [inception_small, mobilenet_small, resnet_small, vgg_small, vit_small]
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def classifier(network: nn.Module) -> PixelClassifier:
    folded = fold_batch_norms(network.eval().requires_grad_(False))
    model = PixelClassifier(folded, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).eval()
    use_channels_last(model, 32)
    return model


def results(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    images = IMAGES.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    return logits, torch.autograd.grad(logits.float().logsumexp(1).sum(), images)[0]


@pytest.mark.parametrize("build", NETWORKS)
def test_weights_in_bfloat16_have_the_bits_of_autocasting(build):
    torch.manual_seed(0)
    model = classifier(build(10))
    cast = copy.deepcopy(model)
    cast_weights(cast)
    assert all(map(torch.equal, results(model), results(cast)))
    layers = [part for part in cast.modules() if type(part) in (nn.Conv2d, nn.Linear)]
    assert layers and {part.weight.dtype for part in layers} == {torch.bfloat16}
    assert is_castable(model, IMAGES)


def test_layers_in_float64_and_buffers_are_not_converted():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(1800, 4).double())
    network[0].register_buffer("scale", torch.ones(1) / 3)
    model = classifier(network)
    cast_weights(model)
    layers = [part for part in model.modules() if type(part) in (nn.Conv2d, nn.Linear)]
    assert [layer.weight.dtype for layer in layers] == [torch.bfloat16, torch.float64]
    assert layers[0].scale.dtype == torch.float32


class Scaled(nn.Module):
    """Uses its weights as numbers, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3072, 4)

    def forward(self, images):
        return self.layer(images.flatten(1)) * self.layer.weight.abs().mean().float()


class Exact(nn.Module):
    """Computes without autocasting."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3072, 4)

    def forward(self, images):
        with torch.autocast("cpu", enabled=False):
            return self.layer(images.flatten(1).float())


class Cosine(nn.Module):
    """Compares directions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3072, 4)

    def forward(self, images):
        directions = functional.normalize(self.layer.weight)
        return functional.linear(images.flatten(1), directions)


class HookedLayer(nn.Module):
    """Has a hook whose gradient depends on the type of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3072, 4)
        self.layer.register_full_backward_hook(
            lambda layer, before, after: (before[0] * layer.weight.float().abs().sum(),)
        )

    def forward(self, images):
        return self.layer(images.flatten(1))


class Straight(torch.autograd.Function):
    """Passes gradients on by a matrix in float32."""

    @staticmethod
    def forward(ctx, images, weight):
        ctx.save_for_backward(weight)
        return functional.linear(images, weight)

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        return grad.float() @ weight, None


class StraightThrough(nn.Module):
    """Has a backward pass of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3072, 4)

    def forward(self, images):
        return Straight.apply(images.flatten(1), self.layer.weight)


class Half(nn.Module):
    """Computes a layer in float16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3072, 4)

    def forward(self, images):
        with torch.autocast("cpu", torch.float16):
            return self.layer(images.flatten(1))


@pytest.mark.parametrize(
    "kind",
    [Scaled, Exact, Cosine, HookedLayer, StraightThrough, Half],
    ids=lambda kind: kind.__name__,
)
def test_networks_that_use_weights_otherwise_keep_them(kind):
    torch.manual_seed(0)
    model = classifier(kind())
    assert not is_castable(model, IMAGES)
    batch = Batch((255 * IMAGES).round().to(torch.uint8), torch.tensor([0, 1]), torch.arange(2))
    attacker = Attacker(model, bim, num_classes=4, precision="bf16")
    found = attacker(IMAGES, batch, (8.0,)).images
    counted = Attacker(model, bim, num_classes=4, precision="bf16").make_counted()
    expected = bim(counted, IMAGES, batch.labels, torch.tensor([8.0]) / 255)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_weights_that_are_trained_stay_in_float32():
    model = classifier(vgg_small(10)).requires_grad_()
    cast_weights(model)
    assert {value.dtype for value in model.parameters()} == {torch.float32}


class Flattening(nn.Module):
    """Fails for weights in channels_last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(3600, 4)

    def forward(self, images):
        return self.last(self.first(images).view(len(images), -1))


def is_channels_last(model: nn.Module) -> bool:
    weight = next(part for part in model.modules() if isinstance(part, nn.Conv2d)).weight
    return weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        *[("cpu", precision, True) for precision in ("32-true", "bf16", "bf16-mixed")],
        *[("cuda", precision, True) for precision in ("tf32", "bf16", "bf16-mixed")],
        ("cuda", "32-true", False),
    ],
)
def test_the_layout_of_weights_depends_on_device_and_precision(device, precision, expected):
    model = classifier(vgg_small(10))
    other = copy.deepcopy(model)
    choose_layout(other, "cpu" if device == "cuda" else "cuda", "32-true")
    for each in (model, other):
        choose_layout(each, device, precision)
        assert is_channels_last(each) == expected
    flattening = classifier(Flattening())
    choose_layout(flattening, device, precision)
    assert not is_channels_last(flattening)
    flattening(IMAGES)
