"""Attacks: pure functions from (model, images, labels, eps) to adversarial images."""

from src.attacks.iterate import Model, Settings, Slope, State, Transform, iterate
from src.attacks.losses import LOSSES
from src.attacks.momentum import emi_fgsm, mi_fgsm, ni_fgsm, pi_fgsm, vmi_fgsm, vni_fgsm
from src.attacks.per_image_random import Draws, image_seeds, noise_signs
from src.attacks.projection import NORMS, project
from src.attacks.sign import bim, fgsm, pgd, rfgsm
from src.attacks.transformed import (
    admix_fgsm,
    bsr_fgsm,
    di_fgsm,
    si_ni_fgsm,
    sia_fgsm,
    ssa_fgsm,
    ti_fgsm,
)
from src.attacks.transforms import (
    Admix,
    BlockShuffle,
    DiverseInput,
    Scale,
    Spectrum,
    StructureInvariant,
)

__all__ = [
    "LOSSES",
    "NORMS",
    "Admix",
    "BlockShuffle",
    "DiverseInput",
    "Draws",
    "Model",
    "Scale",
    "Settings",
    "Slope",
    "Spectrum",
    "State",
    "StructureInvariant",
    "Transform",
    "admix_fgsm",
    "bim",
    "bsr_fgsm",
    "di_fgsm",
    "emi_fgsm",
    "fgsm",
    "image_seeds",
    "iterate",
    "mi_fgsm",
    "ni_fgsm",
    "noise_signs",
    "pgd",
    "pi_fgsm",
    "project",
    "rfgsm",
    "si_ni_fgsm",
    "sia_fgsm",
    "ssa_fgsm",
    "ti_fgsm",
    "vmi_fgsm",
    "vni_fgsm",
]
