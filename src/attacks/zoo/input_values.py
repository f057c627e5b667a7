"""Gradients of images with other values: scaled, mixed with others, or with a changed spectrum."""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from .. import GreyLevels, PerImageRandom, Share, attack, checked, clip
from ..cosine_transform import dct2, idct2
from .input_geometry import DiverseInput


@checked
class Scale:
    """Halve the pixel values once more for every copy: copy i is x / 2^i.

    Args:
        copies: Number of scales, the first being the image itself.

    Reference: Lin et al. (2020), arXiv 1908.06281 (there m = 5).

    Deviation: values in [0, 1] are halved, towards black (authors: those in [-1, 1], towards grey).
    """

    copies: PositiveInt = 5

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        return images / 2**copy


@checked
class Admix:
    """Add a faint image of another class, then halve the values: (x + strength * x') / 2^i.

    Copy number j * scales + i is the image with its j-th x', at scale i. x' is drawn anew for each
    j and each gradient and is the same at all scales. No gradient flows into x'.

    Args:
        scales: Number of scales, the first without halving.
        admixed: Number of other images that are mixed in, one at a time.
        strength: Weight of the other image.

    Reference: Wang et al. (2021), arXiv 2102.00436 (there m1 = 5, m2 = 3, eta = 0.2).

    Deviation: x' is a clean image of a pool, preferably of another class, and values are halved
    towards black (authors: any image of the batch as it is then, towards grey).
    """

    scales: PositiveInt = 5
    admixed: PositiveInt = 3
    strength: Share = 0.2

    @property
    def copies(self) -> int:
        return self.scales * self.admixed

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        j, scale = divmod(copy, self.scales)
        return (images + self.strength * _other(self, j, images, random)) / 2**scale


@checked
class MixMask(Admix):
    """Scale the image and multiply it by a mask made of another one: clip(s_i * x * W_j, 0, 1).

    The scales s_i are evenly spaced from `lowest` to `highest`. The masks are
    W_j = 1 - strength + 2 * strength * x', with x' as in `Admix`.

    Args:
        scales: Number of scales; a single one is `lowest`.
        admixed: Number of other images that masks are made of, one at a time.
        strength: Half the width of the masks' range around 1.
        lowest: First scale.
        highest: Last scale.
        chain_rule: Take gradients through scale, mask and clipping; False: gradients at the copies.

    Reference: Wang et al. (2023), arXiv 2311.12051 (there m = 5, L = 0.1, H = 0.75, q = 3, r =
    0.5).

    Deviation: x' is a clean image of a pool, preferably of another class, and the same at all
    scales (TransferAttack: the batch in another order for each copy, and gradients at the copies).
    """

    strength: Share = 0.5
    lowest: Share = 0.1
    highest: Share = 0.75
    chain_rule: bool = True

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        j, i = divmod(copy, self.scales)
        ends = self.lowest, self.highest
        scale = torch.linspace(*ends, self.scales, dtype=torch.float64)[i].item()
        mask = 1 - self.strength + 2 * self.strength * _other(self, j, images, random)
        changed = clip(scale * images * mask)
        return changed if self.chain_rule else changed.detach() + (images - images.detach())


def _other(mixing: Admix, j: int, images: Tensor, random: PerImageRandom) -> Tensor:
    """Return the j-th other images for the current gradient, (N, 3, H, W)."""
    if (mixing, j) not in random.scratch:
        random.scratch[mixing, j] = random.others().detach().to(images)
    return random.scratch[mixing, j]


@attack(transform=Scale, decay=1.0, lookahead="momentum")
def si_ni() -> None:
    """Average over five scales, with the look-ahead of `ni`: SI-NI-FGSM.

    Name: Scale-Invariant Nesterov Iterative FGSM.
    """


@attack(
    transform=Scale,
    decay=1.0,
    lookahead="momentum",
    kernel_size=7,
    transforms=(DiverseInput(0.5, 1.1),),
)
def si_ni_di_ti() -> None:
    """Combine `si_ni` with `di` and `ti`: SI-NI-TI-DIM, Lin et al. 2020.

    Name: Scale-Invariant Nesterov, Diverse inputs, Translation-Invariant.
    """


def _gradients(n: Any) -> int:
    """Count the gradients of copies with other images."""
    return n.scales * n.admixed * (1 + n.budgets * (n.steps - 1))


@attack(transform=Admix, decay=1.0, gradients=_gradients, mixes=True)
def admix() -> None:
    """Mix in three other images, at five scales: Admix, with momentum.

    Name: Admix.
    """


@attack(transform=MixMask, decay=1.0, gradients=_gradients, mixes=True)
def usmm() -> None:
    """Multiply by masks of three other images, at five scales: USMM, with momentum.

    Name: Uniform Scale and Mix Mask.
    """


@checked
class Spectrum:
    """Add noise and reweight every frequency: IDCT(DCT(x + n) * m).

    n ~ N(0, sigma^2) for every value and m ~ U(1 - rho, 1 + rho) for every frequency of every
    channel. Nothing is clipped. The gradient is taken at the transformed image, not through the
    transform.

    Args:
        copies: Number of versions.
        rho: Half the width of the range of the weights.
        sigma_255: Standard deviation of the noise in units of 1/255.

    Reference: Long et al. (2022), arXiv 2207.05382 (there N = 20, rho = 0.5, sigma = 16, which is
    also the budget; TransferAttack lets sigma follow the budget).
    """

    copies: PositiveInt = 20
    rho: Share = 0.5
    sigma_255: GreyLevels = 16.0

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        shape = images.shape[2:]
        noise = self.sigma_255 / 255 * random.normal(*shape)
        weights = random.uniform(*shape, low=1 - self.rho, high=1 + self.rho)
        changed = idct2(dct2(images.detach() + noise) * weights)
        return changed + (images - images.detach())  # 0, with the gradient of the identity


@attack(transform=Spectrum, decay=1.0)
def ssa() -> None:
    """Randomise the spectrum: spectrum simulation, with momentum (the authors' script: without).

    Name: Spectrum Simulation Attack.
    """
