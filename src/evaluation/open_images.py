"""Open a set of adversarial images, this program's own or another's; nothing is ever unpickled.

Reference:
    TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack), transferattack/utils.py,
    `AdvDataset` and `save_images`: a flat folder of images named as the clean ones, and a
    `labels.csv`. Labels count from 0. It resizes clean images to 224 x 224 before it attacks, and
    stores by rounding down.
    TA-Bench (github.com/qizhangli/TA-Bench), attacker.py and attacks/helper.py: `batch_0.npy`,
    `batch_1.npy`, ..., each uint8 (N, 3, H, W), rounded to nearest, and `labels.npy`, 0-based;
    the clean images are not stored.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.config.settings import SavedOrigin
from src.data import to_rgb
from src.data.image_csv import class_number, find_images, read_rows
from src.evaluation.image_shards import MANIFEST, read_shards
from src.evaluation.saved_images import DatasetFacts, SavedImages, SavedImagesFacts

UNKNOWN = "unknown"
UNKNOWN_ORIGIN = SavedOrigin(
    source=UNKNOWN, attack=UNKNOWN, norm="linf", dataset=UNKNOWN, num_classes=None
)
_Found = tuple[list[int], list[int] | None, list[list[Any]]]
"""True classes, target labels, and the images of each folder: files, or arrays (H, W, 3)."""


def open_saved_images(
    path: str | Path,
    *,
    clean: str | Path | None = None,
    labels: str | Path | None = None,
    eps_255: float | None = None,
    resize_clean: bool = False,
    origin: SavedOrigin = UNKNOWN_ORIGIN,
) -> SavedImages:
    """Open whatever set of adversarial images lies in a folder.

    With a `manifest.json` it is this program's own. With `batch_0.npy`, ... it is TA-Bench's:
    arrays (N, 3, H, W), uint8. Else it is TransferAttack's: image files, of which those that the
    CSV does not list are left out.

    Args:
        path: The folder.
        clean: Clean images of a foreign set: a folder of the same layout.
        labels: Its labels, 0-based: a CSV of columns `filename`, `label` and perhaps
            `targeted_label`, or for arrays a `.npy` file. None takes `labels.csv` in the folder, or
            else beside that of the clean images; or `labels.npy` in the folder.
        eps_255: Its budget in units of 1/255.
        resize_clean: Bring clean images of another size to that of the adversarial ones, by the
            bicubic filter that TransferAttack applies before its attacks.
        origin: What else its files do not say.

    Raises:
        ValueError: There is no such set, or a file is missing or wrong.
    """
    folder = Path(path)
    if (folder / MANIFEST).exists():
        given = (clean, labels, eps_255, resize_clean, origin)
        if given != (None, None, None, False, UNKNOWN_ORIGIN):
            raise ValueError(f"{folder} says itself what clean, labels, eps_255 and origin would.")
        return read_shards(folder)
    if eps_255 is None:
        raise ValueError(
            f"{folder / MANIFEST} does not exist; for images of another program give eps_255."
        )
    folders = [folder] if clean is None else [folder, Path(clean)]
    find = _find_arrays if (folder / "batch_0.npy").exists() else _find_files
    true, aimed, images = find(folders, None if labels is None else Path(labels))
    height, width = _decoded(images[0][0]).shape[:2]

    def read(row: int, *, originals: bool) -> Tensor:
        pixels = _decoded(images[originals][row])
        if originals and resize_clean and pixels.shape[:2] != (height, width):
            whole = Image.fromarray(pixels)
            pixels = np.asarray(whole.resize((width, height), Image.Resampling.BICUBIC))
        if pixels.shape[:2] != (height, width):
            raise ValueError(
                f"Image {row} of {folders[originals]} must have {height} x {width} pixels, not "
                f"{pixels.shape[0]} x {pixels.shape[1]}; resize_clean=true resizes clean images."
            )
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())

    facts = _facts(origin, eps_255)
    content = hashlib.sha256(repr((facts, true, aimed)).encode())
    for row in range(len(true)):
        content.update(read(row, originals=False).numpy().tobytes())
    return SavedImages(
        facts=facts,
        index=np.arange(len(true)),
        labels=np.array(true),
        target_labels=None if aimed is None else np.array(aimed),
        read_adversarial=lambda row: read(row, originals=False)[None],
        read_clean=None if clean is None else partial(read, originals=True),
        digest=content.hexdigest()[:16],
    )


def _facts(origin: SavedOrigin, eps_255: float) -> SavedImagesFacts:
    classes = origin.num_classes
    return SavedImagesFacts(
        source=origin.source,
        ensemble=UNKNOWN,
        weights={},
        attack={"name": origin.attack},
        norm=origin.norm,
        seed=0,
        dataset=DatasetFacts(name=origin.dataset, digest="", num_classes=classes, class_names=None),
        budgets_255=(eps_255,),
    )


def _find_files(folders: Sequence[Path], table: Path | None) -> _Found:
    """Find the files that a CSV lists."""
    places = [folders[0] / "labels.csv", folders[-1].parent / "labels.csv"]
    found = table or next((place for place in places if place.is_file()), places[0])
    rows = read_rows(found, ["filename", "label"])
    labels = [class_number(row, "label", 0) for row in rows]
    targets = None
    if "targeted_label" in rows[0]:
        targets = [class_number(row, "targeted_label", 0) for row in rows]
    names = [row["filename"].strip() for row in rows]
    return labels, targets, [find_images(folder, names) for folder in folders]


def _find_arrays(folders: Sequence[Path], table: Path | None) -> _Found:
    """Find the arrays `batch_0.npy`, `batch_1.npy`, ..., of which none may lack."""
    table = table or folders[0] / "labels.npy"
    labels = _mapped(table)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{table} must hold whole numbers (N,), not {labels.dtype}.")
    images = []
    for folder in folders:
        files = [folder / f"batch_{n}.npy" for n in range(len(list(folder.glob("batch_*.npy"))))]
        batches = {file: _mapped(file) for file in files}
        for file, batch in batches.items():
            if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1] != 3:
                found = f"{batch.dtype} {batch.shape}"
                raise ValueError(f"{file} must be grey levels, uint8 (N, 3, H, W), not {found}.")
        images.append([image.transpose(1, 2, 0) for batch in batches.values() for image in batch])
        if len(images[-1]) != len(labels):
            raise ValueError(f"{folder} must hold {len(labels)} images, as many as {table}.")
    return labels.tolist(), None, images


def _mapped(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} must be a .npy file of plain numbers: {error}") from error
    return array


def _decoded(image: Path | np.ndarray) -> np.ndarray:
    """Return the pixels of a file or an array, uint8 (H, W, 3)."""
    try:
        return to_rgb(image)
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(f"{image} cannot be read as an image: {error}") from error
