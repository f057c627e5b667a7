"""Backward rules of vision transformers: attention, tokens and patches."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from .. import Gradient, Problem, Share, State, attack, checked, direction
from ..source import Source, change_gradient, layers_of, members_of

_NEEDS = "timm's ViT blocks of softmax attention with one qkv layer"
_TIMM = ("timm.layers.attention", "timm.models.vision_transformer")


@checked
class TokenGradient:
    """Damp three gradients of each transformer block, and those of extreme tokens once more.

    The logits stay the same. Extremes are the largest and smallest signed values per image. For the
    attention's scores they are found per head, and their rows and columns are damped. For the
    outputs of the qkv layer and of the MLP they are found per channel. With variances v of a kind
    of gradient over an image's values, v_l before the extremes of block l are damped (but after the
    constant factor) and v'_{l+1} after those of the next block, the factor of the extremes is ::

        clip(extremes + adaptivity * (1 - sqrt(v_l / v'_{l+1})), 0, 1)

    It is `extremes` for the last block and where v'_{l+1} is 0.

    Args:
        attention: Factor for the gradient at the softmax's input.
        qkv: Factor for the gradient at the qkv layer's output.
        mlp: Factor for the gradient at the MLP's output.
        drop_extremes: Set the gradients of extreme tokens to 0. With `extremes`, damp them.
        extremes: Factor for the gradients of extreme tokens; 0 drops them.
        adaptivity: Weight of the change of variance from block to block.
        truncated: Share of the blocks, from the last one, whose attention has no gradient; their
            number is rounded.

    Reference: Zhang et al. (2023), arXiv 2303.15754; Ming et al. (2024), NeurIPS 2024, for the last
    three.

    Deviation: extremes are found per image (authors' code: those of a batch's first image). The
    MLP's factor is that of the code (paper: 0.25).
    """

    attention: Share = 0.25
    qkv: Share = 0.75
    mlp: Share = 0.5
    drop_extremes: bool = True
    extremes: Share = 0.0
    adaptivity: NonNegativeFloat = 0.0
    truncated: Share = 0.0

    def __call__(self, model: nn.Module) -> nn.Module:
        for member in dict.fromkeys(members_of(model)):
            blocks = layers_of(member, _find_blocks, _NEEDS)
            cut = round(self.truncated * len(blocks))
            scores = qkv = mlp = None
            for number, block in enumerate(reversed(blocks)):
                scores = _Damping(self, 0.0 if number < cut else self.attention, scores)
                qkv, mlp = _Damping(self, self.qkv, qkv), _Damping(self, self.mlp, mlp)
                block.attn.fused_attn = False  # the fused kernel has no scores
                block.attn.attn_drop.register_forward_pre_hook(scores.hook_scores)
                change_gradient(block.attn.qkv, qkv.change_tokens)
                change_gradient(block.mlp, mlp.change_tokens)
        return model


class _Damping:
    """Change of one kind of gradient in a block, and that in the next block, `above`."""

    def __init__(self, rule: TokenGradient, factor: float, above: "_Damping | None") -> None:
        self.rule, self.factor, self.above = rule, factor, above
        self.variance: Tensor | None = None  # of the changed gradient, (N, 1, 1)

    def hook_scores(self, dropout: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        """Change the gradient at the softmax's input; the dropout gets the softmax's output."""
        softmax: Any = inputs[0].grad_fn
        if softmax is not None:
            softmax.register_hook(lambda gradients, _: (self._change_scores(gradients[0]),))
        return None if self.factor else inputs[0].detach()

    def _change_scores(self, gradient: Tensor) -> Tensor:
        """Return the changed gradient at scores (N, heads, queries, keys)."""
        if not self.rule.drop_extremes:
            return gradient * self.factor
        rows = torch.stack([gradient.amax(-1).argmax(-1), gradient.amin(-1).argmin(-1)], dim=-1)
        highest, lowest = gradient.take_along_dim(rows[..., None], 2).unbind(2)
        columns = torch.stack([highest.argmax(-1), lowest.argmin(-1)], dim=-1)
        factors = torch.full_like(gradient[..., 0], self.factor)
        mask, weight = torch.ones_like(gradient[..., 0, :]), self._weight(gradient)
        _damp(factors, rows, 2, weight)
        _damp(mask, columns, 2, weight)
        return self._noted((gradient * factors[..., None]).mul_(mask[..., None, :]))

    def change_tokens(self, gradient: Tensor) -> Tensor:
        """Return the changed gradient at a layer's output (N, tokens, channels)."""
        changed = gradient * self.factor
        if self.rule.drop_extremes:
            _damp(changed, _extremes(gradient), 1, self._weight(gradient))
        return self._noted(changed)

    def _weight(self, gradient: Tensor) -> Tensor | float:
        """Return the factor of extreme tokens, the same for all images or (N, 1, 1)."""
        rule, above = self.rule, self.above.variance if self.above else None
        if rule.adaptivity == 0 or above is None:
            return rule.extremes
        change = 1 - self.factor * (_variance(gradient) / above).sqrt()
        weight = (rule.extremes + rule.adaptivity * change).clamp(0, 1)
        return torch.where(above > 0, weight, rule.extremes)

    def _noted(self, changed: Tensor) -> Tensor:
        """Return a changed gradient, whose variance the previous block may need."""
        if self.rule.adaptivity > 0:
            self.variance = _variance(changed)
        return changed


def _damp(values: Tensor, places: Tensor, axis: int, weight: Tensor | float) -> None:
    """Multiply the values at the largest and at the smallest place, or twice at the same one."""
    for place in places.split(1, dim=axis):
        values.scatter_(axis, place, values.gather(axis, place) * weight)


def _variance(gradient: Tensor) -> Tensor:
    """Return the variance of each image's values, (N, 1, 1)."""
    return gradient.flatten(1).var(dim=1)[:, None, None]


def _extremes(gradient: Tensor) -> Tensor:
    """Return the extreme tokens, (N, 2, channels); on a CPU, `argmax` would be slow."""
    line = gradient.mT.unsqueeze(2)
    pools = (functional.adaptive_max_pool2d(x, 1, return_indices=True)[1] for x in (line, -line))
    return torch.cat([*pools], dim=2).squeeze(3).mT


def _find_blocks(network: nn.Module) -> Iterator[nn.Module]:
    for module in (one for one in network.modules() if hasattr(one, "mlp")):  # none if parallel
        attention = type(getattr(module, "attn", None))
        if attention.__name__ == "Attention" and attention.__module__ in _TIMM:
            yield module


_ONE_WEIGHT = ["extremes", "adaptivity", "truncated"]


@attack(fixed=_ONE_WEIGHT, backward_rule=TokenGradient, decay=1.0, needs="attention")
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
        outwards = direction(delta, "l2") / math.sqrt(math.prod(delta.shape[2:]))
        chosen = chosen.unflatten(1, (1, patches, patches))
        return _of_patches(chosen, gradient, state) + self.length_weight * outwards


def _of_patches(chosen: Tensor, gradient: Gradient, state: State) -> Tensor:
    """Return the gradient M * grad L(x + M * delta), M being 1 on chosen patches (N, 1, P, P)."""
    delta = state.at - state.images
    mask = functional.interpolate(chosen.to(delta), delta.shape[-2:])
    return mask * gradient(state.images + mask * delta)


def _count_patches(source: Source) -> int:
    """Return the number of patches along a side of the source's transformers, as timm states it."""
    modules = source.model.modules() if isinstance(source.model, nn.Module) else ()
    sides = {side for module in modules for side in getattr(module, "grid_size", None) or ()}
    if len(sides) != 1:
        raise ValueError("attack.patches=null: the source has no square of patches. Set a number.")
    return int(sides.pop())


@attack(
    fixed=["qkv", "mlp", "drop_extremes", *_ONE_WEIGHT],
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


@checked
class SelfPacedPatches:
    """Take the gradient of L(x + M * delta), and leave out more patches from step to step.

    delta is the perturbation so far. M is 1 on a patch of importance r with probability
    first - (first - lowest - spread * r) * t / T in step t of T, and 0 elsewhere. The importance is
    that of the clean image: the sum over channels of feature times gradient of the sum of all
    logits, as the backward rule changes it, after the last block but one, enlarged to the image
    bilinearly and averaged over each patch. It is moved and scaled so that it goes from 0 to 1.

    Args:
        first: Probability of all patches before the first step.
        lowest: Probability of the least important patch in the last step.
        spread: Difference between the most and the least important patch in the last step.
        patches: Number of patches along a side; None: as the source's transformer cuts images.

    Reference: Ming et al. (2024), NeurIPS 2024 (there 0.99, 0.4 and 0.4 for ViT-B/16).

    Deviation: members of an ensemble have one importance, their mean.
    """

    first: Share = 0.99
    lowest: Share = 0.4
    spread: Share = 0.4
    patches: PositiveInt | None = None

    def init(self, problem: Problem) -> Tensor:
        """Return the importance of patches, from 0 to 1, (N, 1, P, P)."""
        return _importance(problem, self.patches or _count_patches(problem.source))

    def step(self, gradient: Gradient, state: State, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the estimate; the importance stays."""
        last = self.lowest + self.spread * importance
        share = self.first - (self.first - last) * (state.step + 1) / state.steps
        chosen = state.random.uniform(1, *importance.shape[2:]) <= share
        return _of_patches(chosen, gradient, state), importance


def _find_networks(network: nn.Module) -> Iterator[Any]:
    return (module for module in network.modules() if hasattr(module, "num_prefix_tokens"))


def _importance(problem: Problem, patches: int) -> Tensor:
    """Return the importance of patches, from 0 to 1, (N, 1, P, P)."""
    model: Any = problem.source.model
    images, total = problem.images, problem.images.new_zeros(1)
    networks = layers_of(model, _find_networks, "timm's VisionTransformer")
    source = Source(model, [f"blocks.{max(0, len(one.blocks) - 2)}" for one in networks])
    source.draw(problem.random, 1)
    for network, pair in zip(networks, source.layer_gradients(images, Tensor.sum), strict=True):
        output, gradient = pair
        tokens = (output.detach() * gradient).sum(dim=-1)[:, network.num_prefix_tokens :]
        rows = round(math.sqrt(tokens.shape[1] * images.shape[-2] / images.shape[-1]))
        grid = tokens.to(images.dtype).unflatten(1, (1, rows, -1))
        pixels = functional.interpolate(grid, images.shape[-2:], mode="bilinear")
        means = functional.adaptive_avg_pool2d(pixels, patches)
        means = means - means.amin((-2, -1), keepdim=True)
        largest = means.amax((-2, -1), keepdim=True)
        total = total + means / largest.clamp_min(torch.finfo(means.dtype).tiny) / len(networks)
    return total


@attack(
    fixed=["drop_extremes", "layer"],
    estimator=SelfPacedPatches,
    backward_rule=TokenGradient,
    decay=1.0,
    attention=0.45,
    qkv=0.7,
    mlp=0.65,
    extremes=0.5,
    adaptivity=0.01,
    truncated=1 / 6,
    gradients=lambda n: 1 + n.budgets * n.steps,
    needs=["attention", "layers"],
)
def att() -> None:
    """Damp extreme tokens by variance, and leave out more and more patches: adaptive token tuning.

    Name: Adaptive Token Tuning.
    Reference: Ming et al. (2024), https://proceedings.neurips.cc/paper_files/paper/2024/hash/24f8dd1b8f154f1ee0d7a59e368eccf3-Abstract-Conference.html

    It has the momentum of `mi` and the constants of the authors' code for ViT-B/16.

    Deviation: variances and extremes are those of an image (authors' code: variances of a batch,
    and extremes and importance of its first image).
    """
