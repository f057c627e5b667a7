"""What an image file can hold of an adversarial image: 256 grey levels, exactly or through JPEG."""

import io
import math
import re
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.attacks.projection import NORMS
from src.data import to_rgb
from src.utils.checks import check_choice

DUST = 1e-4
"""Grey levels by which a budget may miss a whole number only because it was kept as a float."""
_AXES = (-3, -2, -1)
_JPEG = re.compile(r"jpeg([1-9][0-9]?|100)")


class StorageFormat(NamedTuple):
    """How adversarial images are kept before a target sees them.

    Attributes:
        kind: `float32`, `uint8`, `png` or `jpeg`.
        quality: of a JPEG, 1..100.
    """

    kind: str
    quality: int | None = None


def parse_storage(text: str) -> StorageFormat:
    """Read the name of a stored form: `float32`, `uint8`, `png`, or `jpeg` with its quality.

    >>> parse_storage("jpeg75")
    StorageFormat(kind='jpeg', quality=75)

    Raises:
        ValueError: It is none of these.
    """
    if text in ("float32", "uint8", "png"):
        return StorageFormat(text)
    match = _JPEG.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f"The stored form {text!r} is not one of float32, uint8, png, and jpeg1 to jpeg100 "
            f"(the number is the quality, as in jpeg75)."
        )
    return StorageFormat("jpeg", int(match[1]))


def round_to_8_bits(
    adversarial: Tensor, images: Tensor, eps_255: float | Tensor, norm: str = "linf"
) -> Tensor:
    """Return the nearest grey levels that keep the budget.

    For L-infinity these are the levels at most floor(eps_255) from the clean ones, so a budget
    below 1 gives the clean images back. For L2, what lies outside the ball is first brought onto
    it; an image whose nearest levels still change it by more than a root mean square of eps_255
    has its changes rounded toward zero instead, which only shrinks them.

    Args:
        adversarial: Floats in [0, 1], shape (..., N, 3, H, W).
        images: Clean images, uint8 (N, 3, H, W).
        eps_255: One budget in 1/255, or a tensor of them that broadcasts to the adversarial
            images, its last three axes of length 1: (K, 1, 1, 1, 1) for K budgets.
        norm: `linf` or `l2`.

    Returns:
        uint8 of the adversarial images' shape.

    Raises:
        ValueError: A type, a budget or the norm is wrong, or a value is not finite.
    """
    check_choice("norm", norm, NORMS)
    _check_bytes("images", images)
    if not adversarial.is_floating_point() or not bool(adversarial.isfinite().all()):
        raise ValueError("adversarial must hold finite floats in [0, 1].")
    dtype = torch.promote_types(adversarial.dtype, torch.float32)
    levels = (adversarial.to(dtype) * 255).clamp(0, 255)
    clean = images.to(dtype)
    budget = _as_budgets(eps_255, levels)
    if norm == "linf":
        radius = _whole(budget).to(dtype)
        lower, upper = (clean - radius).clamp_min(0), (clean + radius).clamp_max(255)
        return levels.round().clamp(lower, upper).to(torch.uint8)
    change = levels - clean
    size = torch.linalg.vector_norm(change, dim=_AXES, keepdim=True, dtype=torch.float64)
    size = size / math.sqrt(math.prod(images.shape[-3:]))
    change = change * (budget / size.clamp_min(DUST)).clamp_max(1).to(dtype)
    nearest = (clean + change).round().to(torch.uint8)
    smaller = (clean + change.trunc()).to(torch.uint8)
    return torch.where(
        exceeds(nearest, images, budget, norm)[..., None, None, None], smaller, nearest
    )


def exceeds(stored: Tensor, clean: Tensor, eps_255: float | Tensor, norm: str = "linf") -> Tensor:
    """Tell which stored images break their budget.

    Args:
        stored: uint8 (..., N, 3, H, W).
        clean: uint8 of a shape that broadcasts to it.
        eps_255: As for `round_to_8_bits`.
        norm: `linf` (in whole numbers) or `l2` (the root mean square of the change, in float64).

    Returns:
        bool (..., N).

    Raises:
        ValueError: A type, a budget or the norm is wrong.
    """
    check_choice("norm", norm, NORMS)
    _check_bytes("stored", stored)
    _check_bytes("clean", clean)
    budget = _as_budgets(eps_255, stored)
    return breaks(sizes(stored, clean, norm), budget[..., 0, 0, 0] if budget.ndim else budget, norm)


