"""Classes by name and number, and the names and WordNet ids of ImageNet-1k."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..utils.refusals import class_order, printable, shortened, warn_once


def numbers_of(names: Sequence[str]) -> list[int] | None:
    """Return names as whole numbers, such as 7 for `007`; None if one of them is no number."""
    numbers = [int(name) for name in names if re.fullmatch(r"[+-]?[0-9]{1,18}", name)]
    return numbers if names and len(numbers) == len(names) else None


def sort_folders(names: Sequence[str]) -> list[str]:
    """Sort the names of class folders: by value if all are whole numbers, else as text.

    If timm or torchvision sorts them in another way, the log says so once.
    """
    ordered, numbers = sorted(names), numbers_of(names)
    tool, way, others = "timm", "text", sorted(names, key=_natural)
    if numbers is not None:
        if len({*numbers}) < len(numbers):
            raise ValueError(f"class folders have equal numbers: {shortened(ordered)}")
        tool, way, others = "torchvision", "numbers", ordered
        ordered = [name for _, name in sorted(zip(numbers, names, strict=True))]
    if ordered != others:
        warn_once(
            f"The class folders are sorted as {way}: {shortened(ordered)}. For a network that was "
            f"trained with {tool}'s order ({shortened(others)}): {class_order(others)}."
        )
    return ordered


def _natural(name: str) -> list[str | int]:
    """Return a key that sorts as timm does: in small letters, and numbers by value."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the names of the 1,000 classes of ImageNet-1k, as torchvision writes them."""
    from torchvision.models import ResNet50_Weights

    return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])


@cache
def imagenet_ids() -> tuple[str, ...]:
    """Return the WordNet ids of the 1,000 classes of ImageNet-1k, in the order of the classes."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def is_imagenet(names: Sequence[str]) -> bool:
    """Return True for the 1,000 names of ImageNet-1k."""
    return len(names) == 1000 and tuple(names) == imagenet_names()


def place_classes(classes: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Return the position of each class in `names`; None if one of them has none.

    Classes are found by name. In 1,000 names, they are also found by WordNet id of ImageNet, and in
    those of ImageNet by number, 0 to 999, if all classes are ids or all are numbers.
    """
    lists = [names, imagenet_ids()] if len(names) == 1000 else [names]
    if is_imagenet(names):
        lists.append([str(number) for number in range(len(names))])
        classes = [str(name) for name in numbers_of(classes) or classes]
    for listed in lists:
        places = {name: place for place, name in enumerate(listed)}
        if {*classes} <= places.keys():
            return [places[name] for name in classes]
    return None


def choose_names(
    data: Any, num_classes: int | None, class_names: str | Sequence[str] | None
) -> tuple[str, ...]:
    """Return the names of the classes: as configured, from the data, or their numbers."""
    names: Any = imagenet_names() if class_names == "imagenet" else class_names
    classes = getattr(data, "classes", None) or names
    if names is None and num_classes == 1000 and {*(classes or "-")} <= {*imagenet_ids()}:
        names = imagenet_names()
    if classes is None:
        classes = range(num_classes or int(np.max(np.asarray(data.targets), initial=0)) + 1)
    classes = printable_names(classes)
    names = classes if names is None else printable_names(names)
    if place_classes(classes, names) is not None:
        classes = names
    elif is_imagenet(names) and all(re.fullmatch(r"n\d{8}|[+-]?\d+", name) for name in classes):
        others = [name for name in classes if place_classes([name], names) is None]
        raise ValueError(
            "dataset.class_names=imagenet needs classes that are WordNet ids of its 1,000 classes, "
            f"or numbers from 0 to 999, not {(others or classes)[0]}"
        )
    else:
        _refuse_other_order(classes, names)
    if len(names) != len(classes) or num_classes not in (None, len(names)):
        raise ValueError(
            f"dataset.class_names={str(class_names)[:200]} and dataset.num_classes={num_classes} "
            f"do not fit the {len(classes)} classes ({', '.join(classes[:5])}, ...). "
            "For the data's own names, or numbers, set dataset.class_names=null and "
            "dataset.num_classes=null"
        )
    return names


def _refuse_other_order(classes: Sequence[str], names: Sequence[str]) -> None:
    """Refuse names that lack some classes and have others in another place than the data.

    Names of which none is in another place rename the classes.
    """
    places = [place_classes([name], names) for name in classes]
    moved = [name for at, name in enumerate(classes) if places[at] not in (None, [at])]
    if moved and None in places:
        raise ValueError(
            f"dataset.class_names lacks {classes[places.index(None)]}, and has {moved[0]} in "
            "another place than the data. Name the classes alike"
        )


def printable_names(names: Sequence[Any]) -> tuple[str, ...]:
    """Return names as texts that a terminal can print."""
    return tuple(printable(str(name)) for name in names)


def number_by(names: Sequence[str], data: Any, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the labels by `names` if these contain the names of all of the data's classes."""
    classes = printable_names(getattr(data, "classes", None) or ())
    if not classes or classes == tuple(names):
        return labels
    if twice := [name for name in classes if names.count(name) > 1]:
        raise ValueError(
            f"dataset.class_names lists {twice[0]} twice. Give each class a name of its own"
        )
    places = place_classes(classes, names)
    return labels if places is None else np.array(places)[labels]


def check_labels(name: str, labels: Sequence[int] | np.ndarray, num_classes: int) -> np.ndarray:
    """Return labels as int64 (N,) after checking that they are in 0..num_classes - 1."""
    numbers = np.asarray(labels)
    if not len(numbers):
        raise ValueError("the data set has no images")
    if numbers.dtype.kind not in "iu":
        raise ValueError(f"{name} are {numbers.dtype}, not whole numbers")
    outside = numbers[(numbers < 0) | (numbers >= num_classes)]
    if len(outside):
        raise ValueError(f"{name} have {outside[0]}, which is not between 0 and {num_classes - 1}")
    return numbers.astype(np.int64)
