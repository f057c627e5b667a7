"""CIFAR-10 without a download: 1,000 test and 5,000 training images inside the package.

The images are JPEG copies, not the official bytes (see src/assets/NOTICE). They are the first 100
test files and 500 training files of each class, by name.
"""

import tarfile
from functools import lru_cache
from itertools import islice

import numpy as np
import PIL

from ..utils.files import remembered
from ..utils.package import find_asset
from .dataset import LabelledImages
from .files import CODE, to_rgb

ARCHIVE = find_asset("assets/cifar10-mini.tar.xz")
"""Archive of `SPLIT/CLASS/NUMBER.jpg`: test images first, each split sorted by number and class."""
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIZES = {"test": 1000, "train": 5000}


@lru_cache(maxsize=4)  # a job opens a subset of a split and the whole split
def cifar10_mini(split: str, *, n_train: int = 5000, n_test: int = 1000) -> LabelledImages:
    """Load one split of 32 x 32 RGB images; the class of image i is i modulo 10.

    Args:
        split: `train` or `test`.
        n_train: number of training images to take, up to 5,000, from the first one on.
        n_test: number of test images to take, up to 1,000, from the first one on.
    """
    key, wanted = ("n_train", n_train) if split == "train" else ("n_test", n_test)
    if not isinstance(wanted, int) or not 1 <= wanted <= SIZES[split]:
        raise ValueError(f"dataset.{key}={wanted}: use a whole number from 1 to {SIZES[split]}")
    first = SIZES["test"] if split == "train" else 0

    def decode() -> np.ndarray:
        with tarfile.open(ARCHIVE) as archive:
            members = islice(archive, first, first + wanted)
            return np.stack([to_rgb(archive.extractfile(member)) for member in members])

    images = remembered(f"Pillow {PIL.__version__}: {first} {wanted}", [ARCHIVE, *CODE], decode)
    return LabelledImages(images, np.arange(wanted) % len(CLASSES), CLASSES)
