from collections.abc import Iterator
from typing import Any

from torch import nn

from src.attacks.define import attack
from src.attacks.zoo.backward.layers import change_gradient, layers_of
from src.utils.checked_dataclass import Share, checked

_NEEDS = (
    "blocks with an identity shortcut (ResNet, MobileNet v2, ConvNeXt and ViT of torchvision or "
    "timm) or dense layers"
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
        for branch in layers_of(model, _find_branches, _NEEDS):
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
                yield block.conv
            case "ConvNeXtBlock" if isinstance(block.shortcut, nn.Identity):
                yield block.mlp
            case "Block" if hasattr(block, "attn") and hasattr(block, "mlp"):
                yield from (block.attn, block.mlp)


@attack(backward_rule=SkipGradient, decay=1.0, needs="skip connections")
def sgm() -> None:
    """Damp gradients beside skip connections: momentum (an option), steps of eps / 10."""
