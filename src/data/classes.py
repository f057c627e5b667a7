"""Classes by name: names that are numbers, and the names and WordNet ids of ImageNet-1k."""

import re
from collections.abc import Sequence
from functools import cache

from src.utils.refusals import shortened, warn_once


def numbers_of(names: Sequence[str]) -> list[int] | None:
    """Return names as whole numbers, such as 7 for `007`; None if one of them is no number."""
    numbers = [int(name) for name in names if re.fullmatch(r"[+-]?[0-9]{1,18}", name)]
    return numbers if names and len(numbers) == len(names) else None


def sort_folders(names: Sequence[str]) -> list[str]:
    """Sort the names of class folders: by value if all are whole numbers, else as text.

    If some are numbers, the log states the order once.
    """
    ordered, numbers = sorted(names), numbers_of(names)
    if numbers is not None:
        if len({*numbers}) < len(numbers):
            raise ValueError(f"class folders have equal numbers: {shortened(ordered)}")
        ordered = [name for _, name in sorted(zip(numbers, names, strict=True))]
        warn_once(f"The class folders are sorted as numbers: {shortened(ordered)}")
    elif any(numbers_of([name]) for name in names):
        warn_once("The class folders are sorted as text, because some are not numbers.")
    return ordered


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

    Classes are found by name. Those of ImageNet are also found by WordNet id or by number, 0 to
    999, if all classes are ids or all are numbers.
    """
    known = [names]
    if is_imagenet(names):
        known += [imagenet_ids(), [str(number) for number in range(len(names))]]
        classes = [str(name) for name in numbers_of(classes) or classes]
    for its in known:
        places = {name: place for place, name in enumerate(its)}
        if {*classes} <= places.keys():
            return [places[name] for name in classes]
    return None
