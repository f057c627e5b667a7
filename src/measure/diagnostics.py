"""Diagnostics, which a job computes while it has models and adversarial images at hand."""

from math import nan

import pyarrow as pa

from src.config.settings import DiagnosticSettings
from src.images.attacker import Attacker
from src.measure.band_filters import Filtered
from src.measure.diagnostic import Diagnostic
from src.measure.iterations import Iterations
from src.measure.minimum_budget import Bisection
from src.measure.spectra import Spectra
from src.measure.visibility import Stealth


def make_diagnostics(
    settings: DiagnosticSettings,
    reference_eps_255: float,
    clean: pa.Table,
    attacker: Attacker,
    seed: int = 0,
    step_255: float = nan,
) -> list[Diagnostic]:
    """Return the diagnostics of an attack that settings ask for.

    The perturbations of `reference_eps_255`, in units of 1/255, are analysed. `clean` holds the
    targets' predictions for the clean images; `seed` is that of the noise, their control, and
    `step_255` the length of the attack's steps at that budget.
    """
    diagnostics: list[Diagnostic] = []
    if settings.bisection:
        diagnostics.append(Bisection(settings.bisection, clean, attacker.perturbed))
    if settings.spectra:
        diagnostics.append(Spectra(reference_eps_255))
    if settings.stealth:
        diagnostics.append(Stealth())
    if settings.iterations:
        run = (reference_eps_255, settings.iterations, step_255, attacker.iterates)
        diagnostics.append(Iterations(*run))
    if settings.filters:
        diagnostics.append(Filtered(reference_eps_255, seed))
    return diagnostics
