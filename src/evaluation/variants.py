"""Variants of adversarial images that targets are evaluated on: storage formats and controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.attacks import noise_signs, project
from src.data import Batch
from src.evaluation.storage import round_to_8_bits, round_trip

CONTROLS = ("noise", "shuffled")
STORED = "stored"


@dataclass(frozen=True)
class Attacked:
    """A batch and its adversarial images of one budget.

    Attributes:
        clean: float32 (N, 3, H, W) in [0, 1].
        adversarial: Of the same shape and range.
        batch: The batch, with the clean images in 8 bits.
        eps_255: The budget in units of 1/255.
        norm: Of the budget.
    """

    clean: Tensor
    adversarial: Tensor
    batch: Batch
    eps_255: float
    norm: str

    @property
    def eps(self) -> Tensor:
        """The budget in [0, 1] units."""
        return self.clean.new_tensor(self.eps_255 / 255)

    def projected(self, images: Tensor) -> Tensor:
        """Return images projected to the ball and to [0, 1]."""
        return project(images, self.clean, self.eps, self.norm)


@dataclass(frozen=True)
class Variants:
    """Which variants the targets are evaluated on.

    Args:
        primary: `float32`; `uint8`: rounded inside the ball; or `stored`: as a file holds them.
        others: More of those, `png`, or `jpegQ` of a quality Q.
        controls: Whether targets are evaluated on random-sign noise, and on each image with the
            perturbation of another one; both in the storage of the primary variant.
        partners: With `controls`, by image index the image whose perturbation it gets, which
            must be in the same batch.
        seed: Of the noise.
    """

    primary: str = "float32"
    others: Sequence[str] = ()
    controls: bool = False
    partners: Mapping[int, int] | None = None
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Return all variants, the primary one first."""
        others = [name for name in self.others if name != self.primary]
        return (self.primary, *others, *(CONTROLS if self.controls else ()))

    def make(self, name: str, attacked: Attacked) -> Tensor:
        """Return the images of one variant, float32 (N, 3, H, W) in [0, 1]."""
        if name == STORED:
            return attacked.adversarial
        if name not in CONTROLS:
            return _stored_as(name, attacked.adversarial, attacked)
        control = self._noise(attacked) if name == "noise" else self._shuffled(attacked)
        return _stored_as("uint8" if self.primary == STORED else self.primary, control, attacked)

    def _noise(self, attacked: Attacked) -> Tensor:
        clean = attacked.clean
        signs = noise_signs(self.seed, attacked.batch.index, clean)
        return attacked.projected(clean + attacked.eps * signs)

    def _shuffled(self, attacked: Attacked) -> Tensor:
        assert self.partners is not None
        numbers = attacked.batch.index.tolist()
        place = {number: position for position, number in enumerate(numbers)}
        change = attacked.adversarial - attacked.clean
        order = torch.tensor(
            [place[self.partners[number]] for number in numbers], device=change.device
        )
        return attacked.projected(attacked.clean + change[order])


def _stored_as(storage: str, images: Tensor, attacked: Attacked) -> Tensor:
    """Return images as they come back from a storage format."""
    if storage == "float32":
        return images
    levels = round_to_8_bits(images, attacked.batch.images, attacked.eps_255, attacked.norm)
    return round_trip(levels, storage).to(images.dtype) / 255
