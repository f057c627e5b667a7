"""Images listed in a CSV file with true class and target class (NIPS 2017 layout)."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torchvision.datasets.folder import is_image_file

from src.data.dataset import LabelledImages
from src.data.files import existing_folder
from src.utils.refusals import first_line


def image_csv(
    split: str,
    *,
    root: str | None,
    csv: str | Sequence[str] = "images.csv",
    folder: str = "images",
    id_column: str = "ImageId",
    label_column: str = "TrueLabel",
    target_column: str = "TargetClass",
    first_label: int = 1,
    url: str | None = None,
) -> LabelledImages:
    """Load the images that a CSV file lists, in the order of its rows, without class names.

    The defaults are for the layout of the NIPS 2017 adversarial competition's development set,
    which has no training split.

    Args:
        split: `test`.
        root: folder of the CSV file and the images.
        csv: path of the CSV file in `root`, or several paths; the first existing one is read.
        folder: path of the images' folder in `root`.
        id_column: column with the image's name, with or without its suffix.
        label_column: column with the true class.
        target_column: column with the target label; it may be missing.
        first_label: number of the first class in the CSV file.
        url: address of the images and the CSV file, for error messages.

    Raises:
        ValueError: The split is `train`, or a file, a column or a label is missing or wrong.
    """
    if split == "train":
        raise ValueError(f"the images of {root} have no training split")
    try:
        top = existing_folder(root)
    except ValueError as error:
        raise ValueError(f"{error}. Download: {url}" if url else str(error)) from error
    names = [csv] if isinstance(csv, str) else list(csv)
    path = next((top / name for name in names if (top / name).exists()), top / names[0])
    rows = _read_rows(path, id_column, label_column)
    ids = [name.strip() for name in rows[id_column]]
    labels = _read_classes(rows[label_column], ids, first_label)
    targets = None
    if target_column in rows:
        targets = _read_classes(rows[target_column], ids, first_label)
    return LabelledImages(_find_images(top / folder, ids), labels, target_labels=targets)


def _read_rows(path: Path, *columns: str) -> pd.DataFrame:
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False).fillna("")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)[:200]}") from error
    if rows.empty or not set(columns) <= set(rows):
        raise ValueError(f"{path} has no images, or lacks {' or '.join(columns)}")
    return rows


def _read_classes(column: "pd.Series[str]", ids: Sequence[str], first: int) -> np.ndarray:
    """Return the classes in a column, int64 (N,), counted from 0."""
    for text, image_id in zip(column, ids, strict=True):
        fault = f"{column.name}={text[:40]!r} of image {image_id[:200]!r}"
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
            raise ValueError(f"{fault} is not a whole number")
        if int(text) < first:
            raise ValueError(f"{fault} is below dataset.first_label={first}, the first class")
    return column.astype(np.int64).to_numpy() - first


def _find_images(folder: Path, ids: Sequence[str]) -> list[Path]:
    """Return one file per image id, which may lack the suffix; refuse repeated files."""
    files = sorted(path for path in folder.rglob("*") if is_image_file(path.name))
    known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    known |= {path.relative_to(folder).as_posix(): path for path in files}
    paths: dict[Path, None] = {}
    for image_id in ids:
        path = known.get(image_id)
        if path is None or path in paths:
            fault = f"is not in {folder}" if path is None else "is listed twice"
            raise ValueError(f"the image {image_id[:200]!r} {fault}")
        paths[path] = None
    return list(paths)
