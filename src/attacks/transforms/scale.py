"""Scale invariance: the same image, darker and darker."""

from dataclasses import dataclass

from torch import Tensor

from src.attacks.per_image_random import PerImageRandom
from src.utils.checks import check_whole_number


@dataclass(frozen=True)
class Scale:
    """Halve the pixel values once more for every copy: copy i is x / 2^i.

    Args:
        copies: How many scales, the first being the image itself.

    Raises:
        ValueError: A value has no meaning.

    Reference:
        Lin et al.: Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks
        (2020), arXiv 1908.06281, algorithm 1 (there m = 5).

    Deviation: values in [0, 1] are halved, towards black (authors: those in [-1, 1], towards grey).
    """

    copies: int = 5

    def __post_init__(self) -> None:
        """Check the values."""
        check_whole_number("attack.copies", self.copies, 1)

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        """Return copy number `copy` of images of shape (K, N, 3, H, W); nothing is drawn."""
        return images / 2**copy
