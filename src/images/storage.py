"""Rounding of adversarial images to the 256 grey levels of image files."""

import math

import torch
from torch import Tensor

TOLERANCE_255 = 1e-4
"""Float rounding error of integer budgets, in grey levels."""
_AXES = (-3, -2, -1)


def round_to_8_bits(
    adversarial: Tensor, clean: Tensor, eps_255: float, norm: str = "linf"
) -> Tensor:
    """Return the nearest grey levels that keep the budget, uint8 (N, 3, H, W).

    For L-infinity these are the levels at most floor(eps_255) from the clean ones, so a budget
    below 1 gives the clean images back. For L2, an image outside the ball is first scaled onto it;
    where the nearest levels still exceed the budget, changes are rounded toward zero instead.

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
    """Return how much stored images differ from clean ones, float64 (..., N), in units of 1/255.

    Both are uint8, `stored` of shape (..., N, 3, H, W), to which `clean` broadcasts. The size is
    the largest change for the norm `linf`, the root mean square for `l2`.
    """
    change = stored.to(torch.int16) - clean.to(torch.int16)
    if norm == "linf":
        return change.abs().amax(dim=_AXES).to(torch.float64)
    squares = change.to(torch.int32).square().sum(dim=_AXES, dtype=torch.int64)
    return (squares.to(torch.float64) / math.prod(change.shape[-3:])).sqrt()


def exceeds(size: Tensor, eps_255: float, norm: str) -> Tensor:
    """Return a mask of the sizes of changes, see `change_size`, that are beyond a budget."""
    largest = eps_255 + TOLERANCE_255
    return size > (math.floor(largest) if norm == "linf" else largest)
