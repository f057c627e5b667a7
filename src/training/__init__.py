"""Fine-tuning, used when a model has no weights, and the cache of what was trained."""

from src.training.checkpoint import Recipe, trained_weights

__all__ = ["Recipe", "trained_weights"]
