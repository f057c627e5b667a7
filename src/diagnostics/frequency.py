"""Spatial frequencies of images, in cycles per pixel, and ideal filters."""

import math

import torch
from torch import Tensor

CORNER = math.sqrt(0.5)
"""The highest frequency of a square grid of pixels, along its diagonal."""
_ROUNDING = 1e-9  # a frequency on a bound must not fall below it


def radii(height: int, width: int) -> Tensor:
    """Return the frequency of each Fourier coefficient, float64 (H, W), in cycles per pixel."""
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width)]
    return torch.hypot(axes[0][:, None], axes[1][None, :])


def band(images: Tensor, low: float, high: float) -> Tensor:
    """Return the frequencies in [low, high) of images (..., H, W), by an ideal filter.

    Bands that share a bound share no frequency, so the bands of a partition add up to the image.
    """
    if not len(images):  # some devices transform no empty tensor
        return images
    radius = radii(*images.shape[-2:]) + _ROUNDING
    mask = ((radius >= low) & (radius < high)).to(images.device)
    return torch.fft.ifft2(torch.fft.fft2(images) * mask).real.to(images.dtype)


def low_passed(images: Tensor, cutoff: float) -> Tensor:
    """Return images (..., H, W) without their frequencies from `cutoff` on.

    They are mirrored at their borders first, as in a cosine transform: a Fourier transform takes
    an image for periodic, and would mix what lies at opposite borders.
    """
    height, width = images.shape[-2:]
    beside = torch.cat([images, images.flip(-1)], dim=-1)
    mirrored = torch.cat([beside, beside.flip(-2)], dim=-2)
    return band(mirrored, 0, cutoff)[..., :height, :width]
