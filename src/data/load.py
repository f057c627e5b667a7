"""Loading of a split by the callable that a data set's file names."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from filelock import FileLock

from src.data.dataset import ImageDataset
from src.utils.call_target import call_target


class DownloadError(ValueError):
    """Data that are not in their `root` and cannot be downloaded."""

    def __init__(self, reason: str, root: str) -> None:
        super().__init__(
            f"{reason}: nothing in dataset.root={root}, and no download; give the folder, or "
            "dataset=cifar10_mini"
        )
        self.root = root


def load_dataset(
    split: str,
    source: Mapping[str, Any],
    *,
    n_images: int | None = None,
    lock_folder: Path | None = None,
    **options: Any,
) -> ImageDataset:
    """Load one split, `train` or `test`, of the data set that a `dataset` configuration describes.

    Args:
        split: Passed as `train` (true or false) where the callable takes it, else as `split`.
        source: `_target_`, a callable that returns a map-style data set, such as a class of
            torchvision's, and its other keyword arguments.
        n_images: size of a fixed, class-balanced subset of the test split; training takes all.
        lock_folder: folder of the lock under which one process downloads; None: no lock.
        options: further arguments of `ImageDataset`.
    """
    target = str(source.get("_target_"))
    try:
        takes_train = "train" in inspect.signature(resolve_name(target)).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        takes_train = False  # it cannot be found, which the call says
    chosen = {"train": split == "train"} if takes_train else {"split": split}
    data = _open({**source, **chosen}, lock_folder)
    if not hasattr(data, "targets"):
        raise ValueError(
            f"dataset._target_={target} returned {type(data).__name__}, which has no `targets`"
        )
    if split == "train":
        n_images = options["images"] = None
    return ImageDataset(data, n_images=n_images, **options)


def _open(source: Mapping[str, Any], lock_folder: Path | None) -> Any:
    """Call a data set's `_target_`; of several processes one downloads, and the others wait."""
    if not source.get("download") or lock_folder is None:
        return call_target(source)
    lock_folder.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_folder / "download.lock"):
        try:
            return call_target(source)
        except ValueError as error:  # of the network, the disk, the archive
            if isinstance(getattr(error.__cause__, "__cause__", None), ValueError):
                raise  # the callable refuses its arguments
            raise DownloadError(f"{error}", str(source.get("root"))) from error
