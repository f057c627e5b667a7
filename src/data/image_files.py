"""Image files: in class folders, or listed in a CSV file with true class and target class."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..utils.files import reading
from ..utils.refusals import shortened, warn_once
from .classes import imagenet_ids, sort_folders
from .dataset import LabelledImages
from .files import existing_folder, is_image_file, read_list

_LEFT_BY_TOOLS = re.compile(
    r"\.|(@eadir|@tmp|@recycle|@recently-snapshot|recycler|#recycle|#snapshot|__macosx|__pycache__|lost\+found|\$recycle\.bin"
    r"|system volume information|thumbs\.db|desktop\.ini)$",
    re.IGNORECASE,
)
"""Hidden names, and those of files and folders that file systems and tools add."""


def image_folder(split: str, *, root: str | None) -> LabelledImages:
    """Load one split, `train` or `test`, of images in one folder per class.

    Classes are numbered in the order of their folder names, see `sort_folders`; torchvision sorts
    numbers as text, and timm sorts text naturally. Images may be at any depth, and are not decoded;
    files that are not images are ignored. Hidden files and what tools leave, such as `@eaDir` and
    `__MACOSX`, are skipped, and the log counts them. `root` contains the class folders (then there
    is no training split), or `train/` and either `test/` or `val/`. A `test/` without labels, which
    has none of the classes, is passed over for `val/`.

    Raises:
        ValueError: The root, the split or the classes are missing, or a class has no images.
    """
    folder = existing_folder(root)
    train, wanted = folder / "train", ("train",) if split == "train" else ("test", "val")
    folders = [folder] * (split == "test")
    if has_splits(folder):
        folders = [folder / name for name in wanted if (folder / name).is_dir()]
    if not folders:
        needed = "/ or ".join(wanted)
        raise ValueError(f"dataset.root={root} has no {split} split. Add a folder {needed}/")
    reference = train if train.is_dir() and folders != [folder] else folders[-1]
    classes = {name.casefold() for name in _subfolders(reference)}
    labelled = [folder for folder in folders if classes & {*map(str.casefold, _subfolders(folder))}]
    chosen = [*labelled, *folders][0]
    if chosen != folders[0]:
        of = f"of the classes of {reference.name}/"
        warn_once(f"dataset.root={root}: test/ has none {of}, so val/ is attacked.")
    if classes and not labelled:
        raise ValueError(
            f"dataset.root={root}: {chosen.name}/ has no labels: none of its folders is a class of "
            f"train/. For labels in a list: dataset=image_csv; for its own: dataset.root={chosen}"
        )
    return _class_folders(chosen, root)


def has_splits(folder: Path) -> bool:
    """Return True if a folder has the splits `train`, `test` or `val` instead of classes.

    A folder `train` next to other classes is a class (CIFAR-100 has one).
    """
    names = {*_subfolders(folder)}
    return bool({"test", "val"} & names) or names == {"train"}


def imagenet(split: str, *, root: str | None) -> LabelledImages:
    """Load one split of ImageNet-1k, or of a part of it, from one folder per WordNet id.

    The sorted ids have the order of torchvision's classes. Folders with other names are refused.
    See `image_folder`.
    """
    data = image_folder(split, root=root)
    for name in data.classes or ():
        if not re.fullmatch(r"n\d{8}", name):
            raise ValueError(
                f"dataset.root={root}: the class folder {name} is not a WordNet id. For numbers or "
                "names: dataset=image_folder dataset.class_names=imagenet dataset.image_size=224"
            )
    return data


def _class_folders(folder: Path, root: str | None) -> LabelledImages:
    classes = sort_folders(_subfolders(folder))
    if not classes:
        raise ValueError(f"{folder} has no class folders. For lists: dataset=image_csv")
    images, targets, skipped = list[Path](), list[int](), list[Path]()
    for path in folder.iterdir():
        if _LEFT_BY_TOOLS.match(path.name):
            skipped += [file for file in (path, *path.rglob("*")) if file.is_file()]
    for name, number in sorted(zip(classes, range(len(classes)), strict=True)):  # as text
        ordered = sorted(os.walk(folder / name, followlinks=True))
        for path in (Path(parent, file) for parent, _, files in ordered for file in sorted(files)):
            if any(map(_LEFT_BY_TOOLS.match, path.relative_to(folder).parts)):
                skipped.append(path)
            elif is_image_file(path.name):
                images.append(path)
                targets.append(number)
    if empty := sorted({*classes} - {classes[number] for number in targets}):
        raise ValueError(f"dataset.root={root}: no image in the class folders {shortened(empty)}")
    if skipped:
        some = shortened([str(path.relative_to(folder)) for path in skipped])
        warn_once(f"{folder}: skipped, as left by tools ({len(skipped)}): {some}")
    return LabelledImages(images, np.array(targets), classes, root=folder)


def _subfolders(folder: Path) -> list[str]:
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return [name for name in names if not _LEFT_BY_TOOLS.match(name)]


def image_csv(
    split: str,
    *,
    root: str | None,
    csv: str | Sequence[str] = "images.csv",
    folder: str = "images",
    id_column: str | int = "ImageId",
    label_column: str | int = "TrueLabel",
    target_column: str | int = "TargetClass",
    first_label: int = 1,
    url: str | None = None,
) -> LabelledImages:
    """Load the images that a CSV file lists, in the order of its rows.

    Classes are numbers, or WordNet ids, which are then the names of the classes, sorted. If one
    column has numbers and the other ids, both are those of ImageNet.
    The defaults are for the layout of the NIPS 2017 adversarial competition's development set,
    which has no training split. See `read_list` for separators.

    Args:
        split: `test`.
        root: folder of the CSV file and the images.
        csv: path of the CSV file in `root`, or several paths; the first existing one is read.
        folder: path of the images' folder in `root`.
        id_column: column with the image's name, with or without its suffix. A number, from 0 on, is
            the position of the column in a list without a header.
        label_column: column with the true class, a number or a WordNet id.
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
    ids = rows[id_column].tolist()
    columns = [rows[name] for name in (label_column, target_column) if name in rows]
    wordnet = [column.str.extract(r"^(n\d{8})(?: |$)", expand=False) for column in columns]
    by_id = [column.notna().mean() >= 0.5 for column in wordnet]  # Kaggle adds boxes
    classes = sorted({*pd.concat(wordnet).dropna()}) if any(by_id) else None
    if classes and not all(by_id):
        classes = list(imagenet_ids())
    numbers = []
    for column, found in zip(columns, wordnet, strict=True):
        if found.notna().mean() < 0.5:
            numbers.append(_read_numbers(column, ids, first_label))
            continue
        places = found.map({name: place for place, name in enumerate(classes or ())})
        for row in np.flatnonzero(places.isna())[:1]:
            fault = f"{column.name}={column[row][:40]!r} of image {ids[row][:200]!r}"
            raise ValueError(f"{fault} is not a WordNet id{' of ImageNet' * (not all(by_id))}")
        numbers.append(places.astype(np.int64).to_numpy())
    files = _find_images(top / folder, ids)
    return LabelledImages(files, numbers[0], classes, *numbers[1:], root=top / folder)


