"""Attacks: pure functions from (model, images, labels, eps) to adversarial images."""

from src.attacks.bim import bim
from src.attacks.fgsm import fgsm

__all__ = ["bim", "fgsm"]
