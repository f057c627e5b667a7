import math
from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor

from src.attacks.cosine_transform import along_axes, resizing
from src.attacks.define import attack
from src.attacks.per_image_random import PerImageRandom
from src.utils.checked_dataclass import Share, checked

Rate = Annotated[float, Ge(1), Le(4)]


@checked
class DiverseInput:
    """With some probability, enlarge the image a little and pad it with zeros.

    For images of side H and with L = floor(H * resize_rate), the image is resized to a side r
    drawn from H, ..., L - 1 and placed on a black square of side L, with its corner at an offset
    drawn from 0, ..., L - r - 1 on each axis. The result is resized back to H. Images too small for
    L > H stay unchanged. Images that are not square are square in between.

    Args:
        probability: Probability that an image is changed; 0 leaves every bit unchanged.
        resize_rate: Largest side, as a multiple of the image's side.
        nearest: Resize to the nearest pixel; False: bilinearly.

    Reference: Xie et al. (2019), arXiv 1803.06978, sections 3.3 and 4.1 (there p = 0.5 and 299
    pixels become 330, hence 1.1, which makes 328 of 299).

    Deviation: black borders, bilinear resizing, back to H (authors: grey borders, nearest pixel,
    padded size; TransferAttack: as here).
    """

    probability: Share = 0.5
    resize_rate: Rate = 1.1
    nearest: bool = False
    copies: ClassVar[int] = 1

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        size = images.shape[-1]
        largest = math.floor(size * self.resize_rate + 1e-6)  # 100 * 1.15 is 114.99...
        if largest <= size or self.probability == 0:
            return images
        changed = random.uniform()[:, None, None, None] < self.probability
        sides = random.integers(size, largest)[:, None]
        offsets = (random.uniform(2).double() * (largest - sides)).floor().split(1, dim=1)
        rows, columns = (
            self._resized_and_padded(length, sides, offset, largest).to(images.dtype)
            for length, offset in zip(images.shape[-2:], offsets, strict=True)
        )
        return torch.where(changed, along_axes(rows, images, columns), images)

    def _resized_and_padded(
        self, length: int, sides: Tensor, offsets: Tensor, largest: int
    ) -> Tensor:
        """Return matrices (N, 1, length, length) that resize to `sides`, pad and resize back."""
        places = torch.arange(largest, device=sides.device) - offsets
        inside = ((places >= 0) & (places < sides))[..., None]
        padded = resizing(places, length, sides, length, nearest=self.nearest) * inside
        return (_shrinking(largest, length, sides.device, self.nearest) @ padded)[:, None]


@lru_cache
def _shrinking(largest: int, length: int, device: torch.device, nearest: bool) -> Tensor:
    places = torch.arange(length, dtype=torch.float64, device=device)
    return resizing(places, largest, length, largest, nearest=nearest)


@checked
class DiverseSizes:
    """Resize and pad every copy as `DiverseInput` does, each with its own resize rate.

    Args:
        copies: Number of evenly spaced resize rates; a single one is `lowest_rate`.
        lowest_rate: Resize rate of the first copy.
        highest_rate: Resize rate of the last copy.

    Reference: Zou et al. (2020), arXiv 2112.06011, with the constants of TransferAttack (rates
    1.14, 1.27, 1.40, 1.53 and 1.66).
    """

    copies: PositiveInt = 5
    lowest_rate: Rate = 1.14
    highest_rate: Rate = 1.66

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        ends = self.lowest_rate, self.highest_rate
        rate = torch.linspace(*ends, self.copies, dtype=torch.float64)[copy].item()
        return DiverseInput(1.0, rate)(images, random, copy)


@attack(transform=DiverseInput, decay=1.0)
def di() -> None:
    """Resize and pad at random: momentum, steps of eps / 10 (authors: none, steps of 1/255)."""


@attack(transform=DiverseInput, decay=1.0, probability=0.7, kernel_size=15, paper="1904.02884")
def mi_di_ti() -> None:
    """Combine `di` with `ti`: TI-DIM, Dong et al. 2019."""


@attack(transform=DiverseSizes, decay=1.0, relative_step_size=1.0, copies_average="logits")
def dem() -> None:
    """Average the logits of five resized copies, steps of eps: diversity ensemble."""
