"""The classes of a data set: their labels, their number and their names."""

from collections.abc import Sequence

import numpy as np


def class_names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return class names: `imagenet` stands for the 1000 names of ImageNet-1k, a list for itself.

    Raises:
        ValueError: if `names` is another word, or holds one name twice.
    """
    if names == "imagenet":
        from torchvision.models import ResNet50_Weights

        return tuple(ResNet50_Weights.IMAGENET1K_V1.meta["categories"])
    if isinstance(names, str):
        raise ValueError(
            f"dataset.class_names={names!r} is not a list of names, null or 'imagenet'"
        )
    if len(set(names)) < len(names):
        raise ValueError(f"dataset.class_names holds {shortened(sorted(names))} with repetitions")
    return tuple(map(str, names))


def numbered(
    classes: Sequence[str], num_classes: int | None, class_names: str | Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number the classes of the data as configured, and name them.

    Where every class of the data is in `class_names`, the classes are numbered as they stand
    there (so folders named after some of a model's classes get that model's numbers); else
    `class_names` are new names for the classes in the order of the data.

    Args:
        classes: names in the data, in its order.
        num_classes: how many there must be; None: as many as there are names.
        class_names: names, or `imagenet`; None: those of the data.

    Returns:
        The number of each class of the data, int64, and all names.

    Raises:
        ValueError: if numbers and names do not fit together.
    """
    names = tuple(classes) if class_names is None else class_names_of(class_names)
    number = np.arange(len(classes), dtype=np.int64)
    if class_names is not None and set(classes) <= set(names):
        number = np.array([names.index(name) for name in classes], dtype=np.int64)
    elif len(names) != len(classes):
        raise ValueError(
            f"dataset.class_names holds {len(names)} names for the {len(classes)} classes of the "
            f"data ({shortened(classes)})"
        )
    if num_classes not in (None, len(names)):
        raise ValueError(
            f"dataset.num_classes={num_classes}, but there are {len(names)} classes "
            f"({shortened(names)})"
        )
    return number, names


def check_labels(what: str, labels: np.ndarray, num_classes: int) -> None:
    """Check that labels are a non-empty int64 vector of values in 0..num_classes - 1.

    Raises:
        ValueError: if they are not.
    """
    if len(labels) == 0:
        raise ValueError("the data set holds no images")
    if labels.ndim != 1 or labels.dtype != np.int64:
        raise ValueError(f"{what} must be int64 (N,), not {labels.dtype} {labels.shape}")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise ValueError(f"{what} hold {wrong[0]}, which is not between 0 and {num_classes - 1}")


def shortened(names: Sequence[str], most: int = 5) -> str:
    """List some names for a message."""
    listed = ", ".join(name[:100] for name in names[:most])
    return f"{listed}, ..." if len(names) > most else listed
