"""Linear maps along both axes as matrix products: the discrete cosine transform, resizing."""

from functools import lru_cache

import torch
from torch import Tensor

from ..utils.devices import arithmetic


def along_axes(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """Compute R x C^T over the last two axes, in float32 with whole mantissas."""
    with arithmetic(images.device.type, "32-true"):
        return rows @ images @ columns.mT


def dct2(images: Tensor) -> Tensor:
    """Compute the orthonormal two-dimensional DCT-II over the last two axes: C_H x C_W^T."""
    rows, columns = (dct_matrix(side, images.dtype, images.device) for side in images.shape[-2:])
    return along_axes(rows, images, columns)


def idct2(spectra: Tensor) -> Tensor:
    """Compute the inverse of `dct2`: C_H^T s C_W, shape (..., H, W)."""
    rows, columns = (dct_matrix(side, spectra.dtype, spectra.device) for side in spectra.shape[-2:])
    return along_axes(rows.mT, spectra, columns.mT)


def resizing(
    places: Tensor,
    old: Tensor | int,
    new: Tensor | int,
    length: int,
    start: Tensor | int = 0,
    nearest: bool = False,
) -> Tensor:
    """Return matrices (..., P, length) that resize `old` pixels from `start` on to `new` pixels."""
    if nearest:
        inner = (places * old / new).floor()
    else:
        inner = ((places + 0.5) * old / new - 0.5).clamp_min(0).minimum(torch.as_tensor(old - 1))
    pixels = torch.arange(length, device=places.device)
    return (1 - ((start + inner)[..., None] - pixels).abs()).clamp_min(0)


@lru_cache(maxsize=256)  # random blocks come in many sizes
@torch.inference_mode(False)  # later calls may need its gradient
def dct_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the orthonormal DCT-II matrix, shape (size, size); it is cached, so do not modify it.

    C[k, n] = sqrt((1 if k = 0 else 2) / size) * cos(pi * (2 n + 1) * k / (2 size)).
    """
    index = torch.arange(size, dtype=torch.float64)
    # Reduce the angle to one turn in whole numbers, which is exact.
    turns = ((2 * index[None, :] + 1) * index[:, None]) % (4 * size)
    matrix = (turns * (torch.pi / (2 * size))).cos() * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.to(device, dtype)
