"""Images listed in a CSV with their true class and the class to aim for (NIPS 2017 layout)."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torchvision.datasets.folder import IMG_EXTENSIONS

from src.data.classes import shortened
from src.data.dataset import LabelledImages
from src.data.files import open_folder
from src.utils.files import reason

HIGHEST_LABEL = 1_000_000
"""More classes would be a mistake, and their names alone would fill the memory."""


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
    cache_dir: str | None = None,
) -> LabelledImages:
    """Load images that a CSV lists, in the order of its rows; their classes have no names.

    The defaults are the layout of the NIPS 2017 adversarial competition's development set.

    Args:
        split: `test`; this layout has no training split.
        root: the folder or archive that holds the CSV and the images.
        csv: path of the CSV in `root`.
        images: path of the images' folder in `root`.
        id_column: column of the image's name, with or without its suffix.
        label_column: column of the true class.
        target_column: column of the class that targeted attacks aim for; it may be missing.
        first_label: what the CSV calls the first class (1 in the competition).
        cache_dir: where archives are unpacked to, once.

    Raises:
        ValueError: if the split is `train`, or the CSV, a column, a label or an image is missing
            or wrong.
    """
    if split == "train":
        raise ValueError(
            f"the images of {root} have no training split: give model.NAME.weights=PATH"
        )
    folder = open_folder(root, "dataset.root", cache_dir)
    rows = read_rows(folder / csv, id_column, label_column)
    highest = first_label + HIGHEST_LABEL
    labels = {
        column: class_column(rows[column], first_label, highest)
        for column in (label_column, target_column)
        if column in rows
    }
    paths = find_images(folder / images, list(rows.index))
    return LabelledImages(paths, labels[label_column], target_labels=labels.get(target_column))


def read_rows(path: Path, id_column: str, label_column: str) -> pd.DataFrame:
    """Read a CSV of one row an image, all values as text, with the images' names as its index.

    Raises:
        ValueError: if the CSV is missing, no text, without a needed column, or empty, or lists an
            image twice.
    """
    try:
        with warnings.catch_warnings():  # of fields beyond the header, which are left out
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            rows = pd.read_csv(
                path, dtype=str, na_filter=False, index_col=False, encoding="utf-8-sig"
            )
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:  # among them UnicodeDecodeError and pandas' own
        raise ValueError(f"{path} is not a readable CSV: {str(error)[:200]}") from error
    missing = [column for column in (id_column, label_column) if column not in rows]
    if missing:
        raise ValueError(
            f"{path} lacks the column(s) {', '.join(missing)}; it has "
            f"{shortened(list(map(str, rows.columns)))}"
        )
    if rows.empty:
        raise ValueError(f"{path} lists no images")
    rows.index = pd.Index(rows[id_column].str.strip())
    twice = rows.index[rows.index.duplicated()]
    if len(twice):
        raise ValueError(f"{path} lists the image {twice[0][:200]!r} more than once")
    return rows


def class_column(texts: pd.Series, first: int, last: int) -> np.ndarray:
    """Read a column of class numbers as 0-based int64 (N,).

    Args:
        texts: the column, its index the names of the images.
        first: what the column calls the first class.
        last: what it may call the last one.

    Raises:
        ValueError: if one is not a whole number from `first` to `last`; it names the image.
    """
    whole = texts.where(texts.str.fullmatch(r"\s*\d{1,9}\s*"), "-1").astype(np.int64)
    wrong = np.flatnonzero(~whole.between(first, last))
    if len(wrong):
        text, image = texts.iloc[wrong[0]], str(texts.index[wrong[0]])
        raise ValueError(
            f"{texts.name}={text[:40]!r} of image {image[:200]!r} is not a whole number from "
            f"{first} to {last}"
        )
    return whole.to_numpy() - first


def find_images(folder: Path, ids: Sequence[str]) -> list[Path]:
    """Find the file of each image id; an id may lack the suffix.

    Raises:
        ValueError: if an image is missing.
    """
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    found = []
    for image_id in ids:
        names = [image_id + suffix for suffix in ("", ".png", *IMG_EXTENSIONS)]
        name = next((name for name in names if name in there), None)
        if name is None:
            raise ValueError(
                f"the image {image_id[:200]!r} is not in {folder} "
                f"(tried {', '.join(IMG_EXTENSIONS)})"
            )
        found.append(folder / name)
    return found
