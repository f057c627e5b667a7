"""Attack once, show every target the same images, and gather tables of predictions."""

from src.evaluation.attacker import (
    AIMS,
    GIVEN,
    AdversarialBatch,
    AdversarialSource,
    Attack,
    Attacker,
    accepted,
)
from src.evaluation.evaluate import (
    PREDICTIONS,
    Evaluation,
    evaluate,
    make_trainer,
    score_clean,
    write_table,
)
from src.evaluation.predictions import Predictions
from src.evaluation.variants import CONTROLS, STORED, Variants

__all__ = [
    "AIMS",
    "CONTROLS",
    "GIVEN",
    "PREDICTIONS",
    "STORED",
    "AdversarialBatch",
    "AdversarialSource",
    "Attack",
    "Attacker",
    "Evaluation",
    "Predictions",
    "Variants",
    "accepted",
    "evaluate",
    "make_trainer",
    "score_clean",
    "write_table",
]
