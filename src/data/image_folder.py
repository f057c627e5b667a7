"""Images in class folders."""

import re
from pathlib import Path

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file

from src.data.classes import sort_folders
from src.data.files import existing_folder
from src.utils.refusals import first_line


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
