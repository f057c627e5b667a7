"""Images in class folders, in a directory or an archive."""

from pathlib import Path

from torchvision.datasets import ImageFolder

from src.data.files import is_hidden, is_image, open_folder
from src.utils.checks import first_line

SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val")}


class ClassFolders(ImageFolder):
    """torchvision's `ImageFolder` of paths, without what operating systems hide or add.

    Args:
        root: the folder of the class folders.

    Raises:
        ValueError: if there is no class folder, or one has no image.
    """

    def __init__(self, root: Path) -> None:
        try:
            super().__init__(root, loader=Path, is_valid_file=is_image)
        except FileNotFoundError as error:
            raise ValueError(f"{root}: {first_line(error)}") from error

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
        ValueError: if the root, the split or the classes are missing, a class has no images, or
            training and test classes differ.
    """
    folder = open_folder(root, "dataset.root", cache_dir)
    test, train = split_folder(folder, "test"), None
    if train_root is None:
        train = split_folder(folder, "train")
    elif split == "train":
        elsewhere = open_folder(train_root, "dataset.train_root", cache_dir)
        train = split_folder(elsewhere, "train", plain_is="train")
        if train is None:
            raise ValueError(f"dataset.train_root={train_root} holds test/ or val/ but no train/")
    chosen = train if split == "train" else test
    if chosen is None:
        raise ValueError(
            f"dataset.root={root} has no training split: give model.NAME.weights=PATH, or "
            "dataset.train_root=FOLDER, or a root that holds train/ and test/"
            if split == "train"
            else f"dataset.root={root} holds train/ but neither test/ nor val/"
        )
    if train is not None and test is not None:
        unlike = sorted(set(subfolders(train)) ^ set(subfolders(test)))
        if unlike:
            raise ValueError(f"training and test split do not both have the class folders {unlike}")
    return ClassFolders(chosen)


def split_folder(root: Path, split: str, plain_is: str = "test") -> Path | None:
    """Find the folder that holds the class folders of a split.

    Args:
        root: where to look.
        split: `train` or `test`.
        plain_is: the split that class folders stand for which lie directly in the root.

    Returns:
        The folder (it may be the root itself), or None if there is no such split.
    """
    while (below := only_folder(root)) is not None:
        root = below
    folders = subfolders(root)
    # A folder `train` beside other classes is a class (CIFAR-100 has one), not a split.
    if not ({"test", "val"} & set(folders) or folders == ["train"]):
        return root if split == plain_is else None
    return next((root / name for name in SPLIT_FOLDERS[split] if name in folders), None)


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
