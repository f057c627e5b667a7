"""Backward rules of ReLUs and max-pools: smooth or linear gradients."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from pydantic import PositiveFloat
from torch import Tensor, finfo, nn
from torch.nn import functional

from ...utils.package import PACKAGE
from .. import Names, attack, checked, layers_of, rms

_KNOWN = ("torchvision.", f"{PACKAGE}.models.small")  # whose blocks `_branch` computes
_LATE = (r"\blayer3\.(?!0\.)", r"\blayer4\.", r"\bMixed_7", r"\bdenseblock4\.")


def with_gradient(exact: Tensor, smooth: Tensor) -> Tensor:
    """Return the values of `exact` with the gradient of `smooth`."""
    return exact.detach() + (smooth - smooth.detach()).to(exact.dtype)


def has_relu(module: nn.Module) -> bool:
    """Return True for `nn.ReLU` and for torchvision's `BasicConv2d`, which calls `F.relu`."""
    return isinstance(module, nn.ReLU) or type(module).__name__ == "BasicConv2d"


def replace_relu(layer: Any, relu: Callable[[Tensor], Tensor]) -> None:
    """Replace the ReLU of a layer for which `has_relu` is True."""
    plain = isinstance(layer, nn.ReLU)
    layer.forward = relu if plain else lambda images: relu(layer.bn(layer.conv(images)))


