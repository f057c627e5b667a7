"""Attacks: pure functions from (model, images, labels, eps) to adversarial images."""

from src.attacks.bim import bim
from src.attacks.fgsm import fgsm
from src.attacks.gradient import box, input_gradient

__all__ = ["bim", "box", "fgsm", "input_gradient"]
