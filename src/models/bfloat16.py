"""Weights in bfloat16, for networks that are autocast to it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from src.models.pixel_classifier import ModelError, PixelClassifier

_AUTOCAST: tuple[Any, ...] = (functional.conv2d, functional.linear)


def cast_weights(model: nn.Module) -> None:
    """Convert the weights that autocasting would convert in every forward pass to bfloat16.

    They are the frozen ones of plain convolutions and linear layers of classifiers. If
    `is_castable`, the results stay the same bit for bit.
    """
    for layer in _find_layers(model):
        layer.to(torch.bfloat16)


def is_castable(model: nn.Module, images: Tensor) -> bool:
    """Return True if the classifiers of a model use these weights in autocast layers alone."""
    uses = _Uses(model, images.device.type)
    try:
        with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16), uses:
            for part in model.modules():
                if isinstance(part, PixelClassifier):
                    part(images)
    except ModelError:
        return False
    return not uses.others


class _Uses(TorchFunctionMode):
    """Mode that notes whether weights have other uses than in autocast layers."""

    def __init__(self, model: nn.Module, device: str) -> None:
        super().__init__()
        self.device, self.others = device, False
        layers = _find_layers(model)
        self.weights = {id(value) for layer in layers for value in layer.parameters()}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of PyTorch."""
        kwargs = kwargs or {}
        if func not in _AUTOCAST or not torch.is_autocast_enabled(self.device):
            self.others |= any(id(value) in self.weights for value in tree_leaves((args, kwargs)))
        return func(*args, **kwargs)


def _find_layers(model: nn.Module) -> Iterator[nn.Module]:
    for classifier in model.modules():
        if isinstance(classifier, PixelClassifier):
            for part in classifier.modules():
                plain = type(part) in (nn.Conv2d, nn.Linear) and not part._forward_pre_hooks
                if plain and not any(value.requires_grad for value in part.parameters()):
                    yield part
