"""Data sets from torchvision, by the names of their Python classes."""

import inspect
from pathlib import Path
from typing import Any

from torchvision import datasets

from src.utils.refusals import suggestion

NAMES = ("CIFAR10", "CIFAR100", "SVHN", "STL10", "Flowers102", "Imagenette")
# Words, because numbers would agree with weights for any ten classes.
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def torchvision_dataset(split: str, *, kind: str, **options: Any) -> Any:
    """Load one split, `train` or `test`, of a data set in `NAMES`, with `targets` and `classes`.

    `options` are arguments of torchvision's class, such as `root` and `download`.
    """
    if kind not in NAMES:
        known = f"dataset=torchvision supports {', '.join(NAMES)}."
        raise ValueError(f"dataset.name={kind}: {known}{suggestion(str(kind), NAMES)}")
    build = getattr(datasets, kind)
    takes = inspect.signature(build).parameters
    split = "val" if (kind, split) == ("Imagenette", "test") else split
    options |= {"train": split == "train"} if "train" in takes else {"split": split}
    options |= {"loader": Path} if "loader" in takes else {}  # files stay undecoded
    data = build(**options)
    if not hasattr(data, "targets"):
        data.targets = [data[i][1] for i in range(len(data))]
    classes = DIGITS if kind == "SVHN" else getattr(data, "classes", ())
    data.classes = [its if isinstance(its, str) else its[0] for its in classes]  # first synonym
    return data
