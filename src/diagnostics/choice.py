"""From an analysis to its diagnostics."""

from collections.abc import Sequence

from src.diagnostics.band_filters import Filtered, LowPassed
from src.diagnostics.diagnostic import Diagnostic
from src.diagnostics.gradient_similarity import Similarity
from src.diagnostics.minimum_budget import Bisection
from src.diagnostics.settings import DiagnosticSettings
from src.diagnostics.spectra import Spectra


def make_diagnostics(
    settings: DiagnosticSettings,
    targets: Sequence[str],
    reference: float,
    max_batch: int | None = None,
    seed: int = 0,
) -> list[Diagnostic]:
    """Return the diagnostics of an analysis.

    Args:
        settings: Which there are, and their settings.
        targets: Names of the targets.
        reference: The budget whose perturbations are looked at, in units of 1/255.
        max_batch: Most images in one gradient batch; None: no limit.
        seed: Of the noise that filtered perturbations are compared with.
    """
    diagnostics: list[Diagnostic] = []
    if settings.bisection:
        diagnostics.append(Bisection(targets, settings.bisection))
    if settings.spectra:
        diagnostics.append(Spectra(targets, reference))
    if settings.filters:
        diagnostics.append(Filtered(targets, reference, settings.bands, seed))
        diagnostics.append(LowPassed(targets, settings.cutoffs))
    if settings.similarity:
        diagnostics.append(Similarity(targets, max_batch))
    return diagnostics