def _read_rows(path: Path, id_column: str | int, label_column: str | int) -> pd.DataFrame:
    with reading(path, "a list of images"):
        rows = read_list(path, header=isinstance(id_column, str))
    for key, column in (("id_column", id_column), ("label_column", label_column)):
        if column not in rows:
            header = ", ".join(map(str, rows.columns))[:200]
            raise ValueError(f"{path} lacks dataset.{key}={column}. Its columns are {header}")
    if rows.empty:
        raise ValueError(f"{path} lists no images")
    return rows


def _read_numbers(column: "pd.Series[str]", ids: Sequence[str], first: int) -> np.ndarray:
    """Return the classes in a column of numbers, int64 (N,), counted from 0."""
    for text, image_id in zip(column, ids, strict=True):
        fault = f"{column.name}={text[:40]!r} of image {image_id[:200]!r}"
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise ValueError(f"{fault} is not a whole number")
        if int(text) < first:
            raise ValueError(f"{fault} is below dataset.first_label={first}, the first class")
    return column.astype(np.int64).to_numpy() - first


def _find_images(folder: Path, ids: Sequence[str]) -> list[Path]:
    """Return one file per image id, which may lack the suffix; refuse repeated files."""
    files = sorted(path for path in folder.rglob("*") if is_image_file(path.name))
    exact = {path.relative_to(folder).as_posix(): path for path in files}
    bare: dict[str, list[Path]] = {}
    for path in files:
        bare.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    paths: dict[Path, None] = {}
    for image_id in ids:
        matches = [exact[image_id]] if image_id in exact else bare.get(image_id, [])
        fault = "is listed twice" if matches else f"is not in {folder}"
        if len(matches) > 1:
            fault = f"may be {matches[0].name} and {matches[1].name}. Write the suffix in the list"
        if len(matches) != 1 or matches[0] in paths:
            raise ValueError(f"the image {image_id[:200]!r} {fault}")
        paths[matches[0]] = None
    return list(paths)