def breaks(size: Tensor, eps_255: float | Tensor, norm: str) -> Tensor:
    """Tell which sizes of changes of 8-bit images are too large for a budget."""
    budget = torch.as_tensor(eps_255, dtype=torch.float64, device=size.device)
    return size > (_whole(budget) if norm == "linf" else budget + DUST)


def sizes(stored: Tensor, clean: Tensor, norm: str) -> Tensor:
    """Measure by how much stored images differ from the clean ones.

    Args:
        stored: uint8 (..., N, 3, H, W).
        clean: uint8 of a shape that broadcasts to it.
        norm: `linf` or `l2` (the root mean square).

    Returns:
        float64 (..., N), in 1/255.
    """
    change = stored.to(torch.int16) - clean.to(torch.int16)
    if norm == "linf":
        return change.abs().amax(dim=_AXES).to(torch.float64)
    squares = change.to(torch.int32).square().sum(dim=_AXES, dtype=torch.int64)
    return (squares.to(torch.float64) / math.prod(change.shape[-3:])).sqrt()


def check_budget(
    stored: Tensor, clean: Tensor, eps_255: float, norm: str, index: np.ndarray | Tensor
) -> None:
    """Refuse stored images that break their budget.

    Args:
        stored: uint8 (N, 3, H, W).
        clean: uint8 (N, 3, H, W).
        eps_255: The budget in 1/255.
        norm: `linf` or `l2`.
        index: What to call the images in the message, (N,).

    Raises:
        ValueError: An image breaks the budget; it names the first one.
    """
    broken = exceeds(stored, clean, eps_255, norm)
    if bool(broken.any()):
        first = int(index[int(broken.nonzero()[0, 0])])
        raise ValueError(
            f"{int(broken.sum())} stored images change by more than eps_255={eps_255:g} in the "
            f"{norm} norm, the first of them image {first}."
        )


def png_round_trip(images: Tensor) -> Tensor:
    """Return uint8 (N, 3, H, W) images as they come back from PNG files: unchanged."""
    return _round_trip(images, format="PNG", compress_level=1)


def jpeg_round_trip(images: Tensor, quality: int) -> Tensor:
    """Return uint8 (N, 3, H, W) images as they come back from JPEG files.

    Pillow's default halves the resolution of the colours (4:2:0) at every quality.

    Raises:
        ValueError: The quality is not a whole number in 1..100.
    """
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"quality must be a whole number in 1..100, not {quality}.")
    return _round_trip(images, format="JPEG", quality=quality)


def _round_trip(images: Tensor, **options: Any) -> Tensor:
    _check_bytes("images", images)
    back = np.empty(tuple(images.shape), dtype=np.uint8)
    for place, image in zip(back, images.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(image)).save(file, **options)
        place[:] = to_rgb(file).transpose(2, 0, 1)
    return torch.from_numpy(back).to(images.device)


def _check_bytes(what: str, images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim < 4:
        raise ValueError(
            f"{what} must be uint8 (..., N, 3, H, W), not {images.dtype} {tuple(images.shape)}."
        )


def _as_budgets(eps_255: float | Tensor, images: Tensor) -> Tensor:
    """Return budgets as float64 of shape () or (..., 1, 1, 1): others would meet the pixels."""
    budget = torch.as_tensor(eps_255, dtype=torch.float64, device=images.device)
    if budget.ndim and tuple(budget.shape[-3:]) != (1, 1, 1):
        raise ValueError(
            f"eps_255 must be one number or a tensor whose last three axes have length 1, not of "
            f"shape {tuple(budget.shape)}."
        )
    if not bool(((budget >= 0) & budget.isfinite()).all()):
        raise ValueError(f"eps_255 must be finite and at least 0, not {eps_255}.")
    return budget


def _whole(budget: Tensor) -> Tensor:
    """Return the whole grey levels that a budget allows."""
    return (budget + DUST).floor()
