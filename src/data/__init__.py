"""Data sets: callables that return one split, as in torchvision, and `ImageDataset` on top."""

from .dataset import Batch, ImageDataset, LabelledImages, to_unit
from .files import to_rgb
from .load import load_dataset
from .subset import balanced_subset
