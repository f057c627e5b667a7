"""Images by their spatial frequencies, in cycles per pixel: binned power, and ideal filters."""

import math

import torch
from torch import Tensor

CORNER = math.sqrt(0.5)
"""The highest frequency of a square grid of pixels, along its diagonal."""
_FINEST = 64
_ROUNDING = 1e-9  # a frequency on a bound must not fall below it


def radial_edges(height: int, width: int) -> Tensor:
    """Return the bounds of the radial bins of a spectrum, float64 (B + 1,), from 0 to the corner.

    Bins are 1/64 cycle per pixel wide for images of 64 pixels and more, and 1/H below, H being
    the shorter side: a finer bin would lie between the frequencies that the image can hold. The
    last one is cut off at sqrt(1/2).
    """
    bins = _bins(height, width)
    edges = torch.arange(math.ceil(CORNER * bins) + 1, dtype=torch.float64) / bins
    return edges.clamp_max(CORNER)


def radial_power(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each image's power by radial frequency, without its constant term.

    With F the orthonormal two-dimensional Fourier transform of a channel, power is the mean over
    channels of |F|^2, so that the power of all frequencies adds up to the mean over channels of
    the sum of squares (Parseval), and white noise of variance v has power v at each.

    Args:
        images: Shape (N, 3, H, W).

    Returns:
        The power summed over each bin of `radial_edges`, float64 (N, B); the number of
        frequencies in each, int64 (B,); and the power of the constant term, float64 (N,).
    """
    height, width = images.shape[-2:]
    with torch.autocast(images.device.type, enabled=False):
        spectra = torch.fft.fft2(_real(images), norm="ortho")
        power = spectra.abs().square().mean(dim=1).flatten(1)
    power = (power.cpu() if power.device.type == "mps" else power).double()
    count = len(radial_edges(height, width)) - 1
    radius = radii(height, width).flatten()
    place = (radius * _bins(height, width) + _ROUNDING).long().clamp_max(count - 1)
    member = torch.nn.functional.one_hot(place, count)
    member[0] = 0  # the constant term
    sums = power @ member.to(power)  # not scattered: on a GPU that would add in random order
    return sums, member.sum(dim=0), power[:, 0]


def radii(height: int, width: int, *, half: bool = False) -> Tensor:
    """Return the frequency of each coefficient of a spectrum, float64 (H, W), in cycles per pixel.

    Args:
        height: H.
        width: W.
        half: Return (H, W // 2 + 1), as real transforms have it.
    """
    columns = torch.fft.rfftfreq if half else torch.fft.fftfreq
    vertical = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    return torch.hypot(vertical, columns(width, dtype=torch.float64)[None, :].abs())


def band(images: Tensor, low: float, high: float) -> Tensor:
    """Return what images (..., H, W) hold at frequencies in [low, high), by an ideal filter.

    Bands that share a bound share no frequency, so the bands of a partition add up to the image.
    """
    height, width = images.shape[-2:]
    radius = radii(height, width, half=True) + _ROUNDING
    mask = ((radius >= low) & (radius < high)).to(images.device)
    with torch.autocast(images.device.type, enabled=False):
        spectra = torch.fft.rfft2(_real(images)) * mask
        return torch.fft.irfft2(spectra, s=(height, width)).to(images.dtype)


def low_passed(images: Tensor, cutoff: float) -> Tensor:
    """Return images (..., H, W) without their frequencies from `cutoff` on.

    They are mirrored at their borders first, as in a cosine transform: a Fourier transform takes
    an image for periodic, and would mix what lies at opposite borders.
    """
    height, width = images.shape[-2:]
    beside = torch.cat([images, images.flip(-1)], dim=-1)
    mirrored = torch.cat([beside, beside.flip(-2)], dim=-2)
    return band(mirrored, 0, cutoff)[..., :height, :width]


def _real(images: Tensor) -> Tensor:
    return images.to(torch.promote_types(images.dtype, torch.float32))


def _bins(height: int, width: int) -> int:
    """Return the number of bins in one cycle per pixel."""
    return min(_FINEST, height, width)
