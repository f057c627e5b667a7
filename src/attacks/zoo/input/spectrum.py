from typing import Annotated

from annotated_types import Ge, Le
from pydantic import PositiveInt
from torch import Tensor

from src.attacks.cosine_transform import dct2, idct2
from src.attacks.define import attack
from src.attacks.per_image_random import PerImageRandom
from src.utils.checked_dataclass import Share, checked


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
    sigma_255: Annotated[float, Ge(0), Le(255)] = 16.0

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        shape = images.shape[2:]
        noise = self.sigma_255 / 255 * random.normal(*shape)
        weights = random.uniform(*shape, low=1 - self.rho, high=1 + self.rho)
        changed = idct2(dct2(images.detach() + noise) * weights)
        return changed + (images - images.detach())  # 0, with the gradient of the identity


@attack(transform=Spectrum, decay=1.0)
def ssa() -> None:
    """Randomise the spectrum: spectrum simulation, with momentum (the authors' script: without)."""
