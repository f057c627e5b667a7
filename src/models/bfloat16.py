"""Weights in bfloat16, for networks that are autocast to it."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from src.models.pixel_classifier import PixelClassifier
from src.utils.devices import is_out_of_memory

_AUTOCAST: tuple[Any, ...] = (functional.conv2d, functional.linear)


def cast_weights(model: nn.Module) -> None:
    """Convert the weights that autocasting would convert in every forward pass to bfloat16.

    They are the frozen ones of plain convolutions and linear layers of classifiers. If
    `is_castable`, the results stay the same bit for bit.
    """
    for layer in _find_layers(model):
        for value in layer.parameters():
            value.data = value.data.to(torch.bfloat16)


def is_castable(model: nn.Module, images: Tensor) -> bool:
    """Return True if the converted weights give the same logits and gradients for some images.

    The classifiers must also use these weights in autocast layers alone.
    """
    results = list[list[Tensor]]()
    for cast in (False, True):
        try:
            tried = copy.deepcopy(model)  # a network may change its state
            uses = _Uses(tried, images.device.type)
            if cast:
                cast_weights(tried)
            with torch.enable_grad(), uses:
                results.append([*_logits_and_gradients(tried, images)])
        except Exception as error:  # of any kind: the weights stay as they are
            if is_out_of_memory(error):
                raise
            return False
        if not cast and uses.others:
            return False
    pairs = zip(*results, strict=True)
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs)


def _logits_and_gradients(model: nn.Module, images: Tensor) -> Iterator[Tensor]:
    for part in model.modules():
        if isinstance(part, PixelClassifier):
            point = images.detach().clone().requires_grad_()
            with torch.autocast(images.device.type, torch.bfloat16):
                logits = part(point)
            yield logits.detach()
            yield torch.autograd.grad(logits.float().square().sum(), point)[0]


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
                if plain and all(map(_is_frozen, part.parameters())):
                    yield part


def _is_frozen(value: Tensor) -> bool:
    return value.dtype == torch.float32 and not value.requires_grad
