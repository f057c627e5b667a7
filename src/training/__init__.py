"""Training of models without weights, and the cache of trained weights."""

from src.training.checkpoint import TRAINING, after_epoch, choose_precision, train_once
from src.training.module import Craft, augment
