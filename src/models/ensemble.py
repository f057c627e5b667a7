"""Ensemble of classifiers as one source."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Classifiers whose predictions or losses are averaged.

    Args:
        members: Modules from images in [0, 1], shape (N, 3, H, W), to logits of shape (N, C).
        average: `logits`; `probabilities`; or `loss`: an attack then maximises the mean of
            the members' losses, and the ensemble itself predicts the mean of the log-probabilities.

    Reference: Liu et al. (2017), arXiv 1611.02770 (probabilities); Dong et al. (2018),
    arXiv 1710.06081 (all three).
    """

    def __init__(self, members: Sequence[nn.Module], average: str) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.average = average

    def forward(self, images: Tensor) -> Tensor:
        """Return the ensemble's logits, shape (N, C)."""
        logits = self.member_logits(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.average == "logits":
            return logits.mean(dim=0)
        logarithms = logits.log_softmax(dim=-1)
        if self.average == "probabilities":
            return logarithms.logsumexp(dim=0)  # a constant summand changes no softmax
        return logarithms.mean(dim=0)

    def attacked(self, images: Tensor) -> Tensor:
        """Return the logits to differentiate: (N, C), or (M, N, C) to average the losses."""
        return self.member_logits(images) if self.average == "loss" else self(images)

    def member_logits(self, images: Tensor) -> Tensor:
        """Return the members' logits, shape (M, N, C)."""
        return torch.stack([member(images) for member in self.members])