def late_relus(network: nn.Module, patterns: Sequence[str] | None) -> list[nn.Module]:
    """Return the ReLUs whose names match a pattern; None: the default of `BackwardPropagation`."""
    named = network.named_modules(remove_duplicate=False)
    pattern = "|".join(_LATE if patterns is None else patterns) or "$^"
    chosen = [module for name, module in named if has_relu(module) and re.search(pattern, name)]
    if patterns and not chosen:
        raise ValueError(f"attack.relus={list(patterns)}: no ReLU of the source has such a name.")
    if patterns is None and not chosen:
        before = takewhile(lambda module: not isinstance(module, nn.Linear), network.modules())
        early = [module for module in before if has_relu(module)]
        chosen = early[-max(1, len(early) // 3) :]
    return chosen


@checked
class BackwardPropagation:
    """Replace the backward pass: max-pooling by softmax over each window, late ReLUs by SiLU.

    The logits stay the same. A window with inputs z turns its gradient g into
    softmax(temperature * z) * g, and a ReLU into s(z) * (1 + z * (1 - s(z))) * g, with the logistic
    function s.

    Args:
        temperature: Temperature of the softmax; larger ones approach the maximum's own gradient.
        relus: Regular expressions for the names of the modules whose ReLUs are changed, such as
            `layer4`; None: for ResNets `layer4` and `layer3` without its first block, for Inception
            v3 `Mixed_7`, for DenseNets `denseblock4`, for others the last third of the ReLUs before
            the first linear layer.

    Reference: Wang et al. (2023), arXiv 2306.12685.

    Deviation: a window's padding has no weight (authors: that of a 0), the temperature is 10 for
    2x2 windows too (authors, for VGG-19: 1), and for VGG the last third of the ReLUs before the
    classifier change (authors: the last two).
    """

    temperature: PositiveFloat = 10.0
    relus: Names | None = None

    def __call__(self, model: nn.Module) -> nn.Module:
        for layer in layers_of(model, self._find_layers, "max-pools or ReLUs"):
            if isinstance(layer, nn.MaxPool2d):
                layer.forward = partial(_pool, layer, self.temperature)  # type: ignore[method-assign]
            else:
                replace_relu(layer, _smooth_relu)
        return model

    def _find_layers(self, network: nn.Module) -> Iterable[nn.Module]:
        pools = [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]
        return [*pools, *late_relus(network, self.relus)]


def _smooth_relu(z: Tensor) -> Tensor:
    return with_gradient(z.relu(), functional.silu(z))


def _pool(pool: nn.MaxPool2d, temperature: float, z: Tensor) -> Tensor:
    """Return each window's maximum, with the gradient of a mean with constant softmax weights."""
    result = nn.MaxPool2d.forward(pool, z)
    kernel, stride, padding, dilation = (
        (size, size) if isinstance(size, int) else size
        for size in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    border: list[int] = []  # before and after the last axis, then the one before
    for axis in (1, 0):
        covered = stride[axis] * (result.shape[axis - 2] - 1) + dilation[axis] * (kernel[axis] - 1)
        border += [padding[axis], covered + 1 - padding[axis] - z.shape[axis - 2]]
    padded = functional.pad(z, border, value=finfo(z.dtype).min)  # has a share of 0
    windows = functional.unfold(padded, kernel, dilation, stride=stride)
    windows = windows.unflatten(1, (z.shape[1], -1))
    shares = (temperature * windows).softmax(dim=2).detach()
    return with_gradient(result, (shares * windows).sum(dim=2).view_as(result))


@attack(backward_rule=BackwardPropagation, decay=1.0, needs="ReLUs")
def bpa() -> None:
    """Smooth gradients of max-pools and late ReLUs: momentum, steps of eps / 10, not eps / 5.

    Name: Backward Propagation Attack.
    """


_NEEDS = "ReLUs that are not in timm's residual blocks"
_BLOCKS = ("BasicBlock", "Bottleneck", "_DenseLayer")


@checked
class LinearPropagation:
    """Treat late ReLUs as the identity in the backward pass.

    The logits stay the same. In a residual block or a dense layer, the gradient through the branch
    f is rescaled, image by image, to its length with the ReLUs' own derivatives. The ReLU after the
    addition keeps its derivative.

    Args:
        relus: Regular expressions for the names of the modules whose ReLUs are linear, alone or
            with their whole residual block, such as `layer4`; None: as for `bpa`.

    Reference: Guo, Li, Chen (2020), arXiv 2012.03528.

    Deviation: for VGG the last third of the ReLUs before the classifier are linear (authors: the
    last two of VGG-19 at 224 pixels, more at 32). The authors have no DenseNet or Inception.
    """

    relus: Names | None = None

    def __call__(self, model: nn.Module) -> nn.Module:
        for layer in layers_of(model, self._find_layers, _NEEDS):
            if type(layer).__name__ in _BLOCKS:
                layer.forward = partial(_block, layer)
            else:
                replace_relu(layer, _linear_relu)
        return model

    def _find_layers(self, network: nn.Module) -> list[nn.Module]:
        relus = late_relus(network, self.relus)
        blocks = [module for module in network.modules() if type(module).__name__ in _BLOCKS]
        inside = {module for block in blocks for module in block.modules()}
        residual = [block for block in blocks if type(block).__module__.startswith(_KNOWN)]
        late = [block for block in residual if not set(relus).isdisjoint(block.modules())]
        return [*late, *(relu for relu in relus if relu not in inside)]


class _Branch(torch.autograd.Function):
    """Branch f(z), its gradient with the direction of linear ReLUs and the length of exact ones."""

    @staticmethod
    def forward(context: Any, z: Tensor, block: nn.Module) -> Tensor:
        context.linear = linear = list[bool]()  # not empty while gradients skip the ReLUs

        def relu(z: Tensor) -> Tensor:
            context.last = z.relu()
            context.last.grad_fn.register_hook(lambda below, above: above if linear else None)
            return context.last

        with torch.enable_grad():
            context.z = z.detach().requires_grad_()
            context.f = _branch(block, context.z, relu)
        return context.f.detach()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (above,) = torch.autograd.grad(context.f, context.last, gradient, retain_graph=True)
        (exact,) = torch.autograd.grad(context.last, context.z, above, retain_graph=True)
        context.linear.append(True)
        (way,) = torch.autograd.grad(context.last, context.z, above, retain_graph=True)
        context.linear.clear()
        size = rms(way)
        return way * torch.where(size > 0, rms(exact) / size, 0), None


def _block(block: Any, features: Tensor | list[Tensor]) -> Tensor:
    z = features if isinstance(features, Tensor) else torch.cat(features, dim=1)
    f = _Branch.apply(z, block)
    if type(block).__name__ == "_DenseLayer":
        return f
    return (f + (block.downsample(z) if block.downsample else z)).relu()


def _branch(block: Any, z: Tensor, relu: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute f(z), with convolutions and batch norms in the order of the block's type."""
    layers = dict(block.named_children())
    for number in takewhile(lambda number: f"conv{number}" in layers, (1, 2, 3)):
        convolution = layers[f"conv{number}"]
        if f"norm{number}" in layers:
            z = convolution(relu(layers[f"norm{number}"](z)))
        else:
            z = layers[f"bn{number}"](convolution(z if number == 1 else relu(z)))
    return z


def _linear_relu(z: Tensor) -> Tensor:
    return with_gradient(z.relu(), z)


@attack(backward_rule=LinearPropagation, needs="ReLUs")
def linbp() -> None:
    """Make late ReLUs linear in the backward pass: LinBP, no momentum, 10 steps of eps / 10.

    Name: Linear Backpropagation.

    The authors take 300 steps.
    """
