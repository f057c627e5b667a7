"""Translation invariance: smoothed gradients."""

from src.attacks.define import attack


@attack(decay=1.0, kernel_size=15)
def ti() -> None:
    """Smooth the gradients: `mi` with W * g_t, as if the source saw shifted images.

    Reference: Dong et al. (2019), arXiv 1904.02884.

    Deviation: with momentum, which is the paper's TI-MI-FGSM; its TI-FGSM is a single step.
    """
