"""Attacks that show the source model changed versions of the images.

Each is `iterate` with a transform of its own before those that `transforms` adds, and with
momentum. A transform's docstring gives its formula and its reference.
"""

from typing import Unpack

from torch import Tensor

from src.attacks.iterate import Model, Settings, Transform, iterate
from src.attacks.transforms import (
    Admix,
    BlockShuffle,
    DiverseInput,
    Scale,
    Spectrum,
    StructureInvariant,
)


def di_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    probability: float = 0.5,
    resize_rate: float = 1.1,
    **settings: Unpack[Settings],
) -> Tensor:
    """Attack images that are resized and padded at random: `DiverseInput`.

    Arguments, result and errors are those of `iterate` and of the transform.

    Reference:
        Xie et al.: Improving Transferability with Input Diversity (2019), arXiv 1803.06978.

    Deviation: with momentum and steps of eps / 10; the authors' code has none, and steps of 1/255.
    """
    return _transformed(
        DiverseInput(probability, resize_rate), model, images, labels, eps, settings
    )


def ti_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    **settings: Unpack[Settings],
) -> Tensor:
    """Smooth the gradients, which approximates attacking shifted images: see `smooth`.

    Arguments, result and errors are those of `iterate`; `kernel_size` is 15 by default.

    Reference:
        Dong et al.: Evading Defenses to Transferable Adversarial Examples by Translation-Invariant
        Attacks (2019), arXiv 1904.02884.

    Deviation: with momentum, which is the paper's TI-MI-FGSM; its TI-FGSM is a single step.
    """
    settings.setdefault("decay", 1.0)
    settings.setdefault("kernel_size", 15)
    return iterate(model, images, labels, eps, **settings)


def si_ni_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    copies: int = 5,
    **settings: Unpack[Settings],
) -> Tensor:
    """Attack several darker copies of the image at once, looking ahead as `ni_fgsm`: `Scale`.

    Arguments, result and errors are those of `iterate` and of the transform.

    Reference:
        Lin et al.: Nesterov Accelerated Gradient and Scale Invariance (2020), arXiv 1908.06281,
        algorithm 1.
    """
    settings.setdefault("lookahead", "momentum")
    return _transformed(Scale(copies), model, images, labels, eps, settings)


def admix_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    scales: int = 5,
    admixed: int = 3,
    strength: float = 0.2,
    **settings: Unpack[Settings],
) -> Tensor:
    """Attack darker copies with a part of other classes' images added: `Admix`.

    Arguments, result and errors are those of `iterate` and of the transform.

    Reference:
        Wang et al.: Admix (2021), arXiv 2102.00436, algorithm 1.
    """
    return _transformed(Admix(scales, admixed, strength), model, images, labels, eps, settings)


def ssa_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    copies: int = 20,
    rho: float = 0.5,
    sigma_255: float = 16.0,
    **settings: Unpack[Settings],
) -> Tensor:
    """Attack copies whose spectrum is changed at random: `Spectrum`.

    Arguments, result and errors are those of `iterate` and of the transform.

    Reference:
        Long et al.: Frequency Domain Model Augmentation (2022), arXiv 2207.05382, algorithm 1.

    Deviation: with momentum, which the authors' script leaves out.
    """
    return _transformed(Spectrum(copies, rho, sigma_255), model, images, labels, eps, settings)


def bsr_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    copies: int = 20,
    blocks: int = 2,
    max_angle: float = 24.0,
    **settings: Unpack[Settings],
) -> Tensor:
    """Attack copies whose blocks are shuffled and rotated: `BlockShuffle`.

    Arguments, result and errors are those of `iterate` and of the transform.

    Reference:
        Wang et al.: Boosting Adversarial Transferability by Block Shuffle and Rotation (2024),
        arXiv 2308.10299.
    """
    transform = BlockShuffle(copies, blocks, max_angle)
    return _transformed(transform, model, images, labels, eps, settings)


def sia_fgsm(
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    *,
    copies: int = 20,
    blocks: int = 3,
    **settings: Unpack[Settings],
) -> Tensor:
    """Attack copies whose blocks are each changed in a way of their own: `StructureInvariant`.

    Arguments, result and errors are those of `iterate` and of the transform.

    Reference:
        Wang, Zhang, Zhang: Structure Invariant Transformation (2023), arXiv 2309.14700.
    """
    return _transformed(StructureInvariant(copies, blocks), model, images, labels, eps, settings)


def _transformed(
    transform: Transform,
    model: Model,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    settings: Settings,
) -> Tensor:
    """Attack through a transform, with momentum unless the settings say otherwise."""
    settings.setdefault("decay", 1.0)
    settings["transforms"] = (transform, *settings.get("transforms", ()))
    return iterate(model, images, labels, eps, **settings)
