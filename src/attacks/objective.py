"""Objective of attacks: the source's loss, and its gradient through transforms."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.attacks.losses import LOSSES
from src.attacks.per_image_random import PerImageRandom
from src.attacks.settings import Settings

Model = Callable[[Tensor], Tensor]
"""Images in [0, 1], shape (N, 3, H, W), to logits (N, C), or (M, N, C) of M models whose losses
are averaged."""


@dataclass(frozen=True)
class Objective:
    """Loss that an attack maximises, as a function of images (K, N, 3, H, W)."""

    model: Model
    settings: Settings
    targeted: bool

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image, shape (K, N)."""
        logits = self.model(images.flatten(0, 1))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # of half precision
        classes = labels.repeat(len(images)).expand(logits.shape[:-1])
        losses = LOSSES[self.settings.loss](logits, classes, self.targeted)
        if losses.ndim == 2:  # of several models
            losses = losses.mean(dim=0)
        return losses.reshape(images.shape[:2])

    def gradient(self, images: Tensor, labels: Tensor, random: PerImageRandom) -> Tensor:
        """Return the smoothed gradient of each image's loss, averaged over the copies."""
        shared = images.stride(0) == 0  # all budgets are at the same images
        distinct = images[:1] if shared else images
        copies = math.prod(transform.copies for transform in self.settings.transforms)
        total = torch.zeros_like(distinct)
        random.kept.clear()
        for copy in range(copies):
            total = total + self._gradient_of_copy(distinct, labels, random, copy)
        return smooth(total / copies, self.settings.kernel_size).expand_as(images)

    def _gradient_of_copy(
        self, images: Tensor, labels: Tensor, random: PerImageRandom, copy: int
    ) -> Tensor:
        with torch.enable_grad():
            variable = images.detach().requires_grad_()
            transformed: Tensor = variable
            for transform in self.settings.transforms:
                copy, own = divmod(copy, transform.copies)
                transformed = transform(transformed, random, own)
            # Summed, not averaged: an image's gradient must not depend on its batch.
            loss = self.losses(transformed, labels).sum()
            (gradient,) = torch.autograd.grad(loss, variable)
        return gradient


def smooth(gradient: Tensor, size: int) -> Tensor:
    """Convolve each channel with a Gaussian of `size` x `size` pixels that sums to 1.

    The Gaussian spans three standard deviations to either side; beyond the border gradients are 0.

    Args:
        gradient: Shape (..., 3, H, W).
        size: Odd; 0 or 1 leave the gradient as it is.

    Reference:
        Dong et al.: Evading Defenses to Transferable Adversarial Examples by Translation-Invariant
        Attacks (2019), arXiv 1904.02884. The deviation is that of the
        authors' code, (size - 1) / 6.
    """
    if size < 2:
        return gradient
    line = torch.linspace(-3, 3, size, dtype=gradient.dtype, device=gradient.device)
    bell = (-line.square() / 2).exp()
    bell = bell / bell.sum()
    flat = gradient.reshape(-1, 1, *gradient.shape[-2:])
    with torch.autocast(gradient.device.type, enabled=False):  # half precision loses small ones
        rows = functional.conv2d(flat, bell.reshape(1, 1, size, 1), padding=(size // 2, 0))
        both = functional.conv2d(rows, bell.reshape(1, 1, 1, size), padding=(0, size // 2))
    return both.reshape(gradient.shape)


@contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Put a module into evaluation mode, and afterwards each of its parts back as it was."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    # Frozen TorchScript has no mode.
    training = [module for module in modules if getattr(module, "training", False)]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True
