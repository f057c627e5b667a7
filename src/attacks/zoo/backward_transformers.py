"""Backward rules of vision transformers: attention, tokens and patches."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from .. import Gradient, Share, State, attack, checked, direction
from ..source import Source, change_gradient, layers_of

_NEEDS = "timm's ViT blocks of softmax attention with one qkv layer"
_TIMM = ("timm.layers.attention", "timm.models.vision_transformer")


@checked
class TokenGradient:
    """Damp three gradients of each transformer block, and set those of extreme tokens to 0.

    The logits stay the same. Extremes are the largest and smallest signed values per image. For the
    attention's scores they are found per head, and their rows and columns are set to 0. For the
    outputs of the qkv layer and of the MLP they are found per channel.

    Args:
        attention: Factor for the gradient at the softmax's input.
        qkv: Factor for the gradient at the qkv layer's output.
        mlp: Factor for the gradient at the MLP's output.
        drop_extremes: Set the gradients of extreme tokens to 0.

    Reference: Zhang et al. (2023), arXiv 2303.15754.

    Deviation: extremes are found per image (authors' code: those of a batch's first image). The
    MLP's factor is that of the code (paper: 0.25).
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

    def _hook_scores(self, dropout: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        """Change the gradient at the softmax's input; the dropout gets the softmax's output."""
        softmax: Any = inputs[0].grad_fn
        if softmax is not None:
            softmax.register_hook(lambda gradients, _: (self._change_scores(gradients[0]),))
        return None if self.attention else inputs[0].detach()

    def _change_scores(self, gradient: Tensor) -> Tensor:
        """Return the changed gradient at scores (N, heads, queries, keys)."""
        if not self.drop_extremes:
            return gradient * self.attention
        rows = torch.stack([gradient.amax(-1).argmax(-1), gradient.amin(-1).argmin(-1)], dim=-1)
        highest, lowest = gradient.take_along_dim(rows[..., None], 2).unbind(2)
        columns = torch.stack([highest.argmax(-1), lowest.argmin(-1)], dim=-1)
        factors = torch.full_like(gradient[..., 0], self.attention).scatter_(2, rows, 0.0)
        mask = torch.ones_like(gradient[..., 0, :]).scatter_(2, columns, 0.0)
        return (gradient * factors[..., None]).mul_(mask[..., None, :])

    def _change_tokens(self, factor: float, gradient: Tensor) -> Tensor:
        """Return the changed gradient at a layer's output (N, tokens, channels)."""
        changed = gradient * factor
        if self.drop_extremes:
            changed.scatter_(1, _extremes(gradient), 0.0)
        return changed


def _extremes(gradient: Tensor) -> Tensor:
    """Return the extreme tokens, (N, 2, channels); on a CPU, `argmax` would be slow."""
    line = gradient.mT.unsqueeze(2)
    pools = (functional.adaptive_max_pool2d(x, 1, return_indices=True)[1] for x in (line, -line))
    return torch.cat([*pools], dim=2).squeeze(3).mT


def _find_blocks(network: nn.Module) -> Iterator[nn.Module]:
    for module in network.modules():
        attention = type(getattr(module, "attn", None))
        if attention.__name__ == "Attention" and attention.__module__ in _TIMM:
            yield module


@attack(backward_rule=TokenGradient, decay=1.0, needs="attention")
def tgr() -> None:
    """Damp gradients and drop extreme tokens: token gradient regularisation, with momentum.

    Name: Token Gradient Regularisation.
    """


@checked
class PatchOut:
    """Take the gradient of L(x + M * delta) + length_weight * ||delta||_2.

    delta is the perturbation so far. M is 1 on a share of the patches, drawn per image and step,
    and 0 elsewhere.

    Args:
        kept: Share of the patches with M = 1; their number is rounded.
        patches: Number of patches along a side; None: as the source's transformer cuts images.
        length_weight: Weight of the perturbation's L2 norm, in [0, 1] units.

    Reference: Wei et al. (2022), arXiv 2109.04176 (there 130 of 14 x 14 patches, and 0.1).

    Deviation: on networks other than ViT-B/16 at 224 pixels, the patches are the network's own. The
    norm is per image (authors: of the batch, added to its mean loss).
    """

    kept: Share = 0.6633
    patches: PositiveInt | None = None
    length_weight: NonNegativeFloat = 0.1

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        delta = state.at - state.images
        patches = self.patches or _count_patches(state.source)
        chosen = state.random.permutations(patches**2) < round(self.kept * patches**2)
        grid = chosen.to(delta).unflatten(1, (1, patches, patches))
        mask = functional.interpolate(grid, delta.shape[-2:])
        outwards = direction(delta, "l2") / math.sqrt(math.prod(delta.shape[2:]))
        return mask * gradient(state.images + mask * delta) + self.length_weight * outwards


def _count_patches(source: Source) -> int:
    """Return the number of patches along a side of the source's transformers, as timm states it."""
    modules = source.model.modules() if isinstance(source.model, nn.Module) else ()
    sides = {grid[0] for module in modules if (grid := getattr(module, "grid_size", None))}
    if len(sides) != 1:
        raise ValueError(
            "attack.patches=null: the source states no patches. Set their number along a side."
        )
    return int(sides.pop())


@attack(
    fixed=["qkv", "mlp", "drop_extremes"],
    estimator=PatchOut,
    backward_rule=TokenGradient,
    decay=1.0,
    attention=0.0,
    qkv=1.0,
    mlp=1.0,
    drop_extremes=False,
    gradients=lambda n: n.budgets * n.steps,
    needs="attention",
)
def pna_patchout() -> None:
    """Keep attention maps constant, and use some patches per step: PNA with PatchOut.

    Name: Pay No Attention, and PatchOut.

    PNA is `tgr` with all tokens, and with the factors 0 for attention and 1 for the rest. It has
    momentum.
    """
