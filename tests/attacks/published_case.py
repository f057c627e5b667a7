"""One image as the published rules see it, and what they share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from src.attacks import PerImageRandom

SIDE, STEPS, MU = 20, 4, 0.7

BUDGETS = (4 / 255, 16 / 255)
Image = np.ndarray
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Case:
    """One image (3, H, W), its class, its budget and its random numbers."""

    model: nn.Module
    clean: Image
    label: int
    eps: float
    random: PerImageRandom

    @property
    def alpha(self) -> float:
        return self.eps / STEPS

    def gradient(self, image: Image, change: Change = lambda x: x, model=None, logit=False):
        """Return the gradient of a changed image's cross-entropy or logit, through the change."""
        x = torch.from_numpy(image).requires_grad_()
        logits = (model or self.model)(change(x)[None])[0]
        own = logits[self.label]
        (own if logit else logits.logsumexp(0) - own).backward()
        return x.grad.numpy()

    def clip(self, moved: Image) -> Image:
        inside = np.clip(moved - self.clean, -self.eps, self.eps)
        return np.clip(self.clean + inside, 0, 1)

    def step(self, image: Image, way: Image) -> Image:
        return self.clip(image + self.alpha * np.sign(way))

    def drawn(self, kind: str, *words, **more) -> np.ndarray:
        return getattr(self.random, kind)(*words, **more)[0].numpy()


def unit(gradient: Image) -> Image:
    return gradient / np.abs(gradient).mean()


def momentum(case: Case, gradient: Callable[[Image], Image] | None = None) -> Image:
    """Divide by the L1 norm, as the paper writes: a factor that signs do not see."""
    x, m = case.clean, np.zeros_like(case.clean)
    for _ in range(STEPS):
        g = (gradient or case.gradient)(x)
        m = MU * m + g / np.abs(g).sum()
        x = case.step(x, m)
    return x


def nesterov(case: Case, gradient: Callable[[Image], Image] | None = None) -> Image:
    x, m = case.clean, np.zeros_like(case.clean)
    for _ in range(STEPS):
        m = MU * m + unit((gradient or case.gradient)(x + case.alpha * MU * m))
        x = case.step(x, m)
    return x


def decaying(case: Case) -> Image:
    delta, m, d = np.zeros_like(case.clean), 0.0, np.ones_like(case.clean)
    for _ in range(STEPS):
        m = MU * m + unit(case.gradient(case.clean + delta))
        d = np.minimum(d, 1.8 / np.abs(m))
        delta = (delta + case.alpha * d * m) / np.sqrt(d)
        delta = case.clip(case.clean + delta) - case.clean
    return case.clean + delta
