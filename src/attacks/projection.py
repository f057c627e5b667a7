"""Projection onto the L-infinity or L2 ball, intersected with [0, 1]."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

Budgets = float | Sequence[float] | Sequence[Sequence[float]] | Tensor
"""One budget in [0, 1] units; K budgets, (K,); or K budgets per image, (K, N)."""
_AXES = (-3, -2, -1)


def check_budgets(eps: Budgets, images: Tensor) -> Tensor:
    """Return `eps` as a tensor on the images' device, of shape (), (K,) or (K, N).

    Raises:
        ValueError: A budget or a pixel is outside [0, 1], `eps` has another shape, or `images` is
            not a float32 or float64 tensor (N, 3, H, W).
    """
    shape, dtype = tuple(getattr(images, "shape", ())), getattr(images, "dtype", None)
    fits = len(shape) == 4 and not shape[1] > 3 >= shape[3]  # not channels last
    if not fits or dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "images must be a torch tensor (N, 3, H, W) of float32 or float64, not "
            f"{type(images).__name__} {shape} of {dtype}."
        )
    if not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError(
            "images must be in [0, 1] (the model normalises them itself), not from "
            f"{float(images.min()):g} to {float(images.max()):g}."
        )
    budgets = torch.as_tensor(eps, dtype=images.dtype, device=images.device)
    empty = budgets.shape[:1] == (0,)
    fits = budgets.ndim < 2 or (budgets.ndim == 2 and budgets.shape[1] == len(images))
    if empty or not fits or not bool(((budgets >= 0) & (budgets <= 1)).all()):
        raise ValueError(
            "eps must be a number in [0, 1], a list of such numbers, or lists with one number per "
            f"image (for {len(images)} images), not {eps}."
        )
    return budgets


def check_numbers(name: str, numbers: Tensor, images: Tensor) -> Tensor:
    """Return numbers as a tensor; raise ValueError unless they are one whole number per image."""
    numbers = torch.as_tensor(numbers)
    if numbers.shape != (len(images),) or numbers.is_floating_point():
        raise ValueError(
            f"{name} must be one whole number per image, for {len(images)} images, not "
            f"{numbers.dtype} of shape {tuple(numbers.shape)}."
        )
    return numbers


def project(adversarial: Tensor, images: Tensor, eps: Tensor, norm: str = "linf") -> Tensor:
    """Project images onto the ball, then onto the pixel range [0, 1].

    The L2 ball has the radius eps * sqrt(D) for images of D values. So eps is the largest
    root-mean-square change, and the ball contains the L-infinity ball of the same budget.
    Clean `images` and budgets broadcast to `adversarial`, (..., N, 3, H, W).

    Reference: Dong et al. (2018), arXiv 1710.06081, for the radius of the L2 ball.
    """
    if norm == "linf":
        return adversarial.clamp((images - eps).clamp_min(0), (images + eps).clamp_max(1))
    change = adversarial - images
    return (images + shrunk(change, rms(change), eps)).clamp(0, 1)


def shrunk(change: Tensor, size: Tensor, eps: Tensor | float) -> Tensor:
    """Return a change of some size, at least 0, scaled down to the size `eps` if it is larger."""
    return change * (eps / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_max(1)


def direction(gradient: Tensor, norm: str) -> Tensor:
    """Return the direction of steepest ascent: signs, or for L2 the gradient divided by its RMS."""
    if norm == "linf":
        return gradient.sign()
    size = rms(gradient)
    return torch.where(size > 0, gradient / size.clamp_min(torch.finfo(size.dtype).tiny), 0)


def rms(change: Tensor) -> Tensor:
    """Return each image's root-mean-square value, with axes of length 1 for channel and pixels.

    Values are divided by the largest one before squaring, so that small gradients do not vanish.
    """
    largest = change.abs().amax(dim=_AXES, keepdim=True)
    scaled = change / largest.clamp_min(torch.finfo(change.dtype).tiny)
    return largest * scaled.square().mean(dim=_AXES, keepdim=True).sqrt()


def mean_size(gradient: Tensor) -> Tensor:
    """Return each image's mean absolute gradient, never 0, shaped like the result of `rms`."""
    size = gradient.abs().mean(dim=_AXES, keepdim=True)
    return size.clamp_min(torch.finfo(size.dtype).tiny)


def average(gradients: Iterator[Tensor]) -> Tensor:
    """Return the mean of gradients, which are taken one after another."""
    total, count = next(gradients), 1
    for gradient in gradients:
        total, count = total + gradient, count + 1
    return total / count


def clip(images: Tensor) -> Tensor:
    """Clip to [0, 1]; values beyond have no gradient, but 0 and 1 do, unlike with `clamp`."""
    return torch.where((images < 0) | (images > 1), images.detach().clamp(0, 1), images)
