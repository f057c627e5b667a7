"""Build the data set that a `dataset` configuration describes."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import hydra.utils
import numpy as np
from hydra.errors import InstantiationException

from src.data.dataset import ImageDataset, ImageRecords, check_split, shortened

KEYS = (
    "name",
    "loader",
    "root",
    "n_images",
    "seed",
    "image_size",
    "num_classes",
    "class_names",
)


def load_dataset(config: Mapping[str, Any], split: str) -> ImageDataset:
    """Load one split of the data set that a resolved `dataset` configuration describes.

    `n_images` and `seed` choose a subset of the test split only; training takes its whole split.

    Args:
        config: the keys of conf/dataset/NAME.yaml as plain Python values.
        split: `train` or `test`.

    Returns:
        The data set, with checked classes and names.

    Raises:
        ValueError: if a key is missing or wrong, or the data cannot be read as it says.
    """
    check_split(split)
    missing = [key for key in KEYS if key not in config]
    if missing:
        raise ValueError(f"the dataset configuration lacks the key(s) {', '.join(missing)}")
    records = call_loader(config["loader"], split)
    records = with_classes(records, config["num_classes"], config["class_names"])
    test = split == "test"
    return ImageDataset(
        records,
        n_images=config["n_images"] if test else None,
        seed=config["seed"] if test else 0,
        image_size=config["image_size"],
    )


def call_loader(loader: Mapping[str, Any], split: str) -> ImageRecords:
    """Call the loader that `loader._target_` names with its other keys and the split.

    Raises:
        ValueError: if there is no such callable, it does not take these keys, or it refuses them.
    """
    target = loader.get("_target_")
    try:
        # Only the look-up is left to Hydra, which would wrap the loader's own errors in its own.
        function = hydra.utils.instantiate(dict(loader), _partial_=True, _convert_="all")
    except InstantiationException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"dataset.loader._target_={target!r} cannot be used: {reason}") from error
    try:
        inspect.signature(function.func).bind(*function.args, **function.keywords, split=split)
    except TypeError as error:
        raise ValueError(f"dataset.loader does not fit {target}: {error}") from error
    records = function(split=split)
    if not isinstance(records, ImageRecords):
        raise ValueError(
            f"dataset.loader._target_={target} returned {type(records).__name__}, not ImageRecords"
        )
    return records


def with_classes(
    records: ImageRecords, num_classes: int | None, class_names: str | Sequence[str] | None
) -> ImageRecords:
    """Check the number of classes of a split and give them the configured names.

    Where every class of the data is in `class_names`, the classes are numbered as they stand
    there (so folders named after some of a model's classes get that model's numbers); else
    `class_names` are new names for the classes in the order of the data.

    Args:
        records: the split, with the classes of the data.
        num_classes: how many there must be; None: as many as there are names.
        class_names: names, or `imagenet`; None: those of the data.

    Raises:
        ValueError: if numbers and names do not fit together.
    """
    found = len(records.class_names)
    if num_classes is not None and found > num_classes:
        raise ValueError(
            f"dataset.num_classes={num_classes}, but the data has {found} classes: "
            f"{shortened(records.class_names)}"
        )
    if class_names is not None:
        records = renamed(records, class_names_of(class_names))
    named = len(records.class_names)
    if num_classes is not None and named != num_classes:
        raise ValueError(
            f"dataset.num_classes={num_classes}, but there are {named} class names "
            f"({shortened(records.class_names)}): give all of them as dataset.class_names"
        )
    return records


def class_names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return class names: `imagenet` stands for the 1000 names of ImageNet-1k, a list for itself.

    Raises:
        ValueError: if `names` is another word, or an empty list.
    """
    if isinstance(names, str):
        if names != "imagenet":
            raise ValueError(
                f"dataset.class_names={names!r} is not a list of names, null or 'imagenet'"
            )
        from torchvision.models import ResNet50_Weights

        return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    if not names:
        raise ValueError("dataset.class_names is an empty list")
    return tuple(str(name) for name in names)


def renamed(records: ImageRecords, names: tuple[str, ...]) -> ImageRecords:
    """Number the classes as in `names` where it holds them all, else rename them in order."""
    if set(records.class_names) <= set(names):
        twice = [name for name in records.class_names if names.count(name) > 1]
        if twice:
            raise ValueError(f"dataset.class_names holds {twice[0]!r} more than once")
        number = np.array([names.index(name) for name in records.class_names], dtype=np.int64)
        targets = records.target_labels
        return dataclasses.replace(
            records,
            labels=number[records.labels],
            target_labels=None if targets is None else number[targets],
            class_names=names,
        )
    if len(names) != len(records.class_names):
        raise ValueError(
            f"dataset.class_names holds {len(names)} names for the {len(records.class_names)} "
            f"classes of the data ({shortened(records.class_names)})"
        )
    return dataclasses.replace(records, class_names=names)
