"""All measurements, in the order in which a batch is measured."""

from .attack_cost import AdversarialImages, AttackCost
from .frequencies import BandFilters, LowPassed, Spectra
from .iterations import Iterations
from .minimum_budget import MinimumBudget
from .predictions import Clean, Controls, DefendedTargets, Predictions
from .protocol import Measurement
from .similarity import GradientSimilarity
from .visibility import Visibility

MEASUREMENTS: tuple[Measurement, ...] = (
    Clean(),
    AttackCost(),
    AdversarialImages(),
    Predictions(),  # before tables that need the logits of unrounded images
    DefendedTargets(),
    Controls(),
    MinimumBudget(),
    Spectra(),
    Visibility(),
    Iterations(),
    BandFilters(),
    LowPassed(),
    GradientSimilarity(),
)
