"""Fixed subsets of a split: class-balanced, or listed in a file."""

import numpy as np
import pandas as pd

from ..utils.files import csv_cell, reading
from .files import read_list


def balanced_subset(labels: np.ndarray, n_images: int | None, seed: int = 0) -> np.ndarray:
    """Choose `n_images` positions, int64, with all classes represented evenly, in dealt order.

    Each class that is present gets floor or ceil of `n_images / classes present`; a class with too
    few images contributes all of them. The choice depends only on `labels`, int64 (N,), and the
    seed. Choices are nested: the 200 images for `n_images=200` begin with the 100 for
    `n_images=100`. The order takes one image of each class in turn. None: all positions, shuffled.
    """
    # RandomState, because NumPy guarantees that its stream never changes between versions.
    total = len(labels)
    if n_images is None:
        return np.random.RandomState(seed).permutation(total)
    if not 1 <= n_images <= total:
        raise ValueError(
            f"n_images={n_images} is not between 1 and {total}, the number of images. Set "
            "n_images=null to take all of them"
        )
    random = np.random.RandomState(seed)
    shuffled = random.permutation(total)
    classes, compact = np.unique(labels, return_inverse=True)
    turn_of_class = random.permutation(len(classes))
    # Deal the images like cards: round 0 takes one image from every class, round 1 a second one
    # from every class that has more, and so on. The first n in this order are balanced and nested.
    dealt_round = np.empty(total, dtype=np.int64)
    by_class = shuffled[np.argsort(compact[shuffled], kind="stable")]
    sizes = np.bincount(compact)
    dealt_round[by_class] = np.arange(total) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    order = np.lexsort((turn_of_class[compact], dealt_round))
    return order[:n_images]


def listed_subset(path: str, numbers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the positions, ascending int64, of the images that a CSV file lists.

    The file has columns `index`, with values from `numbers`, int64 (N,), and `label`, which must
    agree with `labels`, int64 (N,).
    """
    rows = _read_list(path).sort_values("index", kind="stable")
    place = pd.Index(numbers).get_indexer(pd.Index(rows["index"]))
    if (place < 0).any() or rows["index"].duplicated().any() or rows.empty:
        raise ValueError(f"dataset.images={path} lists no images, a missing one, or one twice")
    if wrong := rows["index"][labels[place] != rows["label"].to_numpy()].tolist():
        raise ValueError(f"dataset.images={path}: image {wrong[0]} has another label in the data")
    return place.astype(np.int64)


def check_names(path: str, images: pd.DataFrame) -> None:
    """Refuse images whose file names differ from those in the list, see `listed_subset`.

    Folders may differ.
    """
    rows = _read_list(path).sort_values("index", kind="stable").reset_index(drop=True)
    files = images["file"].str.split("/").str[-1].map(csv_cell)  # the list may be written so
    names = rows["file"].str.split("/").str[-1].map(csv_cell) if "file" in rows else files
    if others := images["index"][(names != files) & (names != "")].tolist():
        raise ValueError(f"dataset.images={path}: image {others[0]} is another file in the data")


def _read_list(path: str) -> pd.DataFrame:
    with reading(f"dataset.images={path}", "a list of images"):
        rows = read_list(path)
        if missing := {"index", "label"} - set(rows):
            raise ValueError(
                f"it lacks the column {min(missing)}, and has {', '.join(map(str, rows))}"
            )
        return rows.astype({"index": np.int64, "label": np.int64})
