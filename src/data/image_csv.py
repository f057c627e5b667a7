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
    rows = read_rows(folder / csv, (id_column, label_column), [target_column])
    labels = {
        column: np.array([class_number(row, column, first_label) for row in rows])
        for column in (label_column, target_column)
        if column in rows[0]
    }
    paths = find_images(folder / images, [row[id_column].strip() for row in rows])
    return LabelledImages(paths, labels[label_column], target_labels=labels.get(target_column))


def read_rows(
    path: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> list[dict[str, str]]:
    """Read the given columns of a CSV of one row an image; the optional ones may be missing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            kept = (*columns, *optional)
            rows = [
                {name: row[name] for name in kept if name in row}
                for row in csv_module.DictReader(file, restval="")
            ]
    except (OSError, UnicodeError, csv_module.Error) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)[:200]}") from error
    if not rows or not set(columns) <= set(rows[0]):
        raise ValueError(f"{path} holds no images, or lacks a column of {', '.join(columns)}")
    return rows


def class_number(row: dict[str, str], column: str, first: int) -> int:
    """Return a row's class, counted from 0, from a number of at most six digits."""
    text = row[column].strip()
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) < first:
        raise ValueError(
            f"{column}={text[:40]!r} of image {next(iter(row.values()))[:200]!r} is not a whole "
            f"number from {first} to 999999"
        )
    return int(text) - first


def find_images(folder: Path, ids: Sequence[str]) -> list[Path]:
    """Return the file of each image id, which may lack the suffix; no file may be named twice."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    found: dict[str, None] = {}
    for image_id in ids:
        names = [image_id + suffix for suffix in ("", ".png", *IMG_EXTENSIONS)]
        names += [image_id + suffix.upper() for suffix in IMG_EXTENSIONS]
        name = next((name for name in names if name in there), None)
        if name is None:
            raise ValueError(f"the image {image_id[:200]!r} is not in {folder}")
        if name in found:
            raise ValueError(f"the image {image_id[:200]!r} is listed twice")
        found[name] = None
    return [folder / name for name in found]
