"""Attack once, show every target the same images, and gather one table of predictions."""

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
    "PREDICTIONS",
    "Evaluation",
    "Predictions",
    "evaluate",
    "make_trainer",
    "score_clean",
    "write_table",
]
