"""What a job computes beside its predictions while models and perturbations are at hand."""

from collections.abc import Sequence

from src.config.settings import DiagnosticSettings
from src.diagnostics.band_filters import Filtered, LowPassed
from src.diagnostics.gradient_similarity import Similarity
from src.diagnostics.minimum_budget import Bisection
from src.diagnostics.spectra import Spectra
from src.evaluation import Diagnostic


def make_diagnostics(
    settings: DiagnosticSettings,
    targets: Sequence[str],
    reference_eps_255: float,
    max_batch: int | None = None,
    seed: int = 0,
) -> list[Diagnostic]:
    """Return the diagnostics that settings ask for.

    Args:
        settings: Which there are, and their settings.
        targets: Names of the targets.
        reference_eps_255: The budget whose perturbations are analysed, in units of 1/255.
        max_batch: Most images in one gradient batch; None: no limit.
        seed: Of the noise that filtered perturbations are compared with.
    """
    diagnostics: list[Diagnostic] = []
    if settings.bisection:
        diagnostics.append(Bisection(targets, settings.bisection))
    if settings.spectra:
        diagnostics.append(Spectra(targets, reference_eps_255))
    if settings.filters:
        diagnostics.append(Filtered(targets, reference_eps_255, settings.bands, seed))
        diagnostics.append(LowPassed(targets, settings.cutoffs))
    if settings.similarity:
        diagnostics.append(Similarity(targets, max_batch))
    return diagnostics
