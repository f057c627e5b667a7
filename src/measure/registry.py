"""All measurements, in the order in which a batch is measured."""

from src.measure.adversarial_images import AdversarialImages
from src.measure.attack_cost import AttackCost
from src.measure.band_filters import BandFilters, LowPassed
from src.measure.clean import Clean
from src.measure.controls import Controls
from src.measure.defended_targets import DefendedTargets
from src.measure.features import Features
from src.measure.gradient_similarity import GradientSimilarity
from src.measure.iterations import Iterations
from src.measure.minimum_budget import MinimumBudget
from src.measure.predictions import Predictions
from src.measure.protocol import Measurement
from src.measure.spectra import Spectra
from src.measure.visibility import Visibility

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
