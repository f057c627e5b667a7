"""Scaled copies of the image, alone or mixed with another image."""

from pydantic import PositiveInt
from torch import Tensor

from src.attacks.checked import Share, checked
from src.attacks.per_image_random import PerImageRandom


@checked
class Scale:
    """Halve the pixel values once more for every copy: copy i is x / 2^i.

    Args:
        copies: Number of scales, the first being the image itself.

    Reference:
        Lin et al.: Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks
        (2020), arXiv 1908.06281 (there m = 5).

    Deviation: values in [0, 1] are halved, towards black (authors: those in [-1, 1], towards grey).
    """

    copies: PositiveInt = 5

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        """Return copy number `copy` of images of shape (K, N, 3, H, W); nothing is drawn."""
        return images / 2**copy


@checked
class Admix:
    """Add a faint image of another class, then halve the values: (x + strength * x') / 2^i.

    Copy number j * scales + i is the image with its j-th x', at scale i. As in the authors' code,
    x' is drawn anew for each j and each gradient and is the same at all scales, also where other
    transforms make copies of their own. No gradient flows into x'.

    Args:
        scales: Number of scales, the first without halving.
        admixed: Number of other images that are mixed in, one at a time.
        strength: Weight of the other image.

    Reference:
        Wang et al.: Admix: Enhancing the Transferability of Adversarial Attacks (2021),
        arXiv 2102.00436 (there m1 = 5, m2 = 3, eta = 0.2).

    Deviation: x' is a clean image of a pool, by preference of another class, and values are halved
        towards black (authors: any image of the batch as it stands, towards grey).
    """

    scales: PositiveInt = 5
    admixed: PositiveInt = 3
    strength: Share = 0.2

    @property
    def copies(self) -> int:
        """Number of versions."""
        return self.scales * self.admixed

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        """Return copy number `copy` of images of shape (K, N, 3, H, W)."""
        j, scale = divmod(copy, self.scales)
        if (self, j) not in random.kept:
            random.kept[self, j] = random.others().detach().to(images)
        return (images + self.strength * random.kept[self, j]) / 2**scale
