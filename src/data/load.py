"""Load a split with the callable that a data set's file names."""

import inspect
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..utils.call_target import call_target
from ..utils.package import resolve
from .dataset import ImageDataset


def load_dataset(split: str, source: Mapping[str, Any], **options: Any) -> ImageDataset:
    """Load one split, `train` or `test`, of the data set that a `dataset` section describes.

    Args:
        split: Passed as `train` (true or false) if the callable has this argument, else as `split`.
        source: `_target_`, a callable that returns a map-style data set, such as a class of
            torchvision's, and its other keyword arguments.
        options: Further arguments of `ImageDataset`, such as the `n_images` of a fixed,
            class-balanced subset of the test split; the training split is always complete.
    """
    return make_dataset(open_source(split, source), split, **options)


def open_source(split: str, source: Mapping[str, Any], lock_folder: Path | None = None) -> Any:
    """Return the map-style data set of one split; see `load_dataset`.

    `lock_folder` is the folder of the lock that a process holds while it downloads; None: no lock.
    """
    target = str(source.get("_target_"))
    try:
        takes_train = "train" in inspect.signature(resolve(target)).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        takes_train = False  # not found; the call below raises the error
    chosen = {"train": split == "train"} if takes_train else {"split": split}
    data = _open({**source, **chosen}, lock_folder)
    if not hasattr(data, "targets"):
        raise ValueError(
            f"dataset._target_={target} returned {type(data).__name__}, which has no `targets`"
        )
    return data


def make_dataset(data: Any, split: str, **options: Any) -> ImageDataset:
    """Return a split's map-style data set as an `ImageDataset`; a training split is complete."""
    if split == "train":
        options |= {"n_images": None, "images": None}
    return ImageDataset(data, **options)


def _open(source: Mapping[str, Any], lock_folder: Path | None) -> Any:
    """Call a data set's `_target_`; if several processes do so, one downloads and others wait."""
    if not source.get("download") or lock_folder is None:
        return call_target(source)
    with ExitStack() as locks:
        with suppress(OSError):  # a read-only cache: the images should be there
            lock_folder.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(lock_folder / "download.lock"))
        try:
            return call_target(source)
        except ValueError as error:  # from the network, the disk or the archive
            if isinstance(error.__cause__, ValueError):
                raise  # the callable refused its arguments
            raise ValueError(
                f"{error}: dataset.root={source.get('root')} has no data, and the download failed. "
                "Set dataset.root to their folder, use dataset=image_folder with images of yours, "
                "or experiment=demo with those of the program"
            ) from error
