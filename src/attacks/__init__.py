"""Attacks: functions from (model, images, labels, eps) to adversarial images."""

from ..utils.checked_dataclass import Share, checked
from . import zoo
from .adapter import adapt
from .define import ALL_BUT_NORM, Attack, attack
from .fields import GreyLevels, Names, OddSize
from .landscape import Landscape
from .libraries import torchattacks
from .losses import LOSSES, Losses, loss_of_each
from .parts import (
    BackwardRule,
    Estimator,
    Gradient,
    Objective,
    Problem,
    State,
    StatefulPart,
    Transform,
    Update,
)
from .per_image_random import PerImageRandom, Philox, image_seeds, noise_signs, shuffle_pixels
from .projection import average, clip, direction, mean_size, project, rms
from .settings import Settings
from .source import Model, Source, change_gradient, layers_of, members_of
from .steps import steepest_ascent
from .training_images import TrainingBatch, TrainingImages
from .transferattack_clone import transferattack

globals().update(zoo.offered())
