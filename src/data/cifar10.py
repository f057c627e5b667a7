"""CIFAR-10 as its authors publish it, through torchvision."""

import logging
from pathlib import Path

from filelock import FileLock
from torchvision.datasets import CIFAR10

log = logging.getLogger(__name__)


def cifar10(split: str, *, root: str | None) -> CIFAR10:
    """Load one split of CIFAR-10: 50,000 training or 10,000 test images of 32 x 32 pixels.

    The archive (170 MB) is downloaded into `root` if it is not there yet; of several processes
    one does it, and the others wait.

    Args:
        split: `train` or `test`.
        root: the folder that holds, or shall hold, `cifar-10-batches-py`.

    Raises:
        ValueError: if the data cannot be downloaded, or its checksums are wrong.
    """
    if root is None:
        raise ValueError("dataset.root is not set: give a folder for CIFAR-10")
    folder = Path(root).expanduser()
    files = folder / CIFAR10.base_folder
    if not files.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "download.lock"):
                if not files.is_dir():
                    log.info("downloading CIFAR-10 (170 MB) to %s", folder)
                    CIFAR10(folder, download=True)
        except Exception as error:  # of the network, the disk, the archive
            raise ValueError(
                f"cannot download CIFAR-10 to {folder} ({error}): give dataset.root=FOLDER that "
                "holds cifar-10-batches-py, or try dataset=photos, which needs no download"
            ) from error
    try:
        return CIFAR10(folder, train=split == "train")
    except RuntimeError as error:
        raise ValueError(
            f"{files} is incomplete or corrupt (its checksums differ): "
            "delete it to have it unpacked or downloaded again"
        ) from error
