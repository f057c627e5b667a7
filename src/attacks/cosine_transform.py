"""Changes along both axes as products of matrices: the discrete cosine transform, resizing."""

from functools import lru_cache

import torch
from torch import Tensor


def along_axes(rows: Tensor, images: Tensor, columns: Tensor) -> Tensor:
    """Return R x C^T over the last two axes; autocasting does not lower its precision."""
    with torch.autocast(images.device.type, enabled=False):
        return rows @ images @ columns.mT


def dct2(images: Tensor) -> Tensor:
    """Return the orthonormal two-dimensional DCT-II over the last two axes: C_H x C_W^T."""
    rows, columns = (dct_matrix(side, images.dtype, images.device) for side in images.shape[-2:])
    return along_axes(rows, images, columns)


def idct2(spectra: Tensor) -> Tensor:
    """Return the images, shape (..., H, W), whose `dct2` is `spectra`: C_H^T s C_W."""
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
    """Return matrices (..., P, length) that resize lines from `old` pixels at `start` to `new`."""
    if nearest:
        inner = (places * old / new).floor()
    else:
        inner = ((places + 0.5) * old / new - 0.5).clamp_min(0).minimum(torch.as_tensor(old - 1))
    pixels = torch.arange(length, device=places.device)
    return (1 - ((start + inner)[..., None] - pixels).abs()).clamp_min(0)


@lru_cache(maxsize=256)  # random blocks come in many sizes
def dct_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the orthonormal DCT-II matrix, shape (size, size); do not write into it.

    C[k, n] = sqrt((1 if k = 0 else 2) / size) * cos(pi * (2 n + 1) * k / (2 size)).
    """
    index = torch.arange(size, dtype=torch.float64)
    # The angle is reduced to one turn in whole numbers, exactly, before the cosine.
    turns = ((2 * index[None, :] + 1) * index[:, None]) % (4 * size)
    matrix = (turns * (torch.pi / (2 * size))).cos() * (2 / size) ** 0.5
    matrix[0] /= 2**0.5
    return matrix.to(device, dtype)
