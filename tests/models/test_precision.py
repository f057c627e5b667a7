"""Memory layouts of weights, by device and precision."""

import copy

import pytest
import torch
from torch import nn

from src.models import PixelClassifier, choose_layout, fold_batch_norms, use_channels_last
from src.models.small import vgg_small

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def classifier(network: nn.Module) -> PixelClassifier:
    folded = fold_batch_norms(network.eval().requires_grad_(False))
    model = PixelClassifier(folded, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).eval()
    use_channels_last(model, 32)
    return model


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
