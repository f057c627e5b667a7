"""Gradients integrated along paths to the image."""

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from .. import Gradient, PerImageRandom, Share, State, attack, checked
from .input_blocks import BlockShuffle, moved
from .input_geometry import DiverseInput

_PADDED, _ROTATED = DiverseInput(1.0, 245 / 224), BlockShuffle(1, 1, 45.0)


@checked
class IntegratedPaths:
    """Add up integrated gradients of the image and of changed copies, each along its own path.

    For z = x_t or a copy T(x_t), a baseline b <= z and s_j = (j + shift) / interpolations, add::

        (z - b) * sum over j of grad L(f(z_j(x)), y),  z_j(x) = b + s_j * (T(x) - b)

    with b constant. Each channel of b has `regions` values: the channel's minimum in z, and random
    cuts between its minimum and maximum. A pixel gets the highest of them that is not above its
    own value. With probability 1/2, T is resizing and padding, as in `di`, up to 245 / 224.
    Otherwise it is, with equal probability: a roll of the rows or of the columns, a flip of either,
    or a rotation by up to 45 degrees. z - b is not transformed back.

    Args:
        copies: Number of changed copies.
        interpolations: Number of points on a path.
        regions: Number of values per channel of a baseline.
        shift: Position of a point within its part of the path.

    Reference: Ren et al. (2025), arXiv 2412.18844.
    """

    copies: NonNegativeInt = 6
    interpolations: PositiveInt = 1
    regions: PositiveInt = 2
    shift: Share = 0.65

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        total = torch.zeros_like(state.images)
        for copy in range(1 + self.copies):
            with torch.enable_grad():
                at = state.at.detach().requires_grad_()
                version = at if copy == 0 else _change(at, state.random)
            end, integral = version.detach(), torch.zeros_like(total)
            path = end - self._baseline(end, state.random)
            for point in range(self.interpolations):
                share = (point + self.shift) / self.interpolations
                integral = integral + share * gradient(end - (1 - share) * path)
            total = total + path * torch.autograd.grad(version, at, integral)[0]
        return total

    def _baseline(self, images: Tensor, random: PerImageRandom) -> Tensor:
        low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
        below = low.expand_as(images)
        for share in random.uniform(self.regions - 1, *low.shape[2:]).unbind(1):
            cut = low + share * (high - low)
            below = torch.where(images >= cut, torch.maximum(below, cut), below)
        return below


def _change(images: Tensor, random: PerImageRandom) -> Tensor:
    """Return randomly changed copies of images (K, N, 3, H, W)."""
    padded, rotated = _PADDED(images, random, 0), _ROTATED(images, random, 0)
    kind, share = random.integers(0, 10, 1, 1), random.uniform(1, 1)
    height, width = images.shape[-2:]
    y, x = (torch.arange(side, device=share.device) for side in (height, width))
    rows = moved(y[:, None], height, kind == 0, kind == 2, share)
    columns = moved(x, width, kind == 1, kind == 3, share)
    pixels, kind = images.flatten(-2), kind[..., None]
    index = (rows * width + columns).flatten(1)[:, None].expand_as(pixels)
    exact = pixels.gather(-1, index).view_as(images)
    return torch.where(kind < 4, exact, torch.where(kind == 4, rotated, padded))


@attack(
    estimator=IntegratedPaths,
    decay=1.0,
    gradients=lambda n: n.budgets * n.steps * (1 + n.copies) * n.interpolations,
)
def mumodig() -> None:
    """Integrate gradients along monotonic paths to the image and to changed copies: MuMoDIG.

    Name: Multiple Monotonic Diversified Integrated Gradients.
    """
