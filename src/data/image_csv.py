"""Images listed in a CSV with their true class and the class to aim for (NIPS 2017 layout)."""

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
    rows = read_rows(folder / csv, (id_column, label_column))
    ids = rows[id_column].str.strip()
    if ids.duplicated().any():
        twice = ids[ids.duplicated()].iloc[0]
        raise ValueError(f"{folder / csv} lists the image {twice[:200]!r} more than once")
    labels = {
        column: class_column(rows[column], first_label, f"{folder / csv}: {column}")
        for column in (label_column, target_column)
        if column in rows
    }
    paths = find_images(folder / images, ids)
    return LabelledImages(paths, labels[label_column], target_labels=labels.get(target_column))


def read_rows(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Read a CSV that must have some columns, all values as text.

    Raises:
        ValueError: if the CSV is missing, no text, without a needed column, or empty.
    """
    try:
        rows = pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
        )
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason(error)}") from error
    except ValueError as error:  # among them UnicodeDecodeError and pandas' own
        raise ValueError(f"{path} is not a readable CSV: {str(error)[:200]}") from error
    missing = [column for column in needed if column not in rows]
    if missing:
        raise ValueError(
            f"{path} lacks the column(s) {', '.join(missing)}; it has {shortened(list(rows))}"
        )
    if rows.empty:
        raise ValueError(f"{path} lists no images")
    return rows


def class_column(texts: pd.Series, first_label: int, what: str) -> np.ndarray:
    """Read a column of class numbers as 0-based int64 (N,).

    Raises:
        ValueError: if one is not a whole number from the first label on.
    """
    found = pd.to_numeric(texts.where(texts.str.fullmatch(r"\s*\d{1,7}\s*")), errors="coerce")
    wrong = ~found.between(first_label, first_label + HIGHEST_LABEL)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{what}={texts.iloc[row][:40]!r} in row {row + 1} is not a whole number from "
            f"{first_label} to {first_label + HIGHEST_LABEL}"
        )
    return found.to_numpy(dtype=np.int64) - first_label


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
