"""Evaluation of targets on adversarial images, which are crafted once for all of them."""

from src.evaluation.adversarial_source import (
    AdversarialBatch,
    AdversarialSource,
    Probe,
    clean_images,
)
from src.evaluation.attacker import Attack, Attacker, CountedModel, accepted
from src.evaluation.batches import Batches
from src.evaluation.diagnostic import Diagnostic, DiagnosticInput
from src.evaluation.evaluate import Evaluation, evaluate, renamed, score_clean
from src.evaluation.foreign_images import open_foreign_images
from src.evaluation.lightning_module import CRAFTING, IMAGES, Transfer, total
from src.evaluation.predictions import Predictions
from src.evaluation.saved_images import (
    UNKNOWN,
    Breach,
    LazyImages,
    SavedImages,
    SavedImagesSource,
    saved_dataset,
)
from src.evaluation.storage import round_to_8_bits
from src.evaluation.trainer import for_device, make_trainer, meet
from src.evaluation.variants import STORED, AttackedBatch, Variants
