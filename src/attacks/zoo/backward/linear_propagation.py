from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Annotated, Any

import torch
from pydantic import Strict
from torch import Tensor, nn

from src.attacks.define import attack
from src.attacks.projection import rms
from src.attacks.zoo.backward.layers import late_relus, layers_of, replace_relu, with_gradient
from src.utils.checked_dataclass import checked

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

    relus: Annotated[tuple[str, ...], Strict(False)] | None = None

    def __call__(self, model: nn.Module) -> nn.Module:
        for layer in layers_of(model, self._find_layers, _NEEDS):
            if type(layer).__name__ in _BLOCKS:
                layer.forward = partial(_block, layer)
            else:
                replace_relu(layer, _linear)
        return model

    def _find_layers(self, network: nn.Module) -> list[nn.Module]:
        relus = late_relus(network, self.relus)
        blocks = [module for module in network.modules() if type(module).__name__ in _BLOCKS]
        inside = {module for block in blocks for module in block.modules()}
        known = [block for block in blocks if type(block).__module__.startswith("torchvision.")]
        late = [block for block in known if not set(relus).isdisjoint(block.modules())]
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


def _linear(z: Tensor) -> Tensor:
    return with_gradient(z.relu(), z)


@attack(backward_rule=LinearPropagation, needs="ReLUs")
def linbp() -> None:
    """Make late ReLUs linear in the backward pass: LinBP, no momentum, 10 steps of eps / 10.

    The authors take 300 steps.
    """
