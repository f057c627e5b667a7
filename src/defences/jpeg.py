"""JPEG compression."""

from io import BytesIO
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from PIL import Image
from torch import Tensor
from torch.nn import functional

from src.attacks.checked import checked
from src.defences.staircase import soft_round

_TO_YCBCR = [
    [0.299, 0.587, 0.114],
    [-0.168736, -0.331264, 0.5],
    [0.5, -0.418688, -0.081312],
]
_TO_RGB = [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]]


@checked
class Jpeg:
    """JPEG compression, after rounding to 8 bits, with colours at half the resolution (4:2:0).

    Values are those of Pillow's files. Gradients are those of `soft`.

    Args:
        quality: From 1 to 100.
        temperature: Temperature of the staircase, see `soft_round`.

    Reference:
        Guo et al.: Countering Adversarial Images using Input Transformations (2018),
        arXiv 1711.00117, section 3.
    """

    quality: Annotated[int, Ge(1), Le(100)] = 75
    temperature: Annotated[float, Gt(0), Le(100)] = 0.12

    def __call__(self, images: Tensor) -> Tensor:
        """Return the decoded images."""
        levels = (images.detach() * 255).round().to(torch.uint8)
        decoded = []
        for image in levels.permute(0, 2, 3, 1).cpu().numpy():
            file = BytesIO()
            Image.fromarray(image).save(file, "JPEG", quality=self.quality)
            decoded.append(np.asarray(Image.open(file)))
        found = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images) / 255
        if not (images.requires_grad and torch.is_grad_enabled()):
            return found
        soft = self.soft(images)
        return found + (soft - soft.detach())  # which adds 0, with the gradient

    def soft(self, images: Tensor) -> Tensor:
        """Compute JPEG with a smooth staircase in the place of rounding, images (N, 3, H, W)."""
        height, width = images.shape[-2:]
        with torch.autocast(images.device.type, enabled=False):
            padding = (0, -width % 16, 0, -height % 16)
            padded = functional.pad(images * 255, padding, mode="replicate")
            planes = torch.einsum("cd,ndhw->nchw", images.new_tensor(_TO_YCBCR), padded)
            luma, chroma = planes[:, :1] - 128, functional.avg_pool2d(planes[:, 1:], 2)
            tables = _tables(self.quality)
            luma, chroma = (self._coded(p, t) for p, t in zip((luma, chroma), tables, strict=True))
            half = chroma[..., : -(-height // 2), : -(-width // 2)]
            full = functional.interpolate(half, scale_factor=2, mode="bilinear")
            full = full[..., :height, :width]
            planes = torch.cat([luma[..., :height, :width] + 128, full], dim=1)
            colours = torch.einsum("cd,ndhw->nchw", images.new_tensor(_TO_RGB), planes)
            return colours.clamp(0, 255) / 255

    def _coded(self, planes: Tensor, table: list[int]) -> Tensor:
        """Quantise the cosine transform of each block of 8 x 8 values of planes (N, C, H, W)."""
        blocks = planes.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
        cosine, steps = _cosine(planes), planes.new_tensor(table).reshape(8, 8)
        found = soft_round(cosine @ blocks @ cosine.T / steps, self.temperature) * steps
        return (cosine.T @ found @ cosine).transpose(-3, -2).flatten(-2).flatten(-3, -2)


def _cosine(like: Tensor) -> Tensor:
    """Return the orthonormal cosine transform of 8 values, (8, 8)."""
    numbers = torch.arange(8).to(like)
    found = torch.cos((2 * numbers + 1) * numbers[:, None] * torch.pi / 16) / 2
    found[0] /= 2**0.5
    return found


def _tables(quality: int) -> list[list[int]]:
    """Return libjpeg's quantisation tables of a quality, for brightness and for colours."""
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization
    return [tables[0], tables[1]]
