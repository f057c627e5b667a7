"""The discrete cosine transform as a product of matrices."""

from functools import lru_cache

import torch
from torch import Tensor


def dct2(images: Tensor) -> Tensor:
    """Return the orthonormal two-dimensional DCT-II over the last two axes: C_H x C_W^T.

    Autocasting does not lower its precision.
    """
    rows, columns = (dct_matrix(side, images.dtype, images.device) for side in images.shape[-2:])
    with torch.autocast(images.device.type, enabled=False):
        return rows @ images @ columns.mT


def idct2(spectra: Tensor) -> Tensor:
    """Return the images, shape (..., H, W), whose `dct2` is `spectra`: C_H^T s C_W."""
    rows, columns = (dct_matrix(side, spectra.dtype, spectra.device) for side in spectra.shape[-2:])
    with torch.autocast(spectra.device.type, enabled=False):
        return rows.mT @ spectra @ columns


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
