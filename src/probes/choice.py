"""From an analysis to its probes."""

from collections.abc import Sequence

from src.probes.bisection import Bisection
from src.probes.filters import Filtered, LowPassed
from src.probes.probe import Probe
from src.probes.settings import Analysis
from src.probes.similarity import Similarity
from src.probes.spectra import Spectra


def make_probes(
    analysis: Analysis,
    targets: Sequence[str],
    standard: float,
    max_batch: int | None = None,
    seed: int = 0,
) -> list[Probe]:
    """Return the probes of an analysis.

    Args:
        analysis: Which there are, and their settings.
        targets: Names of the targets.
        standard: The budget whose perturbations are looked at, in units of 1/255.
        max_batch: Most images in one gradient batch; None: no limit.
        seed: Of the noise that filtered perturbations are compared with.
    """
    probes: list[Probe] = []
    if analysis.bisection:
        probes.append(Bisection(targets, analysis.bisection))
    if analysis.spectra:
        probes.append(Spectra(targets, standard))
    if analysis.filters:
        probes.append(Filtered(targets, standard, analysis.bands, seed))
        probes.append(LowPassed(targets, analysis.cutoffs))
    if analysis.similarity:
        probes.append(Similarity(targets, max_batch))
    return probes
