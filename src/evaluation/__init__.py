"""Attack once, show every target the same images, and gather one table of predictions."""

from src.evaluation.predictions import Predictions
from src.evaluation.run import PREDICTIONS, Evaluation, evaluate, score_clean, write_table

__all__ = ["PREDICTIONS", "Evaluation", "Predictions", "evaluate", "score_clean", "write_table"]
