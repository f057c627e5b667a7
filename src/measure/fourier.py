"""Spatial frequencies of images, in cycles per pixel: bins, and ideal filters."""

import math

import torch
from torch import Tensor

from ..artifacts.tables import FLOAT, column

CORNER = math.sqrt(0.5)
"""Highest frequency of a square grid of pixels, along its diagonal."""
FREQUENCIES = tuple(column(f"frequency_{end}", FLOAT, 0, CORNER) for end in ("low", "high"))
"""Columns of a band [low, high) of frequencies."""
_FINEST = 64
_ROUNDING = 1e-9  # keeps frequencies on a bound above it


def radii(height: int, width: int) -> Tensor:
    """Return the frequency of each Fourier coefficient, float64 (H, W), in cycles per pixel."""
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width)]
    return torch.hypot(axes[0][:, None], axes[1][None, :])


def radial_bins(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the bounds of radial bins, float64 (B + 1,), and each coefficient's bin, int64 (H, W).

    Bins are 1/64 cycle per pixel wide for images of at least 64 pixels. For smaller ones they are
    1/H wide, H being the shorter side: finer bins could be empty. The bounds go from 0 to
    sqrt(1/2), where the last bin is cut off.
    """
    bins = min(_FINEST, height, width)  # in one cycle per pixel
    edges = torch.arange(math.ceil(CORNER * bins) + 1, dtype=torch.float64) / bins
    number = (radii(height, width) * bins + _ROUNDING).long()
    return edges.clamp_max(CORNER), number.clamp_max(len(edges) - 2)


def radial_power(images: Tensor) -> Tensor:
    """Compute the power of images (N, 3, H, W) in each bin of `radial_bins`, float64 (N, B).

    Power is the mean over channels of |F|^2 without the constant term; F is the orthonormal
    two-dimensional Fourier transform of a channel. By Parseval, the power of all bins adds up to
    the mean over channels of the sum of squares about the channel's mean.
    """
    edges, number = radial_bins(*images.shape[-2:])
    spectra = torch.fft.fft2(images - images.mean(dim=(-2, -1), keepdim=True), norm="ortho")
    power = spectra.abs().square().mean(dim=1).flatten(1)
    power = (power.cpu() if power.device.type == "mps" else power).double()
    member = torch.nn.functional.one_hot(number.flatten(), len(edges) - 1)
    return power @ member.to(power)  # scattering would add in random order on a GPU


def band(images: Tensor, low: float, high: float) -> Tensor:
    """Return the frequencies in [low, high) of images (..., H, W), by an ideal filter.

    Adjacent bands have no frequency in common, so the bands of a partition add up to the image.
    """
    radius = radii(*images.shape[-2:]) + _ROUNDING
    mask = ((radius >= low) & (radius < high)).to(images.device)
    return torch.fft.ifft2(torch.fft.fft2(images) * mask).real.to(images.dtype)


def low_passed(images: Tensor, cutoff: float) -> Tensor:
    """Return images (..., H, W) without frequencies of `cutoff` or more.

    The images are first mirrored at their borders, as in a cosine transform. Otherwise the Fourier
    transform, which treats images as periodic, would mix opposite borders.
    """
    height, width = images.shape[-2:]
    beside = torch.cat([images, images.flip(-1)], dim=-1)
    mirrored = torch.cat([beside, beside.flip(-2)], dim=-2)
    return band(mirrored, 0, cutoff)[..., :height, :width]
