"""Image files: in class folders, or listed in a CSV file with true class and target class."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file

from ..utils.refusals import first_line
from .classes import imagenet_names, place_classes, sort_folders
from .dataset import LabelledImages
from .files import existing_folder, read_list


def image_folder(split: str, *, root: str | None) -> ImageFolder:
    """Load one split, `train` or `test`, of images in one folder per class, as torchvision does.

    Classes are numbered in the order of their folder names, see `sort_folders`. Images may be at
    any depth, and are not decoded; hidden files and files that are not images are ignored. `root`
    contains the class folders (then there is no training split), or `train/` and either `test/` or
    `val/`.

    Raises:
        ValueError: The root, the split or the classes are missing, or a class has no images.
    """
    folder = existing_folder(root)
    wanted = ("train",) if split == "train" else ("test", "val")
    if has_splits(folder):
        folders = [folder / name for name in wanted if (folder / name).is_dir()]
    else:
        folders = [folder] if split == "test" else []
    if not folders:
        needed = "/ or ".join(wanted)
        raise ValueError(f"dataset.root={root} has no {split} split. Add a folder {needed}/")
    try:
        return _ClassFolders(folders[0], loader=Path, is_valid_file=_is_image)
    except FileNotFoundError as error:  # it names only classes
        raise ValueError(f"dataset.root={root}: {first_line(error)}") from error


def has_splits(folder: Path) -> bool:
    """Return True if a folder has the splits `train`, `test` or `val` instead of classes.

    A folder `train` next to other classes is a class (CIFAR-100 has one).
    """
    names = {*_subfolders(folder)}
    return bool({"test", "val"} & names) or names == {"train"}


def imagenet(split: str, *, root: str | None) -> ImageFolder:
    """Load one split of ImageNet-1k, or of a part of it, from one folder per WordNet id.

    The sorted ids have the order of torchvision's classes. Folders with other names are refused.
    See `image_folder`.
    """
    data = image_folder(split, root=root)
    for name in data.classes:
        if not re.fullmatch(r"n\d{8}", name):
            raise ValueError(
                f"dataset.root={root}: the class folder {name} is not a WordNet id. For numbers or "
                "names: dataset=image_folder dataset.class_names=imagenet dataset.image_size=224"
            )
    return data


class _ClassFolders(ImageFolder):
    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        classes = sort_folders(_subfolders(Path(directory)))
        if not classes:
            raise ValueError(f"{directory} has no class folders. For lists: dataset=image_csv")
        return classes, {name: number for number, name in enumerate(classes)}


def _subfolders(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]


def _is_image(path: str) -> bool:
    hidden = any(part.startswith(".") for part in Path(path).parts[-2:])  # .ipynb_checkpoints
    return is_image_file(path) and not hidden


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
    """Load the images that a CSV file lists, in the order of its rows, without class names.

    The defaults are for the layout of the NIPS 2017 adversarial competition's development set,
    which has no training split. See `read_list` for separators.

    Args:
        split: `test`.
        root: folder of the CSV file and the images.
        csv: path of the CSV file in `root`, or several paths; the first existing one is read.
        folder: path of the images' folder in `root`.
        id_column: column with the image's name, with or without its suffix. A number, from 0 on, is
            the position of the column in a list without a header.
        label_column: column with the true class, a number or a WordNet id of ImageNet-1k.
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
    labels = _read_classes(rows[label_column], ids, first_label)
    targets = None
    if target_column in rows:
        targets = _read_classes(rows[target_column], ids, first_label)
    return LabelledImages(_find_images(top / folder, ids), labels, target_labels=targets)


def _read_rows(path: Path, id_column: str | int, label_column: str | int) -> pd.DataFrame:
    try:
        rows = read_list(path, header=isinstance(id_column, str))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)[:200]}") from error
    for key, column in (("id_column", id_column), ("label_column", label_column)):
        if column not in rows:
            header = ", ".join(map(str, rows.columns))[:200]
            raise ValueError(f"{path} lacks dataset.{key}={column}. Its columns are {header}")
    if rows.empty:
        raise ValueError(f"{path} lists no images")
    return rows


def _read_classes(column: "pd.Series[str]", ids: Sequence[str], first: int) -> np.ndarray:
    """Return the classes in a column, int64 (N,), counted from 0."""
    wordnet = column.str.extract(r"^(n\d{8})(?: |$)", expand=False)  # Kaggle adds boxes
    if wordnet.notna().all() and (places := place_classes(wordnet.tolist(), imagenet_names())):
        return np.array(places)
    for text, image_id in zip(column, ids, strict=True):
        fault = f"{column.name}={text[:40]!r} of image {image_id[:200]!r}"
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise ValueError(f"{fault} is not a whole number or a WordNet id of ImageNet-1k")
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
