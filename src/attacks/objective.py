"""What attacks maximise: the loss of the source model, and its gradient through transforms."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from src.attacks.losses import Loss
from src.attacks.per_image_random import PerImageRandom
from src.attacks.smoothing import smooth

Model = Callable[[Tensor], Tensor]
"""Images in [0, 1], shape (N, 3, H, W), to logits (N, C), or (M, N, C) of M models whose losses
are averaged."""


@runtime_checkable
class Transform(Protocol):
    """What is done to the images before the source model classifies them.

    `copies` versions are made, one by one, and their gradients averaged. Images have the shape
    (K, N, 3, H, W): K budgets of the same N images; random numbers belong to the N.
    """

    @property
    def copies(self) -> int:
        """How many versions are made."""

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        """Return version number `copy`, of the images' shape."""


@dataclass(frozen=True)
class Objective:
    """The loss that an attack maximises, as a function of images (K, N, 3, H, W).

    Attributes:
        model: Maps images to logits; see `Model`.
        loss: One of `LOSSES`.
        targeted: Whether the labels are classes to reach.
        transforms: Applied to the images in this order, for gradients alone.
        kernel_size: Side of the Gaussian that gradients are smoothed with; 0: none.
    """

    model: Model
    loss: Loss
    targeted: bool
    transforms: tuple[Transform, ...]
    kernel_size: int

    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each image, shape (K, N)."""
        logits = self.model(images.flatten(0, 1))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # of half precision
        classes = labels.repeat(len(images))
        losses = self.loss(logits, classes.expand(logits.shape[:-1]), self.targeted)
        if losses.ndim == 2:  # of several models
            losses = losses.mean(dim=0)
        return losses.reshape(images.shape[:2])

    def gradient(self, images: Tensor, labels: Tensor, random: PerImageRandom) -> Tensor:
        """Return the smoothed gradient of each image's loss, averaged over the copies."""
        shared = images.stride(0) == 0  # all budgets are at the same images
        distinct = images[:1] if shared else images
        copies = math.prod(transform.copies for transform in self.transforms)
        total: Tensor | float = 0.0
        for copy in range(copies):
            total = total + self._gradient_of_copy(distinct, labels, random, copy)
        assert isinstance(total, Tensor)
        return smooth(total / copies, self.kernel_size).expand_as(images)

    def _gradient_of_copy(
        self, images: Tensor, labels: Tensor, random: PerImageRandom, copy: int
    ) -> Tensor:
        with torch.enable_grad():
            variable = images.detach().requires_grad_()
            transformed: Tensor = variable
            for transform in self.transforms:
                copy, own = divmod(copy, transform.copies)
                transformed = transform(transformed, random, own)
            # Summed, not averaged: an image's gradient must not depend on its batch.
            loss = self.losses(transformed, labels).sum()
            (gradient,) = torch.autograd.grad(loss, variable)
        return gradient


@contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Put a module into evaluation mode, and afterwards each of its parts back as it was."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    # Frozen TorchScript has no mode.
    training = [module for module in modules if getattr(module, "training", False)]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
