"""All measurements, in the order in which a batch is measured."""

from .adversarial_images import AdversarialImages
from .attack_cost import AttackCost
from .band_filters import BandFilters, LowPassed
from .clean import Clean
from .controls import Controls
from .defended_targets import DefendedTargets
from .features import Features
from .gradient_similarity import GradientSimilarity
from .iterations import Iterations
from .minimum_budget import MinimumBudget
from .predictions import Predictions
from .protocol import Measurement
from .spectra import Spectra
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
    Features(),
)
