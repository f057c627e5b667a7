"""Attack once, show every target the same images, and gather tables of predictions."""

from src.evaluation.attacker import (
    AIMS,
    GIVEN,
    Attack,
    Attacker,
    Made,
    Maker,
    accepted,
)
from src.evaluation.forms import CONTROLS, STORED, Forms
from src.evaluation.predictions import Predictions
from src.evaluation.run import (
    PREDICTIONS,
    Evaluation,
    evaluate,
    make_trainer,
    score_clean,
    write_table,
)

__all__ = [
    "AIMS",
    "CONTROLS",
    "GIVEN",
    "PREDICTIONS",
    "STORED",
    "Attack",
    "Attacker",
    "Evaluation",
    "Forms",
    "Made",
    "Maker",
    "Predictions",
    "accepted",
    "evaluate",
    "make_trainer",
    "score_clean",
    "write_table",
]
