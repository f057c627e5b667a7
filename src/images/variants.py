"""Variants of adversarial images that targets are evaluated on: storage formats and controls."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.attacks import noise_signs, project
from src.config.settings import CONTROLS
from src.data import Batch
from src.images.storage import round_to_8_bits

STORED = "stored"


@dataclass(frozen=True)
class AttackedBatch:
    """A batch and its adversarial images of one budget, in units of 1/255.

    Images are float32 (N, 3, H, W) in [0, 1]; `batch` holds the clean ones in 8 bits.
    """

    clean: Tensor
    adversarial: Tensor
    batch: Batch
    eps_255: float
    norm: str

    def rounded(self, images: Tensor) -> Tensor:
        """Return the nearest grey levels of images inside the ball, uint8 (N, 3, H, W)."""
        return round_to_8_bits(images, self.batch.images, self.eps_255, self.norm)


@dataclass(frozen=True)
class Variants:
    """Variants of the adversarial images that targets are evaluated on.

    Args:
        primary: `float32`; `uint8`: rounded inside the ball; or `stored`: as a file holds them.
        others: More of those.
        controls: Add random-sign noise, drawn by `seed`, and each image with the perturbation of
            another one of its batch; both in the storage of the primary variant.
        wanted: Names of those that are evaluated; None: all.
    """

    primary: str = "float32"
    others: Sequence[str] = ()
    controls: bool = False
    seed: int = 0
    wanted: Collection[str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the variants that are evaluated, the primary one first."""
        others = [name for name in self.others if name != self.primary]
        names = (self.primary, *others, *(CONTROLS if self.controls else ()))
        return tuple(name for name in names if self.wanted is None or name in self.wanted)

    def make(self, name: str, attacked: AttackedBatch) -> Tensor:
        """Return the images of one variant, float32 (N, 3, H, W) in [0, 1]."""
        images, storage = attacked.adversarial, name
        if name in CONTROLS:
            clean, eps = attacked.clean, attacked.clean.new_tensor(attacked.eps_255 / 255)
            if name == "noise":
                change = eps * noise_signs(self.seed, attacked.batch.index, clean)
            else:
                change = _shuffle(attacked)
            images = project(clean + change, clean, eps, attacked.norm)
            storage = "uint8" if self.primary == STORED else self.primary
        if storage in ("float32", STORED):
            return images
        return attacked.rounded(images).to(images.dtype) / 255


UNROUNDED = Variants()
"""Adversarial images unrounded, as the only variant."""


def _shuffle(attacked: AttackedBatch) -> Tensor:
    """Return the perturbations swapped within pairs, or in a cycle of the last three images."""
    order = torch.arange(len(attacked.clean)) ^ 1
    if len(order) % 2:
        order[-3:] = torch.tensor([len(order) - 2, len(order) - 1, len(order) - 3])
    change = attacked.adversarial - attacked.clean
    return change[order.to(change.device)]
