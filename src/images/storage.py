"""Adversarial images in the formats that files store, and controls made without an attack."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks import noise_signs, project, shuffle_pixels
from ..data import Batch

COST = ("gradients", "zero_gradients", "forwards", "budgets", "not_finite", "clipped")
"""Counts per image in one call of the attack, for all budgets of the call: gradients, those that
were zero in every pixel, forward passes, budgets; 1 if a gradient had NaN or infinity; and, for
each budget, by how much clipping to it moved a pixel of the attack's image, at most, in 1/255."""

AS_SAVED = "stored"
"""Variant of images from a saved set, evaluated as they are stored."""

TOLERANCE_255 = 1e-4
"""Tolerance for float rounding of integer budgets, in grey levels."""
_AXES = (-3, -2, -1)


@dataclass(frozen=True)
class AdversarialBatch:
    """Adversarial images of a batch, float32 (K, N, 3, H, W) in [0, 1].

    Attributes:
        budgets: The K budgets, in units of 1/255.
        target_labels: int64 (N,); None for an untargeted attack.
        cost: Values of `COST` per budget and image, float64 (6, K, N), NaN for images that were not
            crafted now; None: a saved set.
    """

    images: Tensor
    budgets: tuple[float, ...]
    target_labels: Tensor | None = None
    cost: Tensor | None = None

    def select(self, rows: Tensor) -> "AdversarialBatch":
        """Return the batch of the images in `rows`."""
        labels = None if self.target_labels is None else self.target_labels[rows]
        cost = None if self.cost is None else self.cost[:, :, rows.cpu()]
        return AdversarialBatch(self.images[:, rows], self.budgets, labels, cost)

    def cost_of(self, eps_255: float) -> Tensor:
        """Return the cost of the images at a budget, float64 (6, N); see `cost`."""
        assert self.cost is not None
        return self.cost[:, self.budgets.index(eps_255)]


@dataclass(frozen=True)
class AttackedImages:
    """A batch and its adversarial images at one budget, in units of 1/255.

    Images are float32 (N, 3, H, W) in [0, 1]; `batch` holds the clean ones in 8 bits.
    """

    clean: Tensor
    adversarial: Tensor
    batch: Batch
    eps_255: float
    norm: str

    def as_stored(self, storage: str, images: Tensor | None = None) -> Tensor:
        """Return the images, or other ones inside the balls, in a storage format.

        The formats are `float32`; `uint8`, rounded inside the ball; and `AS_SAVED`.
        """
        images = self.adversarial if images is None else images
        return self.rounded(images).to(images.dtype) / 255 if storage == "uint8" else images

    def rounded(self, images: Tensor) -> Tensor:
        """Round images to the nearest grey levels inside the ball, uint8 (N, 3, H, W)."""
        return round_to_8_bits(images, self.batch.images, self.eps_255, self.norm)

    def control(self, name: str, storage: str, seed: int, rows: Tensor | None = None) -> Tensor:
        """Return control images of the same budget, made without an attack, in a storage format.

        `noise` adds random-sign noise drawn with the seed. `shuffled` adds the perturbations of
        other `rows` of the batch or, without rows, the images' own with shuffled pixels.
        """
        eps = self.clean.new_tensor(self.eps_255 / 255)
        if name == "noise":
            change = eps * noise_signs(seed, self.batch.index, self.clean)
        elif rows is None:
            change = shuffle_pixels(seed, self.batch.index, self.adversarial - self.clean)
        else:
            change = (self.adversarial - self.clean)[rows.to(self.clean.device)]
        images = project(self.clean + change, self.clean, eps, self.norm)
        return self.as_stored("uint8" if storage == AS_SAVED else storage, images)


def round_to_8_bits(
    adversarial: Tensor, clean: Tensor, eps_255: float, norm: str = "linf"
) -> Tensor:
    """Round images to the nearest grey levels within the budget, uint8 (N, 3, H, W).

    For L-infinity, grey levels differ from the clean ones by at most floor(eps_255), so a budget
    below 1 gives the clean images back. For L2, an image outside the ball is first scaled onto it;
    if the nearest grey levels still exceed the budget, changes are rounded towards zero instead.

    `adversarial` holds finite numbers in [0, 1], `clean` grey levels; `norm` is `linf` or `l2`.
    """
    dtype = torch.promote_types(adversarial.dtype, torch.float32)
    levels = (adversarial.to(dtype) * 255).clamp(0, 255)
    origin = clean.to(dtype)
    if norm == "linf":
        radius = math.floor(eps_255 + TOLERANCE_255)
        lower, upper = (origin - radius).clamp_min(0), (origin + radius).clamp_max(255)
        return levels.round().clamp(lower, upper).to(torch.uint8)
    change = levels - origin
    size = torch.linalg.vector_norm(change, dim=_AXES, keepdim=True, dtype=torch.float64)
    size = size / math.sqrt(math.prod(clean.shape[-3:]))
    change = change * (eps_255 / size.clamp_min(TOLERANCE_255)).clamp_max(1).to(dtype)
    nearest = (origin + change).round().to(torch.uint8)
    smaller = (origin + change.trunc()).to(torch.uint8)
    too_far = exceeds(change_size(nearest, clean, norm), eps_255, norm)
    return torch.where(too_far[..., None, None, None], smaller, nearest)


def change_size(stored: Tensor, clean: Tensor, norm: str) -> Tensor:
    """Measure how much stored images differ from clean ones, float64 (..., N), in units of 1/255.

    Both are uint8; `clean` broadcasts to `stored`, (..., N, 3, H, W). The size is the largest
    change for the norm `linf`, and the root mean square for `l2`.
    """
    change = stored.to(torch.int16) - clean.to(torch.int16)
    if norm == "linf":
        return change.abs().amax(dim=_AXES).to(torch.float64)
    squares = change.to(torch.int32).square().sum(dim=_AXES, dtype=torch.int64)
    return (squares.to(torch.float64) / math.prod(change.shape[-3:])).sqrt()


def exceeds(size: Tensor, eps_255: float, norm: str) -> Tensor:
    """Return a mask of the sizes of changes (see `change_size`) that exceed a budget."""
    largest = eps_255 + TOLERANCE_255
    return size > (math.floor(largest) if norm == "linf" else largest)
