"""The classes of a data set: their labels, their number and their names."""

from collections.abc import Sequence

import numpy as np


def number_classes(
    classes: Sequence[str], num_classes: int | None, class_names: str | Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number the classes of the data as configured, and name them.

    Where every class of the data is in `class_names`, the classes are numbered as they stand
    there (so folders named after some of a model's classes get that model's numbers); else
    `class_names` are new names for the classes in the order of the data.

    Returns:
        The number of each class of the data, int64, and all names.
    """
    names = tuple(classes if class_names is None else map(str, class_names))
    if class_names == "imagenet":
        from torchvision.models import ResNet50_Weights

        names = tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    number = np.arange(len(classes), dtype=np.int64)
    if class_names is not None and set(classes) <= set(names):
        number = np.array([names.index(name) for name in classes], dtype=np.int64)
    elif len(names) != len(classes):
        raise ValueError(
            f"dataset.class_names={str(class_names)[:200]} must be null, imagenet or a list of "
            f"{len(classes)} names for the classes {', '.join(classes[:5])}, ..."
        )
    if num_classes not in (None, len(names)):
        raise ValueError(
            f"dataset.num_classes={num_classes}, but there are {len(names)} classes "
            f"({', '.join(names[:5])}, ...)"
        )
    return number, names


def checked_labels(what: str, labels: Sequence[int] | np.ndarray, num_classes: int) -> np.ndarray:
    """Return labels as int64 (N,), whole numbers in 0..num_classes - 1."""
    found = np.asarray(labels)
    if found.dtype.kind not in "iu" or not len(found):
        raise ValueError(f"the data set holds no images, or {what} are {found.dtype}, not integers")
    wrong = found[(found < 0) | (found >= num_classes)]
    if len(wrong):
        raise ValueError(f"{what} hold {wrong[0]}, which is not between 0 and {num_classes - 1}")
    return found.astype(np.int64)
