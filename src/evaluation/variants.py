"""The forms in which targets are shown adversarial images: storage, and controls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from src.attacks import noise_signs, project
from src.data import Batch
from src.sets import jpeg_round_trip, parse_storage, png_round_trip, round_to_8_bits

CONTROLS = ("noise", "shuffled")
STORED = "stored"


@dataclass(frozen=True)
class Shown:
    """What a form is made of.

    Attributes:
        clean: float32 (N, 3, H, W) in [0, 1].
        made: Their adversarial versions of one budget, of the same shape and range.
        batch: The batch, with the clean images in 8 bits.
        eps_255: The budget in units of 1/255.
        norm: Of the budget.
    """

    clean: Tensor
    made: Tensor
    batch: Batch
    eps_255: float
    norm: str

    @property
    def eps(self) -> Tensor:
        """The budget in [0, 1] units."""
        return self.clean.new_tensor(self.eps_255 / 255)


Variant = Callable[[Shown], Tensor]


@dataclass(frozen=True)
class Variants:
    """Which forms the targets are shown.

    Args:
        headline: `float32`; `uint8`: rounded inside the ball; or `stored`: as a file holds them.
        also: More of those, `png`, or `jpegQ` of a quality Q.
        controls: Whether to show random-sign noise, and each image with the perturbation of
            another one; both in the headline's storage.
        partners: With `controls`, by image index the image whose perturbation it gets, which
            must be in the same batch.
        seed: Of the noise.
    """

    headline: str = "float32"
    also: Sequence[str] = ()
    controls: bool = False
    partners: Mapping[int, int] | None = None
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Return all forms, the headline first."""
        others = [name for name in self.also if name != self.headline]
        return (self.headline, *others, *(CONTROLS if self.controls else ()))

    def show(self, name: str, shown: Shown) -> Tensor:
        """Return the images of one form, float32 (N, 3, H, W) in [0, 1]."""
        storage = "uint8" if self.headline == STORED else self.headline
        if name == "noise":
            return _kept(self._noise(shown), storage, shown)
        if name == "shuffled":
            return _kept(self._shuffled(shown), storage, shown)
        return shown.made if name == STORED else _kept(shown.made, name, shown)

    def _noise(self, shown: Shown) -> Tensor:
        clean = shown.clean
        signs = noise_signs(self.seed, shown.batch.index, clean)
        return project(clean + shown.eps * signs, clean, shown.eps, shown.norm)

    def _shuffled(self, shown: Shown) -> Tensor:
        assert self.partners is not None
        clean = shown.clean
        numbers = shown.batch.index.tolist()
        place = {number: position for position, number in enumerate(numbers)}
        order = torch.tensor(
            [place[self.partners[number]] for number in numbers], device=clean.device
        )
        change = (shown.made - clean)[order]
        return project(clean + change, clean, shown.eps, shown.norm)


def _kept(images: Tensor, storage: str, shown: Shown) -> Tensor:
    """Return images as they come back from a storage."""
    kind, quality = parse_storage(storage)
    if kind == "float32":
        return images
    levels = round_to_8_bits(images, shown.batch.images, shown.eps_255, shown.norm)
    if kind == "png":
        levels = png_round_trip(levels)
    if quality is not None:
        levels = jpeg_round_trip(levels, quality)
    return levels.to(images.dtype) / 255
