"""Data sets of torchvision and of Hugging Face."""

import inspect
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from ..utils.files import reading
from ..utils.package import install_command
from ..utils.refusals import choose, warn_once
from .dataset import LabelledImages

NAMES = ("CIFAR10", "CIFAR100", "SVHN", "STL10", "Flowers102", "Imagenette")
# Words, because numbers would agree with weights for any ten classes.
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def torchvision_dataset(split: str, *, kind: str, **options: Any) -> Any:
    """Load one split, `train` or `test`, of a data set in `NAMES`, with `targets` and `classes`.

    `options` are arguments of torchvision's class, such as `root` and `download`.
    """
    from torchvision import datasets  # slow to import

    build = getattr(datasets, choose("dataset.name", kind, NAMES))
    takes = inspect.signature(build).parameters
    split = "val" if (kind, split) == ("Imagenette", "test") else split
    options |= {"train": split == "train"} if "train" in takes else {"split": split}
    options |= {"loader": Path} if "loader" in takes else {}  # files stay undecoded
    data = build(**options)
    if not hasattr(data, "targets"):
        data.targets = [data[i][1] for i in range(len(data))]
    classes = DIGITS if kind == "SVHN" else getattr(data, "classes", ())
    data.classes = [name if isinstance(name, str) else name[0] for name in classes]  # first synonym
    return data


SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val")}
"""Names of splits, in order of preference."""


class _ColumnImages(LabelledImages):
    """Image files in a column of a data set, each read when it is needed."""

    def __getitem__(self, position: int) -> tuple[BytesIO | Path, int]:
        file, label = self.images[position], int(self.targets[position])
        if file is None:
            raise ValueError("its row has no image. Leave such rows out")
        return Path(file["path"]) if file["bytes"] is None else BytesIO(file["bytes"]), label


def huggingface(
    split: str,
    *,
    root: str | None,
    config: str | None = None,
    test_split: str | None = None,
    train_split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> LabelledImages:
    """Load one split, `train` or `test`, of a data set of the package `datasets`.

    Args:
        split: `train` or `test`.
        root: folder written by `save_to_disk`, folder with the files of a data set, or its name on
            the hub.
        config: name of the data set's configuration, if it has several.
        test_split: name of the split that is attacked; None: the first of `SPLITS` with labels.
        train_split: name of the split that trains models; None: `train`.
        image_column: name of the column of images; None: the only one with that feature type.
        label_column: name of the column of classes; None: the only `ClassLabel`, or else the only
            column of whole numbers.

    Raises:
        ValueError: The package is not installed, the data cannot be read, or a split or column is
            missing or not the only one, or some labels are missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"datasets is not installed: {install_command('huggingface')}") from error
    if not root:
        raise ValueError("dataset.root is not set. Set it to a folder of save_to_disk")
    folder = Path(root).expanduser()
    saved = any((folder / name).exists() for name in ("dataset_dict.json", "state.json"))
    with reading(f"dataset.root={root}", "a data set"):
        if saved:
            data: Any = datasets.load_from_disk(folder)
        else:
            data = datasets.load_dataset(str(folder) if folder.is_dir() else root, config)
    if isinstance(data, datasets.Dataset):
        data = {"test": data}
    stated = {"train": train_split, "test": test_split}[split]
    splits = [name for name in ([stated] if stated else SPLITS[split]) if name in data]
    if not splits:
        raise ValueError(
            f"dataset.root={root} has the splits {', '.join(data)}. Set dataset.{split}_split=NAME"
        )
    features = data[splits[0]].features

    def columns(feature_type: type) -> list[str]:
        return [name for name, feature in features.items() if isinstance(feature, feature_type)]

    numbers = [name for name in columns(datasets.Value) if "int" in features[name].dtype]
    image = _choose("image_column", image_column, columns(datasets.Image))
    labels = numbers if label_column in numbers else columns(datasets.ClassLabel) or numbers
    label = _choose("label_column", label_column, labels)
    data = {name: data[name].with_format(None) for name in splits}
    hidden = {None, -1}
    name = next((name for name in splits if not {*data[name][label]} <= hidden), splits[0])
    if name != splits[0]:
        warn_once(f"dataset.root={root}: {splits[0]} has no labels, so {name} is attacked.")
    classes = data[name][label][:]
    if missing := [row for row, number in enumerate(classes) if number in hidden]:
        raise ValueError(
            f"dataset.root={root}: row {missing[0]} of {name} has no label. Leave such rows out, "
            f"or set dataset.{split}_split=NAME"
        )
    files = data[name].cast_column(image, datasets.Image(decode=False))  # decoded by `to_rgb`
    return _ColumnImages(files[image], np.asarray(classes), getattr(features[label], "names", None))


def _choose(key: str, stated: str | None, columns: list[str]) -> str:
    """Return the column that is stated, or else the only one."""
    if stated in columns or (stated is None and len(columns) == 1):
        return stated or columns[0]
    raise ValueError(f"dataset.{key}={stated}: use one of {', '.join(columns) or 'none'}")
