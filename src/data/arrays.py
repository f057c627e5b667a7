"""Images and labels in array files, read image by image."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..utils.files import reading
from ..utils.refusals import shortened, warn_once
from .dataset import LabelledImages

NAMES = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "test": (("images", "labels"), ("test_images", "test_labels"), ("x_test", "y_test")),
}
"""Names of images and labels in a `.npz` file, by split; capitals make no difference."""
_LARGEST = 2**30  # bytes of an array that must be read as a whole
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _ArrayImages(LabelledImages):
    """Images in an array in the form that `arrays` takes, each converted when it is read."""

    def __getitem__(self, position: int) -> tuple[np.ndarray, int]:
        array: Any = self.images
        image = np.array(array[position], array.dtype.newbyteorder("="))
        levels = grey_levels(torch.from_numpy(image), rounded=True).numpy()
        if array.ndim == 4 and array.shape[1] in (1, 3):
            levels = levels.transpose(1, 2, 0)
        grey = levels.shape[2:] == (1,)
        return levels[..., 0] if grey else levels, int(self.targets[position])


def grey_levels(images: Tensor, rounded: bool = False) -> Tensor:
    """Return images as uint8, 0..255, from uint8 or from floats in [0, 1].

    Args:
        images: Images of any shape.
        rounded: Round floats that are not multiples of 1/255, and log so once.

    Raises:
        ValueError: The images have other values, or without `rounded` are not multiples of 1/255.
    """
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}. Convert values from 0 to 255 to uint8.")
    levels = (images * 255).round()
    if not images.isfinite().all() or levels.min() < 0:
        hint = "some are negative or not finite. Move the normalisation into the module"
    elif levels.max() > 255:
        hint = "some are above 1. Convert values from 0 to 255 with images.to(torch.uint8)"
    elif ((images * 255 - levels).abs() < 0.01).all():
        return levels.to(torch.uint8)
    elif rounded:
        warn_once("The images are rounded to multiples of 1/255.")
        return levels.to(torch.uint8)
    else:
        hint = "these are not. Round them: (255 * images).round().to(torch.uint8)"
    raise ValueError(f"images must be uint8, or multiples of 1/255 in [0, 1]: {hint}.")


def arrays(split: str, *, file: str | None, labels: str | None = None) -> LabelledImages:
    """Load one split, `train` or `test`, from a `.npz` file, or `test` from two `.npy` files.

    Images are uint8, or floats in [0, 1], which are rounded to multiples of 1/255. Their shape is
    (N, 3, H, W) or (N, H, W, 3), or has one channel or none. Labels are whole numbers from 0 on,
    shape (N,) or (N, 1). A `.npz` file may hold both splits under `NAMES`, and `class_names`. Files
    are mapped into memory; only compressed arrays are read as a whole.

    Args:
        split: `train` or `test`.
        file: `.npz` file, or `.npy` file of the images.
        labels: `.npy` file of the labels.

    Raises:
        ValueError: A file cannot be read, or lacks the split, or images and labels do not fit.
    """
    if not file:
        raise ValueError("dataset.file is not set. Set it to a .npz file")
    path, classes = Path(file).expanduser(), None
    with reading(file, "images with labels"):
        for given in filter(None, (file, labels)):
            if not Path(given).expanduser().is_file():  # a pipe would wait for ever
                raise ValueError(f"{given} is not a file")
        if path.suffix.lower() == ".npz":
            if labels is not None:
                raise ValueError("a .npz file has its own labels. Leave out dataset.labels")
            images, numbers, classes = _open_npz(path, NAMES[split])
        elif labels is None or split == "train":
            raise ValueError(f"it has no {split} labels. Set dataset.labels, or use a .npz file")
        else:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
            numbers = np.load(Path(labels).expanduser(), allow_pickle=False)
        if images.dtype.kind not in "uif" or images.dtype.itemsize > 8:
            raise ValueError(f"images are {images.dtype}. Save uint8, or floats in [0, 1]")
        if images.ndim != 3 and not (images.ndim == 4 and {1, 3} & {*images.shape[1::2]}):
            raise ValueError(f"images have shape {images.shape}, not (N, 3, H, W) or (N, H, W, 3)")
        numbers = numbers[:, 0] if numbers.shape[1:] == (1,) else numbers
        return _ArrayImages(images, check_whole("labels", numbers, len(images)), classes)


def check_whole(key: str, numbers: np.ndarray, count: int) -> np.ndarray:
    """Return `numbers`; refuse them if they are not whole numbers, shape (count,)."""
    if numbers.dtype.kind not in "iu" or numbers.shape != (count,):
        raise ValueError(
            f"{key} must be {count} whole numbers, one per image, not {numbers.dtype} of shape "
            f"{numbers.shape}."
        )
    return numbers


def _open_npz(
    path: Path, names: Sequence[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Return the images, the labels and, if present, the class names in a `.npz` file."""
    with zipfile.ZipFile(path) as archive:
        stored = dict[str, zipfile.ZipInfo]()
        for info in archive.infolist():
            other = stored.setdefault(info.filename.removesuffix(".npy").lower(), info)
            if other is not info:
                raise ValueError(f"it has both {other.filename} and {info.filename}. Remove one")
        pair = next((pair for pair in names if {*pair} <= stored.keys()), None)
        if pair is None:
            raise ValueError(f"it has {shortened([*stored])}, not {' and '.join(names[0])}")
        images, labels = (_read_member(archive, stored[name]) for name in pair)
        classes = None
        if "class_names" in stored:
            classes = _read_member(archive, stored["class_names"]).astype(str).tolist()
        return images, labels, classes


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """Map an array of a `.npz` file if it has plain numbers that fill its member, else read it."""
    path, start = str(archive.filename), info.header_offset
    with archive.open(info) as member:
        reader = _HEADERS.get(np.lib.format.read_magic(member))
        if reader and info.compress_type == zipfile.ZIP_STORED:
            shape, fortran, dtype = reader(member)
            begin, size = member.tell(), 0
            while block := member.read(2**20):  # until the end, where its checksum is compared
                size += len(block)
            if dtype.kind in "biuf" and size == math.prod(shape) * dtype.itemsize > 0:
                lengths = np.fromfile(path, "<u2", 2, offset=start + 26)  # of name and extra field
                begin += start + 30 + int(lengths.sum())
                return np.memmap(path, dtype, "r", begin, shape, "F" if fortran else "C")
    if info.file_size > _LARGEST:
        raise ValueError(f"{info.filename} is too large. Save plain numbers with numpy.savez")
    with archive.open(info) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
