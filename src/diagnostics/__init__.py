"""What a job computes beside its predictions while models and perturbations are at hand."""

from src.diagnostics.band_filters import Filtered, LowPassed
from src.diagnostics.choice import make_diagnostics
from src.diagnostics.diagnostic import Diagnostic, DiagnosticInput
from src.diagnostics.gradient_similarity import Similarity
from src.diagnostics.minimum_budget import Bisection
from src.diagnostics.settings import DiagnosticSettings
from src.diagnostics.spectra import Spectra

__all__ = [
    "Bisection",
    "Diagnostic",
    "DiagnosticInput",
    "DiagnosticSettings",
    "Filtered",
    "LowPassed",
    "Similarity",
    "Spectra",
    "make_diagnostics",
]
