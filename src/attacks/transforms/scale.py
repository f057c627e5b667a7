"""Scale invariance: the same image, darker and darker."""

from pydantic import PositiveInt
from torch import Tensor

from src.attacks.checked import checked
from src.attacks.per_image_random import PerImageRandom


@checked
class Scale:
    """Halve the pixel values once more for every copy: copy i is x / 2^i.

    Args:
        copies: How many scales, the first being the image itself.

    Reference:
        Lin et al.: Nesterov Accelerated Gradient and Scale Invariance for Adversarial Attacks
        (2020), arXiv 1908.06281, algorithm 1 (there m = 5).

    Deviation: values in [0, 1] are halved, towards black (authors: those in [-1, 1], towards grey).
    """

    copies: PositiveInt = 5

    def __call__(self, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
        """Return copy number `copy` of images of shape (K, N, 3, H, W); nothing is drawn."""
        return images / 2**copy
