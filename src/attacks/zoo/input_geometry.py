"""Gradients of images that are resized, padded, shifted or warped."""

import math
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Le
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from .. import Losses, PerImageRandom, Share, attack, checked
from ..cosine_transform import along_axes, resizing

Rate = Annotated[float, Ge(1), Le(4)]


@checked
class DiverseInput:
    """With some probability, enlarge the image a little and pad it with zeros.

    For images of side H and with L = floor(H * resize_rate), the image is resized to a side r
    drawn from H, ..., L - 1 and placed on a black square of side L, with its corner at an offset
    drawn from 0, ..., L - r - 1 on each axis. The result is resized back to H. Images too small for
    L > H stay unchanged. Images that are not square are square in between.

    Args:
        probability: Probability that an image is changed; 0 leaves every bit unchanged.
        resize_rate: Largest side, as a multiple of the image's side.
        nearest: Resize to the nearest pixel; False: bilinearly.

    Reference: Xie et al. (2019), arXiv 1803.06978, sections 3.3 and 4.1 (there p = 0.5 and 299
    pixels become 330, hence 1.1, which makes 328 of 299).

    Deviation: black borders, bilinear resizing, back to H (authors: grey borders, nearest pixel,
    padded size; TransferAttack: as here).
    """

    probability: Share = 0.5
    resize_rate: Rate = 1.1
    nearest: bool = False
    copies: ClassVar[int] = 1

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        size = images.shape[-1]
        largest = math.floor(size * self.resize_rate + 1e-6)  # 100 * 1.15 is 114.99...
        if largest <= size or self.probability == 0:
            return images
        changed = random.uniform()[:, None, None, None] < self.probability
        sides = random.integers(size, largest)[:, None]
        offsets = (random.uniform(2).double() * (largest - sides)).floor().split(1, dim=1)
        rows, columns = (
            self._resized_and_padded(length, sides, offset, largest).to(images.dtype)
            for length, offset in zip(images.shape[-2:], offsets, strict=True)
        )
        return torch.where(changed, along_axes(rows, images, columns), images)

    def _resized_and_padded(
        self, length: int, sides: Tensor, offsets: Tensor, largest: int
    ) -> Tensor:
        """Return matrices (N, 1, length, length) that resize to `sides`, pad and resize back."""
        places = torch.arange(largest, device=sides.device) - offsets
        inside = ((places >= 0) & (places < sides))[..., None]
        padded = resizing(places, length, sides, length, nearest=self.nearest) * inside
        return (_shrinking(largest, length, sides.device, self.nearest) @ padded)[:, None]


@lru_cache
@torch.inference_mode(False)  # later calls may need its gradient
def _shrinking(largest: int, length: int, device: torch.device, nearest: bool) -> Tensor:
    places = torch.arange(length, dtype=torch.float64, device=device)
    return resizing(places, largest, length, largest, nearest=nearest)


@checked
class DiverseSizes:
    """Resize and pad every copy as `DiverseInput` does, each with its own resize rate.

    Args:
        copies: Number of evenly spaced resize rates; a single one is `lowest_rate`.
        lowest_rate: Resize rate of the first copy.
        highest_rate: Resize rate of the last copy.

    Reference: Zou et al. (2020), arXiv 2112.06011, with the constants of TransferAttack (rates
    1.14, 1.27, 1.40, 1.53 and 1.66).
    """

    copies: PositiveInt = 5
    lowest_rate: Rate = 1.14
    highest_rate: Rate = 1.66

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        ends = self.lowest_rate, self.highest_rate
        rate = torch.linspace(*ends, self.copies, dtype=torch.float64)[copy].item()
        return DiverseInput(1.0, rate)(images, random, copy)


@attack(transform=DiverseInput, decay=1.0)
def di() -> None:
    """Resize and pad at random: momentum, steps of eps / 10 (authors: none, steps of 1/255).

    Name: Diverse Inputs Iterative FGSM.
    """


@attack(transform=DiverseInput, decay=1.0, probability=0.7, kernel_size=15, paper="1904.02884")
def mi_di_ti() -> None:
    """Combine `di` with `ti`: TI-DIM, Dong et al. 2019.

    Name: Momentum, Diverse inputs, Translation-Invariant.
    """


@attack(transform=DiverseSizes, decay=1.0, relative_step_size=1.0, copies_average="logits")
def dem() -> None:
    """Average the logits of five resized copies, steps of eps: diversity ensemble.

    Name: Diversity Ensemble Method.
    """


@attack(decay=1.0, kernel_size=15)
def ti() -> None:
    """Smooth the gradients: `mi` with W * g_t, as if the source saw shifted images.

    Name: Translation-Invariant attack.
    Reference: Dong et al. (2019), arXiv 1904.02884.

    Deviation: with momentum, which is the paper's TI-MI-FGSM; its TI-FGSM is a single step.
    """


