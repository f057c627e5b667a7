"""CIFAR-10 as its authors publish it, through torchvision."""

import logging
import tarfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
from filelock import FileLock
from torchvision.datasets import CIFAR10

from src.data.dataset import ImageRecords, check_split

INSTEAD = (
    "give dataset.root=FOLDER that holds cifar-10-batches-py, or try dataset=photos, "
    "which needs no download"
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Images in memory, uint8 (N, H, W, 3)."""

    images: np.ndarray

    def read(self, position: int) -> np.ndarray:
        """Return an image as uint8 (H, W, 3) RGB."""
        image: np.ndarray = self.images[position]
        return image

    def content(self, position: int) -> bytes:
        """Return the pixels of an image as bytes."""
        return self.read(position).tobytes()


def cifar10(split: str, *, root: str | None) -> ImageRecords:
    """Load one split of CIFAR-10: 50,000 training or 10,000 test images of 32 x 32 pixels.

    The archive (170 MB) is downloaded into `root` if it is not there yet.

    Args:
        split: `train` or `test`.
        root: the folder that holds, or shall hold, `cifar-10-batches-py`.

    Raises:
        ValueError: if the data cannot be downloaded, or its checksums are wrong.
    """
    check_split(split)
    if root is None:
        raise ValueError("dataset.root is not set: give a folder for CIFAR-10")
    folder = Path(root).expanduser()
    unpacked = folder / CIFAR10.base_folder
    if not unpacked.is_dir():
        download(folder)
    try:
        data = CIFAR10(folder, train=split == "train")
    except RuntimeError as error:
        raise ValueError(
            f"{unpacked} is incomplete or corrupt (its checksums differ): "
            "delete it to have it unpacked or downloaded again"
        ) from error
    images = ArrayImages(data.data)
    return ImageRecords(
        labels=np.asarray(data.targets, dtype=np.int64),
        class_names=tuple(data.classes),
        read=images.read,
        content=images.content,
    )


def download(folder: Path) -> None:
    """Download and unpack the archive, showing progress; one process does it, others wait.

    Raises:
        ValueError: if that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "download.lock"):
            if not (folder / CIFAR10.base_folder).is_dir():
                logger.info("downloading CIFAR-10 (170 MB) to %s", folder)
                CIFAR10(folder, download=True)
    except (OSError, RuntimeError, HTTPException, tarfile.TarError, EOFError) as error:
        raise ValueError(f"cannot download CIFAR-10 to {folder} ({error}): {INSTEAD}") from error
