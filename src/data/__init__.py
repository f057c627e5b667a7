"""Data sets: loaders that return one split as `ImageRecords`, and `ImageDataset` on top of them."""

from src.data.dataset import (
    SPLITS,
    Batch,
    ImageDataset,
    ImageRecords,
    check_split,
    class_numbers,
    keep_batch,
    to_unit,
)
from src.data.loading import class_names_of, load_dataset
from src.data.subset import balanced_subset

__all__ = [
    "SPLITS",
    "Batch",
    "ImageDataset",
    "ImageRecords",
    "balanced_subset",
    "check_split",
    "class_names_of",
    "class_numbers",
    "keep_batch",
    "load_dataset",
    "to_unit",
]
