"""What a job computes beside its predictions while models and perturbations are at hand."""

from src.probes.bisection import Bisection
from src.probes.choice import make_probes
from src.probes.filters import Filtered, LowPassed
from src.probes.probe import Probe, Seen
from src.probes.settings import Analysis
from src.probes.similarity import Similarity
from src.probes.spectra import Spectra

__all__ = [
    "Analysis",
    "Bisection",
    "Filtered",
    "LowPassed",
    "Probe",
    "Seen",
    "Similarity",
    "Spectra",
    "make_probes",
]
