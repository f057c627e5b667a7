"""Gradients through smooth forms of ReLUs and max-pools."""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import takewhile
from typing import Annotated, Any

import torch
from pydantic import PositiveFloat, Strict
from torch import Tensor, nn
from torch.nn import functional

from src.attacks.checked import checked
from src.attacks.source import trunk
from src.attacks.surrogates.layers import layers_of

_MODELS = (
    *("densenet121", "inception", "inception_small", "mobilenet_small"),
    *("resnet18", "resnet50", "resnet_small", "vgg16", "vgg_small"),
)
_PUBLISHED = (r"\blayer3\.(?!0\.)|\blayer4\.", r"\bMixed_7", r"\bdenseblock4\.")


@checked
class BackwardPropagation:
    """Take gradients of max-pools as of a softmax over each window, and of late ReLUs as of a SiLU.

    The logits stay the same. A window's gradient g gives softmax(temperature * z) * g to its inputs
    z, and a ReLU's s(z) * (1 + z * (1 - s(z))) * g, s the logistic function.

    Args:
        temperature: Of the softmax; larger ones are nearer to the maximum's own gradient.
        relus: Regular expressions found in the names of the modules whose ReLUs are changed, such
            as `layer4`; None: `layer3` but its first block and `layer4` of ResNets, `Mixed_7` of
            Inception v3, `denseblock4` of DenseNets, of others those in the last third of the
            blocks, or plain layers, before the first linear one.

    Reference:
        Wang et al.: Rethinking the Backward Propagation for Adversarial Transferability (2023),
        arXiv 2306.12685.

    Deviation: what pads a window has no weight (authors: that of a 0), 10 is the temperature of
    2x2 windows too (authors, for VGG-19: 1), and VGG has the last third of the ReLUs before its
    classifier (authors: the last two).
    """

    temperature: PositiveFloat = 10.0
    relus: Annotated[tuple[str, ...], Strict(False)] | None = None

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the model, its late ReLUs and all max-pools smooth on the way back."""
        for layer in layers_of(model, self._layers, "max-pools or ReLUs", _MODELS):
            forward: Any = _SmoothReLU.apply  # not in place: z is needed
            if isinstance(layer, nn.MaxPool2d):
                forward = partial(_pooled, layer, self.temperature)
            elif not isinstance(layer, nn.ReLU):
                forward = partial(_convolved, layer)
            layer.forward = forward
        return model

    def _layers(self, network: nn.Module) -> list[nn.Module]:
        pools = [each for each in network.modules() if isinstance(each, nn.MaxPool2d)]
        if self.relus is not None:
            relus = _matching(network, self.relus)
            if self.relus and not relus:
                raise ValueError(
                    f"attack.relus={list(self.relus)}: no ReLU of the source has such a name."
                )
            return [*pools, *relus]
        for pattern in _PUBLISHED:
            if published := _matching(network, [pattern]):
                return [*pools, *published]
        return [*pools, *_late(network)]


def _matching(network: nn.Module, patterns: Iterable[str]) -> list[nn.Module]:
    """Return the layers with a ReLU that one of the patterns is found in a name of."""
    every = network.named_modules(remove_duplicate=False)
    relus = {name: module for name, module in every if _has_relu(module)}
    return [relus[name] for name in relus if any(re.search(each, name) for each in patterns)]


def _late(network: nn.Module) -> list[nn.Module]:
    """Return the layers with a ReLU in the last third of the blocks that have one."""
    before = takewhile(lambda each: not isinstance(each, nn.Linear), _blocks(trunk(network)))
    relus = [list(filter(_has_relu, block.modules())) for block in before]
    blocks = [each for each in relus if each]
    return [relu for block in blocks[-max(1, len(blocks) // 3) :] for relu in block]


def _has_relu(module: nn.Module) -> bool:
    """Tell a ReLU, or torchvision's `BasicConv2d`, which calls the function."""
    return isinstance(module, nn.ReLU) or type(module).__name__ == "BasicConv2d"


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    for child in network.children():
        if isinstance(child, nn.Sequential):
            yield from _blocks(child)
        else:
            yield child


def _convolved(layer: Any, images: Tensor) -> Any:
    return _SmoothReLU.apply(layer.bn(layer.conv(images)))


def _pooled(pool: nn.MaxPool2d, temperature: float, images: Tensor) -> Any:
    return _SmoothPool.apply(images, pool, temperature)


class _SmoothReLU(torch.autograd.Function):
    """ReLU with the derivative of the SiLU."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z.relu()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        logistic = z.sigmoid()
        return gradient * logistic * (1 + z * (1 - logistic))


class _SmoothPool(torch.autograd.Function):
    """Max-pool with the derivative of a sum weighted by a constant softmax."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, pool: nn.MaxPool2d, temperature: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.pool, ctx.temperature = pool, temperature
        return nn.MaxPool2d.forward(pool, z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        pool = ctx.pool
        kernel, stride, padding, dilation = (
            (each, each) if isinstance(each, int) else each
            for each in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        border = []  # before and after the last axis, then the one before
        for axis in (1, 0):
            reach = dilation[axis] * (kernel[axis] - 1) + 1
            covered = stride[axis] * (gradient.shape[axis - 2] - 1) + reach
            border += [padding[axis], covered - padding[axis] - z.shape[axis - 2]]
        padded = functional.pad(z, border, value=-torch.inf)
        grid = {"kernel_size": kernel, "stride": stride, "dilation": dilation}
        windows = functional.unfold(padded, **grid).unflatten(1, (z.shape[1], -1))
        shares = (ctx.temperature * windows).softmax(dim=2) * gradient.flatten(2)[:, :, None]
        total = functional.fold(shares.flatten(1, 2), padded.shape[2:], **grid)
        return functional.pad(total, [-each for each in border]), None, None
