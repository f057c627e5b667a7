"""Data sets: callables that return one split, as in torchvision, and `ImageDataset` on top."""

from src.data.dataset import Batch, ImageDataset, LabelledImages, to_unit
from src.data.files import to_rgb
from src.data.load import load_dataset
from src.data.subset import balanced_subset
