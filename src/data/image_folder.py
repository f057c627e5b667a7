"""Images in class folders, in a directory or an archive."""

from pathlib import Path

from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import is_image_file

from src.data.files import open_folder


class ClassFolders(ImageFolder):
    """torchvision's `ImageFolder` of paths, without what operating systems hide or add.

    Args:
        root: the folder of the class folders.

    Raises:
        ValueError: if there is no class folder.
        FileNotFoundError: if one has no image.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, loader=Path, is_valid_file=is_image)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the class folders, sorted, and their numbers."""
        classes = subfolders(Path(directory))
        if not classes:
            raise ValueError(f"{directory} holds no class folders")
        return classes, {name: number for number, name in enumerate(classes)}


def image_folder(
    split: str,
    *,
    root: str | None,
    train_root: str | None = None,
    cache_dir: str | None = None,
) -> ClassFolders:
    """Load one split of images that lie in one folder per class.

    Classes are numbered by their sorted folder names. In a class folder images may lie at any
    depth; hidden files and files that are no images are ignored.

    Args:
        split: `train` or `test`.
        root: a folder or an archive. It is the class folders themselves (then it has no training
            split), or holds `train/` and `test/` or `val/`. These may lie in a folder of their
            own (`name/test/CLASS/0.png`).
        train_root: the same for the training split, where that lies elsewhere.
        cache_dir: where archives are unpacked to, once.

    Raises:
        ValueError: if the root, the split or the classes are missing, or training and test classes
            differ.
        FileNotFoundError: if a class has no images.
    """
    folders = split_folders(open_folder(root, "dataset.root", cache_dir), plain="test")
    if train_root is not None and split == "train":
        elsewhere = open_folder(train_root, "dataset.train_root", cache_dir)
        folders["train"] = split_folders(elsewhere, plain="train").get("train")
    chosen = folders.get(split)
    if chosen is None:
        needed = "test/ or val/" if split == "test" else "train/, or model.NAME.weights=PATH"
        raise ValueError(
            f"dataset.root={root}, train_root={train_root} has no {split} split: give {needed}"
        )
    classes = [set(subfolders(folder)) for folder in folders.values() if folder is not None]
    if unlike := classes[0] ^ classes[-1]:
        raise ValueError(f"training and test split do not both have the classes {sorted(unlike)}")
    return ClassFolders(chosen)


def split_folders(root: Path, plain: str) -> dict[str, Path | None]:
    """Find the folders that hold the class folders of each split.

    Args:
        root: where to look.
        plain: the split that class folders stand for which lie directly in the root.
    """
    while (below := only_folder(root)) is not None:
        root = below
    names = subfolders(root)
    # A folder `train` beside other classes is a class (CIFAR-100 has one), not a split.
    if not {"test", "val"} & set(names) and names != ["train"]:
        return {plain: root}
    places = {"train": "train", "test": "test" if "test" in names else "val"}
    return {split: root / name for split, name in places.items() if name in names}


def only_folder(folder: Path) -> Path | None:
    """Return the one folder in `folder` if it only wraps other folders, else None."""
    folders = subfolders(folder)
    if len(folders) != 1 or folders[0] in ("train", "test", "val"):
        return None
    below = folder / folders[0]
    # A single class may have sub-folders too; what tells it from a wrapper is its own images.
    if not subfolders(below) or any(is_image(file.name) for file in below.iterdir()):
        return None
    return below


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders directly in a folder, sorted, without hidden ones."""
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)
    )


def is_hidden(name: str) -> bool:
    """Tell whether operating systems hide or add a file or folder (`.x`, `__MACOSX`)."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(path: str) -> bool:
    """Tell by its name whether a file is an image, and not hidden."""
    return is_image_file(path) and not is_hidden(Path(path).name)
