from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from src.attacks.define import attack
from src.attacks.zoo.backward.layers import change_gradient, layers_of
from src.utils.checked_dataclass import Share, checked

_NEEDS = "timm's ViT blocks of softmax attention with one qkv layer"
_TIMM = ("timm.layers.attention", "timm.models.vision_transformer")


@checked
class TokenGradient:
    """Damp three gradients of each transformer block, and set those of extreme tokens to 0.

    The logits stay the same. Extremes are the largest and the smallest value, with their signs, of
    one image: of each head for the attention's scores, whose rows and columns are set to 0, and of
    each channel for the outputs of the qkv layer and of the MLP.

    Args:
        attention: Factor of the gradient at the softmax's input.
        qkv: Factor of the gradient at the qkv layer's output.
        mlp: Factor of the gradient at the MLP's output.
        drop_extremes: Set those of extreme tokens to 0.

    Reference: Zhang et al. (2023), arXiv 2303.15754.

    Deviation: extremes are each image's own (authors' code: of a batch's first image). The MLP's
    factor is that of the code (paper: 0.25).
    """

    attention: Share = 0.25
    qkv: Share = 0.75
    mlp: Share = 0.5
    drop_extremes: bool = True

    def __call__(self, model: nn.Module) -> nn.Module:
        for block in layers_of(model, _find_blocks, _NEEDS):
            block.attn.fused_attn = False  # the fused kernel has no scores
            block.attn.attn_drop.register_forward_pre_hook(self._hook_scores)
            change_gradient(block.attn.qkv, partial(self._change_tokens, self.qkv))
            change_gradient(block.mlp, partial(self._change_tokens, self.mlp))
        return model

    def _hook_scores(self, dropout: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Change the gradient that leaves the softmax, of which the dropout gets the output."""
        softmax: Any = inputs[0].grad_fn
        if softmax is not None:
            softmax.register_hook(lambda gradients, _: (self._change_scores(gradients[0]),))

    def _change_scores(self, gradient: Tensor) -> Tensor:
        """Return the changed gradient of scores (N, heads, queries, keys)."""
        if self.drop_extremes:
            queries, keys = (torch.arange(n, device=gradient.device) for n in gradient.shape[-2:])
            flat = gradient.flatten(-2)
            for place in (flat.argmax(-1), flat.argmin(-1)):
                row, column = place[..., None] // len(keys), place[..., None] % len(keys)
                crossed = (queries == row)[..., None] | (keys == column)[..., None, :]
                gradient = gradient.masked_fill(crossed, 0)
        return gradient * self.attention

    def _change_tokens(self, factor: float, gradient: Tensor) -> Tensor:
        """Return the changed gradient of a layer's output (N, tokens, channels)."""
        if self.drop_extremes:
            extremes = torch.stack([gradient.argmax(1), gradient.argmin(1)], dim=1)
            gradient = gradient.scatter(1, extremes, 0.0)
        return gradient * factor


def _find_blocks(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        attention = type(getattr(module, "attn", None))
        if attention.__name__ == "Attention" and attention.__module__ in _TIMM:
            yield module


@attack(backward_rule=TokenGradient, decay=1.0, needs="attention")
def tgr() -> None:
    """Damped gradients without extreme tokens: token gradient regularisation, with momentum."""
