"""Images in class folders, in a directory or a tar."""

import numpy as np

from src.data.dataset import ImageRecords, check_split
from src.data.files import Folder, StoredImages, Tar, is_image, open_files

SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val")}


def image_folder(
    split: str,
    *,
    root: str | None,
    train_root: str | None = None,
    cache_dir: str | None = None,
) -> ImageRecords:
    """Load one split of images that lie in one folder per class.

    Classes are numbered by their sorted folder names, images by their sorted paths. In a class
    folder images may lie at any depth; hidden files and files that are no images are ignored.

    Args:
        split: `train` or `test`.
        root: a folder, a tar, or a tar compressed by gzip, xz or bzip2. It is the class folders
            themselves (then it has no training split), or holds `train/` and `test/` or `val/`.
            These may lie in a folder of their own (`name/test/CLASS/0.png`).
        train_root: the same for the training split, where that lies elsewhere.
        cache_dir: where compressed tars are decompressed to, once.

    Raises:
        ValueError: if the root, the split or the classes are missing, a class has no images, or
            training and test classes differ. An unreadable image is refused when it is read.
    """
    check_split(split)
    files = open_files(root, "dataset.root", cache_dir)
    test, train = place_of(files, "test"), place_of(files, "train")
    if train_root is None:
        if split == "train" and train is None:
            raise ValueError(
                f"dataset.root={root} has no training split: give model.NAME.weights=PATH, or "
                "dataset.train_root=FOLDER, or a root that holds train/ and test/"
            )
        if split == "test" and test is None:
            raise ValueError(f"dataset.root={root} holds train/ but neither test/ nor val/")
        if train is not None and test is not None:
            check_same_classes(files.folders(train), files.folders(test))
    elif split == "train":
        test_classes = None if test is None else files.folders(test)
        files = open_files(train_root, "dataset.train_root", cache_dir)
        train = place_of(files, "train", plain_is="train")
        if train is None:
            raise ValueError(f"dataset.train_root={train_root} holds test/ or val/ but no train/")
        if test_classes is not None:
            check_same_classes(files.folders(train), test_classes)
    inside = train if split == "train" else test
    if inside is None:
        raise ValueError(f"dataset.root={root} has no test split")
    return class_folders(files, inside)


def place_of(files: Folder | Tar, split: str, plain_is: str = "test") -> str | None:
    """Find the folder that holds the class folders of a split.

    Args:
        files: what lies in the root.
        split: `train` or `test`.
        plain_is: the split that class folders stand for which lie directly in the root.

    Returns:
        Its path in `files` (may be empty: the root itself), or None if there is no such split.
    """
    inside = ""
    while (below := only_folder(files, inside)) is not None:
        inside = below
    folders = files.folders(inside)
    # A folder `train` beside other classes is a class (CIFAR-100 has one), not a split.
    if not ({"test", "val"} & set(folders) or folders == ["train"]):
        return inside if split == plain_is else None
    for name in SPLIT_FOLDERS[split]:
        if name in folders:
            return f"{inside}/{name}".lstrip("/")
    return None


def only_folder(files: Folder | Tar, inside: str) -> str | None:
    """Return the one folder in `inside` if it only wraps other folders, else None."""
    folders = files.folders(inside)
    if len(folders) != 1 or folders[0] in ("train", "test", "val"):
        return None
    below = f"{inside}/{folders[0]}".lstrip("/")
    if not files.folders(below):
        return None
    # A single class may have sub-folders too; what tells it from a wrapper is its own images.
    start = len(below) + 1
    if any(is_image(path) and "/" not in path[start:] for path in files.files(below)):
        return None
    return below


def class_folders(files: Folder | Tar, inside: str) -> ImageRecords:
    """List the images of the class folders in `inside`.

    Raises:
        ValueError: if there is no class folder, or one has no image.
    """
    where = files.root / inside
    classes = files.folders(inside)
    if not classes:
        raise ValueError(f"{where} holds no class folders")
    images: dict[str, list[str]] = {name: [] for name in classes}
    start = len(inside) + 1 if inside else 0
    for path in files.files(inside):
        class_name, slash, _ = path[start:].partition("/")
        if slash and is_image(path):
            images[class_name].append(path)
    empty = [name for name in classes if not images[name]]
    if empty:
        raise ValueError(f"the class folder {where / empty[0]} holds no images")
    counts = [len(images[name]) for name in classes]
    stored = StoredImages(files, tuple(path for name in classes for path in images[name]))
    return ImageRecords(
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
        class_names=tuple(classes),
        read=stored.read,
        content=stored.content,
        name=stored.name,
    )


def check_same_classes(train: list[str], test: list[str]) -> None:
    """Refuse training and test splits with different class folders.

    Raises:
        ValueError: if they differ; it names the classes that only one of them has.
    """
    only_train, only_test = sorted(set(train) - set(test)), sorted(set(test) - set(train))
    if only_train or only_test:
        raise ValueError(
            "training and test split have different class folders: "
            f"only in training {only_train or 'none'}, only in test {only_test or 'none'}"
        )
