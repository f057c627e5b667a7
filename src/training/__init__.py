"""Fine-tuning, used when a model has no weights, and the cache of what was trained."""

from src.training.checkpoint import seconds_of_training, trained_weights
from src.training.data import augment
