"""JPEG compression, with a smooth gradient."""

from io import BytesIO
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor
from torch.nn import functional

from ..attacks.cosine_transform import along_axes, dct2, idct2, resizing
from ..utils.checked_dataclass import checked
from ..utils.devices import arithmetic, constant
from .feature_squeezing import TEMPERATURE, soft_round

_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@checked
class Jpeg:
    """JPEG compression after rounding to 8 bits, with colours at half the resolution (4:2:0).

    Pillow encodes and decodes the images. Their gradient is that of `approximate`.

    Args:
        quality: Quality from 1 to 100, on libjpeg's scale.
        offset: Pixels by which the grid of blocks is moved, 0 to 15: the image is padded above and
            at its left with its border, and cut out again. An image that was stored as JPEG hardly
            changes on its own grid (0), and small perturbations are undone there.
        temperature: Temperature of the gradient's staircase, see `soft_round`.

    Reference: Guo et al. (2018), arXiv 1711.00117, section 3.
    """

    quality: Annotated[int, Ge(1), Le(100)] = 75
    offset: Annotated[int, Ge(0), Le(15)] = 0  # colours at half the resolution: blocks of 16
    temperature: Annotated[float, Gt(0)] = TEMPERATURE

    def __call__(self, images: Tensor) -> Tensor:
        moved = self._moved(images)
        levels = (moved.detach() * 255).round().to(torch.uint8)
        files = [self._compress(image) for image in levels.permute(0, 2, 3, 1).cpu().numpy()]
        decoded = torch.from_numpy(np.stack([np.asarray(file) for file in files]))
        decoded = decoded.to(images.device).to(images.dtype).permute(0, 3, 1, 2) / 255
        decoded = decoded[..., self.offset :, self.offset :]
        if not images.requires_grad:
            return decoded
        soft = self.approximate(images)
        return decoded + (soft - soft.detach())  # adds 0, with the gradient

    def approximate(self, images: Tensor) -> Tensor:
        """Approximate JPEG for images (N, 3, H, W), with a smooth staircase instead of rounding.

        Tables, colour conversion and both resampling steps are libjpeg's. Colours and pixels are
        not rounded.

        Reference: Reich et al. (2024), arXiv 2309.06978.
        """
        images = self._moved(images)
        height, width = images.shape[-2:]
        tables = self._compress(np.zeros((8, 8, 3), np.uint8)).quantization  # brightness, colours
        with arithmetic(images.device.type, "32-true"):  # steps are finer than bfloat16
            padded = _extend(images * 255, dim=-1, after=-width % 16)
            padded = _extend(padded, dim=-2, after=height % 2)
            planes = _mix_channels(padded, _TO_YCBCR)
            luma = self._quantise(planes[:, :1] - 128, tables[0]) + 128
            chroma = self._quantise(functional.avg_pool2d(planes[:, 1:], 2), tables[1])
            chroma = chroma[..., : (width + 1) // 2]
            rows, columns = (_doubling(side, chroma) for side in chroma.shape[-2:])
            chroma = along_axes(rows, chroma, columns)
            planes = torch.cat([plane[..., :height, :width] for plane in (luma, chroma)], dim=1)
            approximate = (_mix_channels(planes, _TO_RGB) / 255).clamp(0, 1)
            return approximate[..., self.offset :, self.offset :]

    def _moved(self, images: Tensor) -> Tensor:
        """Return images with `offset` more rows above and columns at the left."""
        return _extend(_extend(images, dim=-1, before=self.offset), dim=-2, before=self.offset)

    def _compress(self, image: np.ndarray) -> JpegImageFile:
        """Compress an image, uint8 (H, W, 3), and return it as an open file."""
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=self.quality)
        file.seek(0)
        return JpegImageFile(file)

    def _quantise(self, planes: Tensor, table: list[int]) -> Tensor:
        """Quantise the cosine transform of planes (N, C, H, W) in blocks of 8 x 8 values."""
        height = planes.shape[-2]
        padded = _extend(planes, dim=-2, after=-height % 8)
        blocks = padded.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
        steps = constant(tuple(table), planes.dtype, planes.device).reshape(8, 8)
        coefficients = soft_round(dct2(blocks) / steps, self.temperature) * steps
        decoded = idct2(coefficients).transpose(-3, -2)
        return decoded.flatten(-2).flatten(-3, -2)[..., :height, :]


def _extend(images: Tensor, dim: int, before: int = 0, after: int = 0) -> Tensor:
    """Repeat the first and last line along an axis."""
    first, last = images.narrow(dim, 0, 1), images.narrow(dim, -1, 1)
    return torch.cat([*[first] * before, images, *[last] * after], dim)


def _doubling(side: int, planes: Tensor) -> Tensor:
    """Return the matrix (2 * side, side) that doubles an axis of planes, bilinearly."""
    return resizing(torch.arange(2 * side, device=planes.device), side, 2 * side, side).to(planes)


def _mix_channels(planes: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Convert the colours of images (N, 3, H, W) with a 3 x 3 matrix."""
    weights = constant(matrix, planes.dtype, planes.device)
    return torch.einsum("cd,ndhw->nchw", weights, planes)
