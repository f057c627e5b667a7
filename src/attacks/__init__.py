"""Attacks: pure functions from (model, images, labels, eps) to adversarial images."""

from typing import NoReturn

from src.attacks.family import (
    admix_fgsm,
    bim,
    bsr_fgsm,
    di_fgsm,
    emi_fgsm,
    fgsm,
    iterate,
    mi_fgsm,
    ni_fgsm,
    pgd,
    pi_fgsm,
    rfgsm,
    si_ni_fgsm,
    sia_fgsm,
    ssa_fgsm,
    takes_own_budgets,
    ti_fgsm,
    vmi_fgsm,
    vni_fgsm,
)
from src.attacks.gradients import Estimator, Gradient, State
from src.attacks.losses import LOSSES
from src.attacks.objective import Model
from src.attacks.per_image_random import PerImageRandom, image_seeds, noise_signs
from src.attacks.philox import Philox, philox4x32
from src.attacks.projection import project
from src.attacks.settings import Transform
from src.attacks.transforms import (
    Admix,
    BlockShuffle,
    DiverseInput,
    Scale,
    Spectrum,
    StructureInvariant,
)


def __getattr__(name: str) -> NoReturn:
    """Refuse an unknown name; suggest the function of a command-line attack's name."""
    stem = name.partition("_")[0]
    near = [own for own in globals() if own == stem or own.startswith(f"{stem}_")]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
