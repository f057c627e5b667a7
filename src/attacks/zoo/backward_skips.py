"""Backward rules of residual blocks and their skip connections."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from .. import PerImageRandom, Share, attack, change_gradient, checked, layers_of
from .backward_relus import has_relu

_SHORTCUTS_OR_DENSE = (
    "blocks with an identity shortcut (ResNet and MobileNet of torchvision or timm, ConvNeXt and "
    "ViT of timm) or dense layers"
)


@checked
class SkipGradient:
    """Damp gradients through each block: z + gamma * f(z) + (1 - gamma) * f(z).detach().

    The logits stay the same. The branches f are those beside identity shortcuts: residual blocks
    except the first of each stage, dense layers, and attention and MLP of transformers.

    Args:
        gamma: Share of the gradient through f that is kept; 1: the source's own gradient.

    Reference: Wu et al. (2020), arXiv 2002.05990.

    Deviation: 0.2 for DenseNet too (paper: 0.5). The authors' code also divides the gradient after
    each block by its standard deviation over the batch, which changes no sign.
    """

    gamma: Share = 0.2

    def __call__(self, model: nn.Module) -> nn.Module:
        for branch in layers_of(model, _find_branches, _SHORTCUTS_OR_DENSE):
            change_gradient(branch, lambda gradient: gradient * self.gamma)
        return model


def _find_branches(network: nn.Module) -> Iterator[nn.Module]:
    """Yield one module per branch, which every path through the branch crosses."""
    for name, module in network.named_modules():
        block: Any = module
        match type(block).__name__:
            case "BasicBlock" | "Bottleneck" if getattr(block, "downsample", block) is None:
                if not name.endswith(".0"):  # as the authors, even without a projection
                    yield getattr(block, "bn3", None) or block.bn2
            case "_DenseLayer" | "DenseLayer":
                yield block
            case "InvertedResidual" if getattr(block, "use_res_connect", False):
                yield getattr(block, "conv", None) or block.block
            case _ if getattr(block, "has_skip", False) and hasattr(block, "drop_path"):  # timm's
                yield block.drop_path
            case "ConvNeXtBlock" if isinstance(block.shortcut, nn.Identity):
                yield block.mlp
            case "Block" if hasattr(block, "attn") and hasattr(block, "mlp"):
                yield from filter(None, (block.attn, block.mlp))


@attack(backward_rule=SkipGradient, decay=1.0, needs="skip connections")
def sgm() -> None:
    """Damp gradients beside skip connections: momentum (an option), steps of eps / 10.

    Name: Skip Gradient Method.
    """


_BLOCKS_OR_RELUS = "residual blocks (ResNets, and timm's ConvNeXt and ViT) or ReLUs"
_BLOCKS = ("BasicBlock", "Bottleneck", "ConvNeXtBlock")  # class names in any library


@checked
class GhostNetwork:
    """Scale skip connections at random, r * z + f(z), or drop values in networks without them.

    r ~ U(1 - spread, 1 + spread) per channel of each residual block, after the projection if there
    is one; a transformer's block has two. Networks without such blocks get dropout after each ReLU.
    All numbers are drawn per image and per gradient.

    Args:
        spread: Half the width of the range of r.
        keep: Probability that a value is kept; it is then divided by `keep`.

    Reference: Li et al. (2020), arXiv 1812.03413 (there 0.22 for ResNet-50 and 0.994 for Inception
    v3).

    Deviation: the authors have no ConvNeXt, ViT, DenseNet, VGG or MobileNet.
    """

    spread: Share = 0.22
    keep: Annotated[float, Gt(0), Le(1)] = 0.994

    def __call__(self, model: nn.Module) -> nn.Module:
        for layer in layers_of(model, _find_layers, _BLOCKS_OR_RELUS):
            if name := _shortcut(layer):
                shortcut = getattr(layer, name) or nn.Identity()
                setattr(layer, name, nn.Sequential(shortcut, _Factors(self._draw_scales)))
            elif has_relu(layer):
                layer.ghost = _Factors(self._draw_dropout)
                layer.register_forward_hook(lambda layer, inputs, output: layer.ghost(output))
            else:
                layer.ghosts = nn.ModuleList(_Factors(self._draw_scales) for _ in range(2))
                layer.forward = partial(_transformer_block, layer)
        return model

    def _draw_scales(self, random: PerImageRandom, z: Tensor) -> Tensor:
        shape = (z.shape[1], 1, 1) if z.ndim == 4 else (1, z.shape[-1])
        return random.uniform(*shape, low=1 - self.spread, high=1 + self.spread)

    def _draw_dropout(self, random: PerImageRandom, z: Tensor) -> Tensor:
        return (random.uniform(*z.shape[1:]) < self.keep).to(z) / self.keep


class _Factors(nn.Module):
    """Multiplication by factors that stay the same until the next draw."""

    def __init__(self, make: Callable[[PerImageRandom, Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make
        self.factors: dict[torch.Size, Tensor] = {}  # by shape: a ReLU may be used several times

    def draw(self, random: PerImageRandom, budgets: int) -> None:
        self.random, self.factors = random, {}

    def forward(self, z: Tensor) -> Tensor:
        if z.shape[1:] not in self.factors:
            self.factors[z.shape[1:]] = self.make(self.random, z).to(z)
        factors = self.factors[z.shape[1:]]
        return (z.unflatten(0, (-1, len(factors))) * factors).flatten(0, 1)


def _find_layers(network: nn.Module) -> list[nn.Module]:
    """Return the residual blocks, or the ReLUs if there are none."""
    modules = [*network.modules()]
    blocks = [module for module in modules if _shortcut(module) or _is_vit(module)]
    return blocks or [module for module in modules if has_relu(module)]


def _shortcut(module: nn.Module) -> str | None:
    """Return the name of a residual block's skip connection; None for other modules."""
    names = ("downsample", "shortcut") if type(module).__name__ in _BLOCKS else ()
    return next((name for name in names if hasattr(module, name)), None)


def _is_vit(module: nn.Module) -> bool:
    return type(module).__name__ == "Block" and hasattr(module, "attn") and hasattr(module, "ls2")


def _transformer_block(block: Any, z: Tensor) -> Tensor:
    first, second = block.ghosts
    z = first(z) + block.drop_path1(block.ls1(block.attn(block.norm1(z))))
    return second(z) + block.drop_path2(block.ls2(block.mlp(block.norm2(z))))


@attack(backward_rule=GhostNetwork, decay=1.0, needs="skip connections or ReLUs")
def ghost() -> None:
    """Scale skip connections at random, or drop values: momentum, an option of the authors.

    Name: Ghost networks.
    """
