"""Images in class folders, in a directory or an archive."""

from functools import partial
from pathlib import Path

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file

from src.data.files import open_folder

_HIDDEN = (".", "__MACOSX")
"""First characters of names that operating systems hide or add."""


def image_folder(split: str, *, root: str | None, cache_dir: str = "cache") -> ImageFolder:
    """Load one split of images that lie in one folder per class.

    Classes are numbered by their sorted folder names. In a class folder images may lie at any
    depth; hidden files and files that are no images are ignored.

    Args:
        split: `train` or `test`.
        root: a folder or an archive. It is the class folders themselves (then it has no training
            split), or holds `train/` and `test/` or `val/`. A folder that holds one folder of
            folders only wraps it (`name/test/CLASS/0.png`).
        cache_dir: folder of unpacked archives.

    Returns:
        torchvision's data set, whose images are paths.

    Raises:
        ValueError: if the root, the split or the classes are missing, or training and test classes
            differ.
        FileNotFoundError: if a class has no images.
    """
    folders = _splits(open_folder(root, "dataset.root", cache_dir))
    if split not in folders:
        needed = "test/ or val/" if split == "test" else "train/, or model.NAME.weights=PATH"
        raise ValueError(f"dataset.root={root} has no {split} split: give {needed}")
    classes = [set(_subfolders(folder)) for folder in folders.values()]
    if unlike := classes[0] ^ classes[-1]:
        raise ValueError(f"training and test split do not both have the classes {sorted(unlike)}")
    valid = partial(_is_image, folders[split])
    return _ClassFolders(folders[split], loader=Path, is_valid_file=valid)


class _ClassFolders(ImageFolder):
    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        classes = _subfolders(Path(directory))
        if not classes:
            raise ValueError(f"{directory} holds no class folders")
        return classes, {name: number for number, name in enumerate(classes)}


def _splits(root: Path) -> dict[str, Path]:
    """Return each split's folder; class folders directly in the root are the test split."""
    names, splits = _subfolders(root), ("train", "test", "val")
    while len(names) == 1 and names[0] not in splits and _subfolders(root / names[0]):
        root = root / names[0]
        names = _subfolders(root)
    # A folder `train` beside other classes is a class (CIFAR-100 has one), not a split.
    if not {"test", "val"} & set(names) and names != ["train"]:
        return {"test": root}
    places = {"train": "train", "test": "test" if "test" in names else "val"}
    return {split: root / name for split, name in places.items() if name in names}


def _subfolders(folder: Path) -> list[str]:
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if not name.startswith(_HIDDEN))


def _is_image(root: Path, path: str) -> bool:
    parts = Path(path).relative_to(root).parts
    return is_image_file(path) and not any(part.startswith(_HIDDEN) for part in parts)
