"""The measurements of a job, in the order in which a batch is measured."""

from ..config.settings import Settings
from ..images.storage import AS_SAVED
from ..utils.vocabulary import CONTROLS
from .attack_cost import AdversarialImages, AttackCost
from .frequencies import BandFilters, LowPassed, Spectra
from .iterations import Iterations
from .minimum_budget import MinimumBudget
from .predictions import Clean, Control, Predictions
from .protocol import Measurement
from .similarity import GradientSimilarity
from .visibility import Visibility

DIAGNOSTICS: tuple[Measurement, ...] = (
    MinimumBudget(),
    Spectra(),
    Visibility(),
    Iterations(),
    BandFilters("attack"),
    BandFilters("noise"),
    LowPassed(),
    GradientSimilarity(),
)
CLEAN = Clean("clean images")
CRAFTED = (AttackCost(), AdversarialImages())
"""Tables of what an attack gives."""


def measurements_of(settings: Settings) -> list[Measurement]:
    """Return the program's measurements that a job's settings ask for."""
    asked, universal = settings.diagnostics, settings.attack.about.universal
    measured: list[Measurement] = [CLEAN]
    if settings.budgets:
        measured += CRAFTED if settings.attack.kind == "crafted" else []
        # The primary format comes first; other tables need the logits of unrounded images.
        formats = dict.fromkeys((settings.storage or AS_SAVED, *settings.variants))
        measured += map(Predictions, formats)
        measured += [Control(name, universal) for name in CONTROLS if settings.controls]
    for diagnostic in DIAGNOSTICS:
        switch = getattr(asked, str(diagnostic.switched_by))
        on = {diagnostic.name, "all"} & {*switch} if diagnostic.switched_by == "tables" else switch
        if on and (settings.budgets or not diagnostic.attacked):
            measured.append(diagnostic)
    return measured
