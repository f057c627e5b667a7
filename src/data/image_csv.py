"""Images listed in a CSV with their true class and target class (NIPS 2017 layout)."""

import csv as csv_module
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from src.data.dataset import LabelledImages
from src.data.files import open_folder
from src.utils.checks import first_line

_SUFFIXES = ("", ".png", *IMG_EXTENSIONS, *map(str.upper, IMG_EXTENSIONS))


def image_csv(
    split: str,
    *,
    root: str | None,
    csv: str = "images.csv",
    images: str = "images",
    id_column: str = "ImageId",
    label_column: str = "TrueLabel",
    target_column: str = "TargetClass",
    first_label: int = 1,
    cache_dir: str = "cache",
) -> LabelledImages:
    """Load images that a CSV lists, in the order of its rows; their classes have no names.

    The defaults are the layout of the NIPS 2017 adversarial competition's development set.

    Args:
        split: `test`; this layout has no training split.
        root: folder or archive that holds the CSV and the images.
        csv: path of the CSV in `root`.
        images: path of the images' folder in `root`.
        id_column: column of the image's name, with or without its suffix.
        label_column: column of the true class.
        target_column: column of the class that targeted attacks aim for; it may be missing.
        first_label: number of the first class in the CSV (1 in the competition).
        cache_dir: folder of unpacked archives.

    Raises:
        ValueError: if the split is `train`, or the CSV, a column, a label or an image is missing
            or wrong.
    """
    if split == "train":
        raise ValueError(
            f"the images of {root} have no training split: give model.NAME.weights=PATH"
        )
    folder = open_folder(root, "dataset.root", cache_dir)
    path = folder / csv
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv_module.DictReader(file, restval=""))
    except (OSError, UnicodeError, csv_module.Error) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)[:200]}") from error
    if not rows or not {id_column, label_column} <= set(rows[0]):
        raise ValueError(f"{path} holds no images, or lacks {id_column} or {label_column}")
    labels = {
        column: np.array([_class_number(row[column], column, row[id_column]) for row in rows])
        for column in (label_column, target_column)
        if column in rows[0]
    }
    files = _find_images(folder / images, [row[id_column].strip() for row in rows])
    targets = labels[target_column] - first_label if target_column in labels else None
    return LabelledImages(files, labels[label_column] - first_label, target_labels=targets)


def _class_number(text: str, column: str, image_id: str) -> int:
    if not re.fullmatch("[0-9]{1,6}", text.strip()):
        fault = f"{column}={text[:40]!r} of image {image_id[:200]!r}"
        raise ValueError(f"{fault} is not a whole number from 0 to 999999")
    return int(text)


def _find_images(folder: Path, ids: Sequence[str]) -> list[Path]:
    """Return the file of each image id, which may lack the suffix; no file may be named twice."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found: dict[str, Path] = {}
    for image_id in ids:
        names = (image_id + suffix for suffix in _SUFFIXES)
        name = next((name for name in names if name in there), None)
        if name is None or name in found:
            fault = f"is not in {folder}" if name is None else "is listed twice"
            raise ValueError(f"the image {image_id[:200]!r} {fault}")
        found[name] = folder / name
    return list(found.values())
