"""Training of models without weights, and the cache of trained weights."""

from .checkpoint import TRAINING, after_epoch, choose_precision, train_once
from .module import Craft, augment
