"""CIFAR-10 as its authors publish it, through torchvision."""

import logging
from pathlib import Path

from filelock import FileLock
from torchvision.datasets import CIFAR10

log = logging.getLogger(__name__)


def cifar10(split: str, *, root: str) -> CIFAR10:
    """Load one split of CIFAR-10: 50,000 training or 10,000 test images of 32 x 32 pixels.

    The archive (170 MB) is downloaded into `root` where its files are missing or damaged; of
    several processes one does it, and the others wait.

    Args:
        split: `train` or `test`.
        root: folder that holds, or shall hold, `cifar-10-batches-py`.

    Raises:
        ValueError: if the data cannot be downloaded.
    """
    folder, train = Path(root).expanduser(), split == "train"
    try:
        return CIFAR10(folder, train)
    except RuntimeError:  # there is none, or its checksums are wrong
        log.info("downloading CIFAR-10 (170 MB) to %s", folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "download.lock"):
            return CIFAR10(folder, train, download=True)
    except Exception as error:  # of the network, the disk, the archive
        raise ValueError(
            f"cannot download CIFAR-10 to {folder} ({error}): give dataset.root=FOLDER that "
            "holds cifar-10-batches-py, or try dataset=cifar10_mini, which needs no download"
        ) from error
