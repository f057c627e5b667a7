"""Loss landscape of a source: each image's loss, and its gradient through transforms."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..utils.devices import arithmetic
from .losses import loss_of_each
from .parts import Problem
from .settings import Settings
from .source import Model


@dataclass
class Landscape:
    """Loss that an attack maximises, as a function of versions (K, N, 3, H, W) of its images."""

    problem: Problem
    settings: Settings

    @cached_property
    def _prepared(self) -> Any:
        self.problem.random.scratch.clear()
        self.problem.source.draw(self.problem.random, 1)
        prepare = getattr(self.settings.objective, "prepare", lambda problem: None)
        return prepare(self.problem)

    def losses(self, images: Tensor, member: int | None = None) -> Tensor:
        """Return each image's loss, shape (K, N); of one ensemble member if `member` is set."""
        objective = self.settings.objective
        if objective is None:
            logits = self.problem.source.logits(images.flatten(0, 1), member)
            return self._loss(logits, len(images))
        if member is not None:
            raise ValueError(
                "attack.objective has no loss per ensemble member, which attack.estimator needs."
            )
        return objective.losses(self.problem, images, self._prepared)

    def values(self, *images: Tensor) -> list[Tensor]:
        """Return the losses of several versions, with the same random numbers and no gradients."""
        random = self.problem.random
        count, shared = random.count, random.shared.count
        self.problem.source.draw(random, len(images[0]))
        first, losses = (random.count, random.shared.count), []
        for version in images:
            random.count, random.shared.count = first
            with torch.no_grad():
                losses.append(self.losses(version))
        random.count, random.shared.count = count, shared  # losses must not change the iterates
        return losses

    def _loss(self, logits: Tensor, budgets: int) -> Tensor:
        labels, targeted = self.problem.labels, self.problem.targeted
        return loss_of_each(self.settings.loss, logits, labels, targeted, budgets)

    def gradient(self, at: Tensor, member: int | None = None, loss: str | None = None) -> Tensor:
        """Return the smoothed gradient of each image's loss, averaged over the copies."""
        if loss is not None:
            plain: Any = {"loss": loss, "objective": None, "layer": None}
            return Landscape(self.problem, replace(self.settings, **plain)).gradient(at, member)
        shared = at.stride(0) == 0 and not self.settings.per_budget  # same images for all budgets
        distinct = at[:1] if shared else at
        copies = math.prod(transform.copies for transform in self.settings.transforms)
        if self.settings.objective is not None:
            _ = self._prepared  # draws before the first step
        total = torch.zeros_like(distinct)
        self.problem.random.scratch.clear()
        if self.settings.copies_average == "logits":
            total = self._gradient(distinct, range(copies), member) * copies
        else:
            for copy in range(copies):
                total = total + self._gradient(distinct, [copy], member)
        return smooth(total / copies, self.settings.kernel_size).expand_as(at)

    def _gradient(self, images: Tensor, copies: Sequence[int], member: int | None) -> Tensor:
        """Return the gradient of one copy's loss, or of the loss of several copies' mean logits."""
        source = self.problem.source
        source.draw(self.problem.random, len(images))
        with torch.enable_grad():
            variable = images.detach().requires_grad_()
            versions = [self._transform(variable, copy, member) for copy in copies]
            if len(versions) == 1:
                losses = self.losses(versions[0], member)
            else:
                logits = [source.logits(version.flatten(0, 1), member) for version in versions]
                losses = self._loss(torch.stack(logits).mean(dim=0), len(images))
            self.problem.random.scratch["losses"] = losses.detach()
            # Summed, not averaged: an image's gradient must not depend on its batch.
            (gradient,) = torch.autograd.grad(losses.sum(), variable)
        # A transform may have no derivative.
        return source.cleaned(gradient.flatten(0, 1)).view_as(gradient)

    def _transform(self, images: Tensor, copy: int, member: int | None) -> Tensor:
        random = self.problem.random
        for transform in self.settings.transforms:
            copy, number = divmod(copy, transform.copies)
            if adapt := getattr(transform, "adapt", None):
                adapt(images.detach(), random, number, lambda version: self.losses(version, member))
            images = transform(images, random, number)
        return images


def smooth(gradient: Tensor, size: int) -> Tensor:
    """Convolve each channel (..., H, W) with a Gaussian of `size` x `size` pixels that sums to 1.

    The Gaussian spans three standard deviations to either side. Gradients beyond the border count
    as 0. `size` is odd; 0 or 1 returns the gradient unchanged.

    Reference: Dong et al. (2019), arXiv 1904.02884. The standard deviation is that of the authors'
    code, (size - 1) / 6.
    """
    if size < 2:
        return gradient
    line = torch.linspace(-3, 3, size, dtype=gradient.dtype, device=gradient.device)
    bell = (-line.square() / 2).exp()
    bell = bell / bell.sum()
    flat = gradient.reshape(-1, 1, *gradient.shape[-2:])
    with arithmetic(gradient.device.type, "32-true"):  # half precision loses small values
        rows = functional.conv2d(flat, bell.reshape(1, 1, size, 1), padding=(size // 2, 0))
        both = functional.conv2d(rows, bell.reshape(1, 1, 1, size), padding=(0, size // 2))
    return both.reshape(gradient.shape)


@contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Put a module into evaluation mode, and restore the mode of each part afterwards."""
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
