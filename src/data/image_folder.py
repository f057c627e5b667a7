"""Images in class folders, in a directory or an archive."""

from functools import partial
from pathlib import Path

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file

from src.data.files import open_folder

_HIDDEN = (".", "__MACOSX")
"""First characters of names that operating systems hide or add."""


def image_folder(
    split: str,
    *,
    root: str | None,
    train_root: str | None = None,
    cache_dir: str = "cache",
) -> ImageFolder:
    """Load one split of images that lie in one folder per class.

    Classes are numbered by their sorted folder names. In a class folder images may lie at any
    depth; hidden files and files that are no images are ignored.

    Args:
        split: `train` or `test`.
        root: a folder or an archive. It is the class folders themselves (then it has no training
            split), or holds `train/` and `test/` or `val/`. A folder that holds one folder of
            folders only wraps it (`name/test/CLASS/0.png`).
        train_root: the same for the training split, where that lies elsewhere.
        cache_dir: folder of unpacked archives.

    Returns:
        torchvision's data set, whose images are paths.

    Raises:
        ValueError: if the root, the split or the classes are missing, or training and test classes
            differ.
        FileNotFoundError: if a class has no images.
    """
    folders = _splits(open_folder(root, "dataset.root", cache_dir), plain="test")
    if train_root is not None and split == "train":
        elsewhere = open_folder(train_root, "dataset.train_root", cache_dir)
        folders["train"] = _splits(elsewhere, plain="train").get("train")
    chosen = folders.get(split)
    if chosen is None:
        needed = "test/ or val/" if split == "test" else "train/, or model.NAME.weights=PATH"
        raise ValueError(
            f"dataset.root={root}, train_root={train_root} has no {split} split: give {needed}"
        )
    classes = [set(_subfolders(folder)) for folder in folders.values() if folder is not None]
    if unlike := classes[0] ^ classes[-1]:
        raise ValueError(f"training and test split do not both have the classes {sorted(unlike)}")
    return _ClassFolders(chosen, loader=Path, is_valid_file=partial(_is_image, chosen))


class _ClassFolders(ImageFolder):
    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        classes = _subfolders(Path(directory))
        if not classes:
            raise ValueError(f"{directory} holds no class folders")
        return classes, {name: number for number, name in enumerate(classes)}


def _splits(root: Path, plain: str) -> dict[str, Path | None]:
    """Return each split's folder; class folders directly in the root are the split `plain`."""
    names, splits = _subfolders(root), ("train", "test", "val")
    while len(names) == 1 and names[0] not in splits and _subfolders(root / names[0]):
        root = root / names[0]
        names = _subfolders(root)
    # A folder `train` beside other classes is a class (CIFAR-100 has one), not a split.
    if not {"test", "val"} & set(names) and names != ["train"]:
        return {plain: root}
    places = {"train": "train", "test": "test" if "test" in names else "val"}
    return {split: root / name for split, name in places.items() if name in names}


def _subfolders(folder: Path) -> list[str]:
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if not name.startswith(_HIDDEN))


def _is_image(root: Path, path: str) -> bool:
    parts = Path(path).relative_to(root).parts
    return is_image_file(path) and not any(part.startswith(_HIDDEN) for part in parts)
