"""What targets say of perturbations and of images that lack some of their frequencies."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from src.attacks import noise_signs
from src.diagnostics.diagnostic import Diagnostic, DiagnosticInput, answers, numbered
from src.diagnostics.frequency import CORNER, band, low_passed

NORMS = ("linf", "l2")
KINDS = ("attack", "noise")
_AXES = (-3, -2, -1)
_NOTHING = 1e-6
"""The largest change, in [0, 1] units, that is rounding of float32 pixels and is not scaled up."""


class Filtered(Diagnostic):
    """Show every target the low, middle and high frequencies of the perturbations alone.

    Each part is scaled to the strength of a whole perturbation, added to the clean image and
    clipped to [0, 1]. With `linf` its largest absolute value becomes the budget, whatever the
    norm of the attack; with `l2` its length becomes that of the perturbation before the filter.
    The band `all` is the perturbation itself, scaled likewise: with `l2` it is what the job shows.
    A part that is zero stays zero.

    The control is random-sign noise of the budget, clipped to [0, 1], of which the targets are
    shown the same parts at the same strengths: with `l2` the length of the attack's perturbation.

    Args:
        targets: Names of the targets.
        reference: The budget of the perturbations, in units of 1/255.
        bands: Bounds between low and band, and between band and high, in cycles per pixel; a
            frequency on a bound belongs above it, the constant term to low.
        seed: Of the noise, which is that of the control `noise`.
    """

    table = "filtered"

    def __init__(
        self, targets: Sequence[str], reference: float, bands: Sequence[float], seed: int = 0
    ) -> None:
        super().__init__(targets)
        self.reference = reference
        self.seed = seed
        low, high = bands
        self.bands = {
            "all": (0.0, CORNER),
            "low": (0.0, low),
            "mid": (low, high),
            "high": (high, CORNER),
        }

    def update(self, seen: DiagnosticInput) -> None:
        """Look at one batch."""
        place = seen.budgets.index(self.reference)
        eps = self.reference / 255
        change = seen.made[place] - seen.clean
        signs = noise_signs(self.seed, seen.batch.index, seen.clean)
        noise = (seen.clean + eps * signs).clamp(0, 1) - seen.clean
        parts = itertools.product(enumerate(self.bands.items()), enumerate((change, noise)))
        for (number, (name, bounds)), (kind, whole) in parts:
            part = whole if name == "all" else split(whole, *bounds)
            for order, norm in enumerate(NORMS):
                if (name, norm) == ("all", "l2") and whole is change:
                    logits = {target: said[place] for target, said in seen.logits.items()}
                else:
                    scaled = rescaled(part, change, eps, norm)
                    logits = _shown(seen, (seen.clean + scaled).clamp(0, 1))
                _note(self, seen, logits, (order, number, kind))

    def compute(self) -> pa.Table:
        """Return one row per image, target, norm, band and kind, sorted by these but the image.

        The columns are `index`, `label`, `target`, `eps_255`, `band` (`all`, `low`, `band` or
        `high`), `norm` (`linf` or `l2`), `kind` (`attack` or `noise`), `frequency_low` and
        `frequency_high` (in cycles per pixel), `predicted`, `confidence` and `true_confidence`.
        """
        whole, real = self.rows(5)
        bounds = np.array(list(self.bands.values()))[whole[:, 2]]
        answered = _answered(self, whole, real)
        return pa.table(
            {
                **{name: answered[name] for name in ("index", "label", "target")},
                "eps_255": np.full(len(whole), self.reference),
                "band": pa.array(np.array(list(self.bands), dtype=object)[whole[:, 2]]),
                "norm": pa.array(np.array(NORMS, dtype=object)[whole[:, 1]]),
                "kind": pa.array(np.array(KINDS, dtype=object)[whole[:, 3]]),
                "frequency_low": bounds[:, 0],
                "frequency_high": bounds[:, 1],
                **{name: answered[name] for name in _SAID},
            }
        )


class LowPassed(Diagnostic):
    """Show every target the clean images without their high frequencies.

    Args:
        targets: Names of the targets.
        cutoffs: In cycles per pixel; frequencies below one stay, of the image mirrored at its
            borders. Clipped to [0, 1] afterwards.
    """

    table = "low_passed"

    def __init__(self, targets: Sequence[str], cutoffs: Sequence[float]) -> None:
        super().__init__(targets)
        self.cutoffs = tuple(cutoffs)

    def update(self, seen: DiagnosticInput) -> None:
        """Look at one batch."""
        for place, cutoff in enumerate(self.cutoffs):
            logits = _shown(seen, low_passed(seen.clean, cutoff).clamp(0, 1))
            _note(self, seen, logits, (place,))

    def compute(self) -> pa.Table:
        """Return one row per image, target and cutoff, sorted by target and cutoff.

        The columns are `index`, `label`, `target`, `cutoff` (in cycles per pixel), `predicted`,
        `confidence` and `true_confidence`.
        """
        whole, real = self.rows(3)
        answered = _answered(self, whole, real)
        return pa.table(
            {
                **{name: answered[name] for name in ("index", "label", "target")},
                "cutoff": np.array(self.cutoffs)[whole[:, 1]],
                **{name: answered[name] for name in _SAID},
            }
        )


_SAID = ("predicted", "confidence", "true_confidence")


def split(change: Tensor, low: float, high: float) -> Tensor:
    """Return the part of changes (..., H, W) in [low, high), up to the corner if that is high."""
    return band(change, low, math.inf if high == CORNER else high)


def rescaled(part: Tensor, whole: Tensor, eps: float, norm: str) -> Tensor:
    """Return parts of perturbations, each at the strength of a whole one.

    Args:
        part: Shape (N, 3, H, W).
        whole: The perturbations that they are parts of.
        eps: The budget in [0, 1] units, which `linf` makes the largest absolute value.
        norm: `linf`; or `l2`: the length of the whole perturbation.
    """
    size = part.abs().amax(dim=_AXES, keepdim=True)
    if norm == "linf":
        factor = eps / size.clamp_min(_NOTHING)
    else:
        lengths = [torch.linalg.vector_norm(x, dim=_AXES, keepdim=True) for x in (whole, part)]
        factor = lengths[0] / lengths[1].clamp_min(_NOTHING)
    return part * torch.where(size > _NOTHING, factor, 1)


def _shown(seen: DiagnosticInput, images: Tensor) -> dict[str, Tensor]:
    """Return every target's logits, (N, C)."""
    return {name: network(images) for name, network in seen.networks.items()}


def _note(
    diagnostic: Diagnostic,
    seen: DiagnosticInput,
    logits: Mapping[str, Tensor],
    images: Sequence[int],
) -> None:
    """Note what every target says of images that some numbers stand for."""
    index, labels = seen.batch.index, seen.batch.labels
    for number, name in enumerate(seen.networks):
        said = answers(name, logits[name], labels)
        where = [numbered(value, index) for value in (number, *images)]
        diagnostic.keep(
            [*where, index, labels, said.predicted], [said.confidences[:, 0], said.true]
        )


def _answered(
    diagnostic: Diagnostic, whole: np.ndarray, real: np.ndarray
) -> dict[str, np.ndarray | pa.Array]:
    """Return the columns that do not depend on the kind of the images."""
    index, label, predicted = whole[:, -3:].T
    return {
        "index": index,
        "label": label,
        "target": pa.array(diagnostic.names(whole[:, 0]), pa.string()),
        "predicted": predicted,
        "confidence": real[:, 0].astype(np.float32),
        "true_confidence": real[:, 1].astype(np.float32),
    }
