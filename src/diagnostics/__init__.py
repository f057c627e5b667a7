"""What a job computes beside its predictions while models and perturbations are at hand."""

from collections.abc import Sequence

import pyarrow as pa

from src.config.settings import DiagnosticSettings
from src.diagnostics.attack_independent import attack_independent_tables
from src.diagnostics.band_filters import Filtered
from src.diagnostics.minimum_budget import Bisection
from src.diagnostics.spectra import Spectra
from src.evaluation import Diagnostic


def make_diagnostics(
    settings: DiagnosticSettings,
    targets: Sequence[str],
    reference_eps_255: float,
    clean: pa.Table,
    seed: int = 0,
) -> list[Diagnostic]:
    """Return the diagnostics of the attack that settings ask for.

    Args:
        settings: Which there are, and their settings.
        targets: Names of the targets.
        reference_eps_255: The budget whose perturbations are analysed, in units of 1/255.
        clean: The targets' predictions for the clean images.
        seed: Of the noise that filtered perturbations are compared with.
    """
    diagnostics: list[Diagnostic] = []
    if settings.bisection:
        diagnostics.append(Bisection(targets, settings.bisection, clean))
    if settings.spectra:
        diagnostics.append(Spectra(targets, reference_eps_255))
    if settings.filters:
        diagnostics.append(Filtered(targets, reference_eps_255, seed))
    return diagnostics
