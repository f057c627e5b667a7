"""Images listed in a CSV with their true class and the class to aim for (NIPS 2017 layout)."""

import csv
import io
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from src.data.dataset import MOST_CLASSES, ImageRecords, check_split, class_numbers, shortened
from src.data.files import IMAGE_SUFFIXES, Folder, StoredImages, Tar, is_image, open_files
from src.utils.files import reason

Rows = list[dict[str, str]]


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
    num_classes: int | None = 1000,
    cache_dir: str | None = None,
) -> ImageRecords:
    """Load images that a CSV lists, in the order of its rows.

    The defaults are the layout of the NIPS 2017 adversarial competition's development set.

    Args:
        split: `test`; this layout has no training split.
        root: the folder, tar or compressed tar that holds the CSV and the images.
        csv: path of the CSV in `root`.
        images: path of the images' folder in `root`.
        id_column: column of the image's name, with or without its suffix.
        label_column: column of the true class.
        target_column: column of the class that targeted attacks aim for; it may be missing.
        first_label: what the CSV calls the first class (1 in the competition).
        num_classes: how many classes labels may stand for; None: up to the highest there is.
        cache_dir: where compressed tars are decompressed to, once.

    Raises:
        ValueError: if the split is `train`, or the CSV, a column, a label or an image is missing
            or wrong. An unreadable image is refused when it is read.
    """
    check_split(split)
    if split == "train":
        raise ValueError(
            f"the images of {root} have no training split: give model.NAME.weights=PATH"
        )
    files = open_files(root, "dataset.root", cache_dir)
    where = str(files.root / csv)
    rows = read_rows(files, csv, (id_column, label_column))
    ids = [row[id_column].strip() for row in rows]
    check_unique(ids, where)
    labels = numbers(rows, label_column, id_column, first_label, num_classes, where)
    targets = None
    if target_column in rows[0]:
        targets = numbers(rows, target_column, id_column, first_label, num_classes, where)
    highest = max(int(part.max()) for part in (labels, targets) if part is not None)
    total = highest + 1 if num_classes is None else num_classes
    stored = StoredImages(files, find_images(files, images, ids))
    return ImageRecords(
        labels=labels,
        class_names=class_numbers(total, first_label),
        read=stored.read,
        content=stored.content,
        target_labels=targets,
        name=stored.name,
    )


def read_rows(files: Folder | Tar, name: str, needed: Sequence[str]) -> Rows:
    """Read the rows of a CSV that must have some columns.

    Raises:
        ValueError: if the CSV is missing, no text, without a needed column, or empty.
    """
    where = files.root / name
    try:
        text = files.content(name).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{where} does not exist") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8 text") from error
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {reason(error)}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
    try:
        columns, rows = reader.fieldnames or [], list(reader)
    except csv.Error as error:
        raise ValueError(f"{where} is not a readable CSV: {error}") from error
    missing = [column for column in needed if column not in columns]
    if missing:
        raise ValueError(
            f"{where} lacks the column(s) {', '.join(missing)}; it has {shortened(columns)}"
        )
    if not rows:
        raise ValueError(f"{where} lists no images")
    return rows


def check_unique(ids: Sequence[str], where: str) -> None:
    """Refuse an image that is listed twice.

    Raises:
        ValueError: if so; it names the first one.
    """
    seen: set[str] = set()
    for image_id in ids:
        if image_id in seen:
            raise ValueError(f"{where} lists the image {image_id[:200]!r} more than once")
        seen.add(image_id)


def numbers(
    rows: Rows,
    column: str,
    id_column: str,
    first_label: int,
    num_classes: int | None,
    where: str,
) -> np.ndarray:
    """Read a column of class numbers as 0-based int64 (N,).

    Raises:
        ValueError: if one is not a whole number or out of range; it names the image.
    """
    last = first_label + min(num_classes or MOST_CLASSES, MOST_CLASSES) - 1
    found = []
    for row in rows:
        text = row[column].strip()
        try:
            value = int(text)
        except ValueError as error:
            raise ValueError(
                f"{where}: {column}={text[:40]!r} of image {row[id_column][:200]!r} is not a whole "
                "number"
            ) from error
        if not first_label <= value <= last:
            raise ValueError(
                f"{where}: {column}={text[:40]} of image {row[id_column][:200]!r} is not "
                f"{first_label}..{last}"
            )
        found.append(value - first_label)
    return np.array(found, dtype=np.int64)


def find_images(files: Folder | Tar, folder: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Find the file of each image id; an id may lack the suffix.

    Raises:
        ValueError: if an image is missing.
    """
    inside = "" if folder in ("", ".") else PurePosixPath(folder).as_posix()
    there = {path for path in files.files(inside) if is_image(path)}
    found = []
    for image_id in ids:
        path = str(PurePosixPath(inside) / image_id)
        candidates = [path, *(path + suffix for suffix in IMAGE_SUFFIXES)]
        match = next((candidate for candidate in candidates if candidate in there), None)
        if match is None:
            raise ValueError(
                f"the image {image_id[:200]!r} is not in {files.root / inside} "
                f"(tried {', '.join(IMAGE_SUFFIXES)})"
            )
        found.append(match)
    return tuple(found)