def sample(images: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """Sample images (K, N, 3, H, W) bilinearly, at places that their `neighbours` describe.

    Unlike that of `grid_sample`, the gradient can be deterministic on a GPU.
    """
    (index_y, weight_y), (index_x, weight_x) = rows, columns
    index = (index_y[:, :, None] * images.shape[-1] + index_x[:, None]).flatten(1)[:, None]
    weight = (weight_y[:, :, None] * weight_x[:, None]).flatten(1, 2)[:, None]
    pixels = images.flatten(-2)
    values = pixels.gather(-1, index.expand(*pixels.shape[:3], -1))
    return (values.unflatten(-1, weight.shape[2:]) * weight.to(images.dtype)).sum(-3)


def neighbours(place: Tensor, start: Tensor | int, size: Tensor | int) -> tuple[Tensor, Tensor]:
    """Return index and weight of the two pixels around places (N, H, W), each (N, 2, H, W).

    Places count from pixel `start`. Only the `size` pixels from there on have a weight.
    """
    below = place.floor()
    pixel, share = torch.stack([below, below + 1], dim=1), place - below
    weight = torch.stack([1 - share, share], dim=1) * ((pixel >= 0) & (pixel < size))
    return start + pixel.long().clamp_min(0).minimum(torch.as_tensor(size - 1)), weight


@checked
class Warp:
    """Move the image's centre as if the image were a thin plate held at eight border points.

    The plate's control points are a 3 x 3 grid over the image, whose sides have length 2. The
    centre moves by xi ~ U(-radius, radius)^2 minus rho times the gradient of the loss with respect
    to xi, which counters warps that fool the source by themselves. Sampling is bilinear, and black
    beyond the image.

    Args:
        copies: Number of warps.
        radius: Largest move along an axis, in units of half the image's side.
        rho: Length of the step against the loss.

    Reference: Lin et al. (2024), arXiv 2402.03951, with the constants of TransferAttack.

    Deviation: xi = 0 is the identity (authors: enlarges by part of a pixel).
    """

    copies: PositiveInt = 20
    radius: NonNegativeFloat = 1.0
    rho: NonNegativeFloat = 0.01

    def adapt(self, images: Tensor, random: PerImageRandom, copy: int, losses: Losses) -> None:
        """Draw the moves of warp number `copy`, adapt them and store them, (K, N, 2)."""
        shifts = random.uniform(2, low=-self.radius, high=self.radius)
        move = shifts.to(images).repeat(len(images), 1, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(losses(_warp(images, move)).sum(), move)
        random.scratch[self, copy] = move.detach() - self.rho * gradient

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        return _warp(images, random.scratch[self, copy])


def _warp(images: Tensor, move: Tensor) -> Tensor:
    places, pull = _plate(*images.shape[-2:], images.dtype, images.device)
    sampled = places + pull * move.reshape(-1, 1, 1, 2)
    (height, width), (x, y) = images.shape[-2:], ((1 + sampled) / 2).unbind(-1)
    around = neighbours(y * (height - 1), 0, height), neighbours(x * (width - 1), 0, width)
    return sample(images.flatten(0, 1)[None], *around)[0].unflatten(0, images.shape[:2])


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # later calls may need its gradient
def _plate(
    height: int, width: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return pixel positions (H, W, 2), x first, and each one's share of the move (H, W, 1).

    A thin-plate spline is linear in the moves of its control points. If only the centre moves, the
    share is a fixed function, 1 at the centre and 0 at the eight other points.
    """
    from scipy.interpolate import RBFInterpolator  # slow to import

    places = _grid(height, width)
    plate = RBFInterpolator(_grid(3, 3).numpy(), np.eye(9)[4], kernel="thin_plate_spline")
    pull = torch.from_numpy(plate(places.numpy()))
    shape = (height, width, -1)
    return places.reshape(shape).to(device, dtype), pull.reshape(shape).to(device, dtype)


def _grid(height: int, width: int) -> Tensor:
    """Return points (height * width, 2), x first, evenly spaced over [-1, 1] on both axes."""
    lines = (torch.linspace(-1, 1, length, dtype=torch.float64) for length in (height, width))
    return torch.cartesian_prod(*lines).flip(1)


@attack(
    transform=Warp, decay=1.0, gradients=lambda n: 2 * n.copies * (1 + n.budgets * (n.steps - 1))
)
def decowa() -> None:
    """Warp images by moves against the loss: deformation-constrained warping, with momentum.

    Name: Deformation-Constrained Warping Attack.
    """
