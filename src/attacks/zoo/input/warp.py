from functools import lru_cache

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from src.attacks.define import attack
from src.attacks.parts import Losses
from src.attacks.per_image_random import PerImageRandom
from src.attacks.zoo.input.block_shuffle import neighbours, sample
from src.utils.checked_dataclass import checked


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
        drawn = random.uniform(2, low=-self.radius, high=self.radius)
        move = drawn.to(images).repeat(len(images), 1, 1).requires_grad_()
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
    y, x = torch.meshgrid(*lines, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


@attack(
    transform=Warp, decay=1.0, gradients=lambda n: 2 * n.copies * (1 + n.budgets * (n.steps - 1))
)
def decowa() -> None:
    """Warp images by moves against the loss: deformation-constrained warping, with momentum."""
