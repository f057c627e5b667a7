"""Build the data set that a `dataset` configuration describes."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.utils import get_object

from src.data.dataset import ImageDataset
from src.utils.targets import call_target

SPLITS = ("train", "test")


def load_dataset(
    split: str,
    source: Mapping[str, Any],
    *,
    n_images: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    num_classes: int | None = None,
    class_names: str | Sequence[str] | None = None,
) -> ImageDataset:
    """Load one split of a data set.

    Args:
        split: `train` or `test`.
        source: `_target_`, a callable that returns a map-style data set, such as a class of
            torchvision's, and its keyword arguments but the split: that is passed as `train`
            (true or false) where the callable takes it, else as `split`.
        n_images: size of a fixed, class-balanced subset of the test split; training takes all.
        seed: of the subset.
        image_size: see `ImageDataset`.
        num_classes: see `ImageDataset`.
        class_names: see `ImageDataset`.

    Raises:
        ValueError: if an argument is wrong, or the data cannot be read as it says.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    target = str(source.get("_target_"))
    chosen = {"train": split == "train"} if _takes_train(target) else {"split": split}
    data = call_target({**source, **chosen})
    if not hasattr(data, "targets"):
        raise ValueError(
            f"dataset._target_={target} returned {type(data).__name__}, which has no `targets`"
        )
    return ImageDataset(
        data,
        n_images=n_images if split == "test" else None,
        seed=seed,
        image_size=image_size,
        num_classes=num_classes,
        class_names=class_names,
    )


def _takes_train(target: str) -> bool:
    """Tell whether a callable has a parameter `train`; one that is not there has none."""
    try:
        return "train" in inspect.signature(get_object(target)).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        return False
