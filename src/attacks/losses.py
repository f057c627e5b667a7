"""Per-example losses that attacks maximise."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, bool], Tensor]
"""Function (logits (..., C), labels (...), targeted) -> losses (...)."""
Losses = Callable[[Tensor], Tensor]
"""Function from images to their losses on the source, (K, N)."""


def cross_entropy(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Return -log softmax(z)_y, or its negative if y is the class to reach."""
    loss = -functional.log_softmax(logits, dim=-1).gather(-1, labels[..., None])[..., 0]
    return -loss if targeted else loss


def calibrated(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Return the cross-entropy of z / (z_(1) - z_(2)); the two largest logits are constants.

    Reference: Liu et al. (2024), arXiv 2410.13891.
    """
    first, second = logits.detach().topk(2).values.unbind(dim=-1)
    gap = (first - second).clamp_min(1e-12)[..., None]
    return cross_entropy(logits / gap, labels, targeted)


def logit(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Return -z_y, or z_y if y is the class to reach.

    Unlike the cross-entropy's, its gradient does not fade as the class is reached.

    Reference: Zhao, Liu, Larson (2021), arXiv 2012.11207.
    """
    score = logits.gather(-1, labels[..., None])[..., 0]
    return score if targeted else -score


def margin(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Return max_{i != y} z_i - z_y, or its negative if y is the class to reach.

    The difference is positive once the image is not classified as y.

    Reference: Carlini, Wagner (2017), arXiv 1608.04644, f_6.
    """
    score = logits.gather(-1, labels[..., None])[..., 0]
    others = logits.scatter(-1, labels[..., None], -torch.inf)
    difference = others.amax(dim=-1) - score
    return -difference if targeted else difference


LOSSES: dict[str, Loss] = {
    loss.__name__: loss for loss in (cross_entropy, calibrated, logit, margin)
}


def loss_of_each(name: str, logits: Tensor, labels: Tensor, targeted: bool, budgets: int) -> Tensor:
    """Return the losses (K, N) of K * N images, from their logits and N labels.

    Logits (M, K * N, C) belong to M models, whose losses are averaged.
    """
    losses = LOSSES[name](logits, labels.repeat(budgets).expand(logits.shape[:-1]), targeted)
    return (losses.mean(dim=0) if losses.ndim == 2 else losses).reshape(budgets, -1)
