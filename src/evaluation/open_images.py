"""Open a set of adversarial images, this program's own or another's; nothing is ever unpickled.

Reference:
    TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack), transferattack/utils.py,
    `AdvDataset` and `save_images`: a flat folder of images named as the clean ones; `labels.csv`
    lies in the folder of the data, the clean images in its sub-folder `images`. Labels count from
    0. It resizes clean images to 224 x 224 before it attacks, and stores by rounding down.
    TA-Bench (github.com/qizhangli/TA-Bench), attacker.py and attacks/helper.py: `batch_0.npy`,
    `batch_1.npy`, ..., each uint8 (N, 3, H, W), rounded to nearest, and `labels.npy`, 0-based;
    the clean images are not stored.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from src.config.settings import SavedOrigin
from src.evaluation.image_shards import MANIFEST, read_shards
from src.evaluation.saved_images import SavedImages
from src.utils.cache import sha256_of
from src.utils.checks import first_line

UNKNOWN = "unknown"
UNKNOWN_ORIGIN = SavedOrigin(
    source=UNKNOWN, attack=UNKNOWN, norm="linf", dataset=UNKNOWN, num_classes=None
)
LABELS_CSV = "labels.csv"
LABELS_NPY = "labels.npy"


def open_saved_images(
    path: str | Path,
    *,
    clean: str | Path | None = None,
    labels: str | Path | None = None,
    eps_255: float | None = None,
    resize_clean: bool = False,
    origin: SavedOrigin = UNKNOWN_ORIGIN,
) -> SavedImages:
    """Open whatever set of adversarial images lies at a path; images are read when asked for.

    A folder with a `manifest.json` is this program's own. A `.npy` file, or a folder of
    `batch_0.npy`, ..., holds arrays in TA-Bench's layout, (N, 3, H, W) or (N, H, W, 3), uint8. A
    folder of images is TransferAttack's; those that its CSV does not list are left out.

    Args:
        path: What to open.
        clean: Clean images of a foreign set: a folder of the same names, or arrays.
        labels: Its labels, 0-based: a CSV of columns `filename`, `label` and perhaps
            `targeted_label`, or a `.npy` file. None takes `labels.csv` in the folder or else beside
            the folder of clean images, or `labels.npy` beside the arrays.
        eps_255: Its budget in units of 1/255.
        resize_clean: Bring clean images of another size to that of the adversarial ones, by the
            bicubic filter that TransferAttack applies before its attacks.
        origin: What else its files do not say.

    Raises:
        ValueError: There is no such set, or a file is missing or wrong.
    """
    place = Path(path)
    if place.name == MANIFEST:
        place = place.parent
    if (place / MANIFEST).exists():
        given = (clean, labels, eps_255, resize_clean, origin)
        if given != (None, None, None, False, UNKNOWN_ORIGIN):
            raise ValueError(f"{place} says itself what clean, labels, eps_255 and origin would.")
        return read_shards(place)
    found = [
        str(path.parent) for depth in ("*", "*/*") for path in place.glob(f"{depth}/{MANIFEST}")
    ]
    if found:
        inside = ", ".join(sorted(found))
        raise ValueError(f"{place} is no set of adversarial images; there are {inside}.")
    if not place.exists() or list(place.glob("batch-*.safetensors")):
        raise ValueError(f"{place / MANIFEST} does not exist: there is no finished set.")
    if eps_255 is None:
        raise ValueError(f"The files in {place} do not say their budget: give eps_255.")
    beside = None if clean is None else Path(clean)
    table = None if labels is None else Path(labels)
    if place.is_dir() and not (place / "batch_0.npy").exists():
        return _read_folder(place, beside, table, eps_255, resize_clean, origin)
    if resize_clean:
        raise ValueError(f"{place} holds arrays, whose clean images resize_clean cannot fit.")
    return _read_arrays(place, beside, table, eps_255, origin)


def _read_folder(
    folder: Path,
    clean: Path | None,
    labels: Path | None,
    eps_255: float,
    resize_clean: bool,
    origin: SavedOrigin,
) -> SavedImages:
    places = [folder / LABELS_CSV, (clean or folder).parent / LABELS_CSV]
    table = labels or next((place for place in places if place.is_file()), places[0])
    names, numbers = _read_csv(table)
    adversarial = _find_images(folder, names)
    originals = [] if clean is None else _find_images(clean, names)
    size = _decoded(adversarial[0]).size

    def read(row: int, files: list[Path], resize: bool) -> Tensor:
        image = _decoded(files[row])
        if image.size != size and resize:
            image = image.resize(size, Image.Resampling.BICUBIC)
        if image.size != size:
            raise ValueError(
                f"{files[row]} must have {size[1]} x {size[0]} pixels, not {image.height} x "
                f"{image.width} (resize_clean brings clean images to the size of the others)."
            )
        return torch.from_numpy(np.array(image).transpose(2, 0, 1))

    return _assembled(
        lambda row: read(row, adversarial, resize=False),
        (lambda row: read(row, originals, resize_clean)) if clean else None,
        [*adversarial, *originals],
        numbers,
        eps_255,
        origin,
    )


def _read_arrays(
    path: Path, clean: Path | None, labels: Path | None, eps_255: float, origin: SavedOrigin
) -> SavedImages:
    table = labels or (path if path.is_dir() else path.parent) / LABELS_NPY
    numbers = _map_array(table)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise ValueError(f"{table} must hold whole numbers (N,), not {numbers.dtype}.")
    adversarial = _map_batches(path)
    originals = _map_batches(clean) if clean else {}
    for place, batches in ((path, adversarial), (clean, originals)):
        shapes = {batch.shape[1:] for batch in (*adversarial.values(), *batches.values())}
        if batches and (len(shapes) > 1 or sum(map(len, batches.values())) != len(numbers)):
            raise ValueError(
                f"{place} must hold {len(numbers)} images, as many as {table}, of one shape."
            )

    def read(row: int, batches: dict[Path, np.ndarray]) -> Tensor:
        for batch in batches.values():
            if row < len(batch):
                break
            row -= len(batch)
        return torch.from_numpy(batch[row].copy())

    return _assembled(
        lambda row: read(row, adversarial),
        (lambda row: read(row, originals)) if clean else None,
        [*adversarial, *originals],
        {"label": numbers.astype(np.int64)},
        eps_255,
        origin,
    )


def _assembled(
    adversarial: Callable[[int], Tensor],
    clean: Callable[[int], Tensor] | None,
    files: list[Path],
    numbers: dict[str, np.ndarray],
    eps_255: float,
    origin: SavedOrigin,
) -> SavedImages:
    columns = {name: column.tolist() for name, column in numbers.items()}
    total = hashlib.sha256(repr((origin, eps_255, columns)).encode())
    for path in files:
        total.update(sha256_of(path).encode())
    return SavedImages(
        index=np.arange(len(numbers["label"])),
        labels=numbers["label"],
        target_labels=numbers.get("targeted_label"),
        budgets_255=(eps_255,),
        read_adversarial=lambda row: adversarial(row)[None],
        read_clean=clean,
        digest=total.hexdigest()[:16],
        **origin.model_dump(),
    )


def _read_csv(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Return the file names, and the columns `label` and perhaps `targeted_label`, int64 (N,)."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
        names = [name for name in ("label", "targeted_label") if name in table or name == "label"]
        numbers = {name: table[name].astype(np.int64).to_numpy() for name in names}
        files = table["filename"].str.strip()
    except KeyError as error:
        raise ValueError(f"{path} has no column {error}.") from error
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(f"{path} is no CSV of class numbers: {first_line(error)[:200]}") from error
    if files.duplicated().any():
        raise ValueError(f"{path} lists {files[files.duplicated()].iloc[0]!r} more than once.")
    return list(files), numbers


def _find_images(folder: Path, names: list[str]) -> list[Path]:
    """Return the file of each name, which may lack its suffix."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of images.")
    files = {key: path for path in sorted(folder.iterdir()) for key in (path.stem, path.name)}
    missing = [name for name in names if name not in files]
    if missing or not names:
        raise ValueError(f"The image {' '.join(missing[:1])[:200]!r} is not in {folder}.")
    return [files[name] for name in names]


def _decoded(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # which one depends on where the damage lies
        raise ValueError(f"{path} cannot be read as an image: {first_line(error)[:200]}") from error


def _map_batches(path: Path) -> dict[Path, np.ndarray]:
    """Map a file, or the `batch_0.npy`, `batch_1.npy`, ... of a folder, of which none may lack."""
    if not path.is_dir():
        return {path: _map_images(path)}
    files = [path / f"batch_{number}.npy" for number in range(len(list(path.glob("batch_*.npy"))))]
    return {file: _map_images(file) for file in files}


def _map_images(path: Path) -> np.ndarray:
    """Map uint8 images into memory, as (N, 3, H, W)."""
    images = _map_array(path)
    if images.dtype != np.uint8:
        raise ValueError(
            f"{path} must hold uint8, grey levels 0..255, not {images.dtype}: round the images "
            f"to 8 bits where their clean images are at hand, so that none leaves its budget."
        )
    leading, trailing = (images.ndim == 4 and images.shape[axis] == 3 for axis in (1, 3))
    if leading == trailing:
        raise ValueError(
            f"{path} must hold images as (N, 3, H, W) or (N, H, W, 3); the shape {images.shape} is "
            f"{'either' if leading else 'neither'}."
        )
    return images if leading else images.transpose(0, 3, 1, 2)


def _map_array(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # which one depends on where the damage lies
        raise ValueError(
            f"{path} must be a whole .npy file of plain numbers (nothing is ever unpickled): "
            f"{first_line(error)[:200]}"
        ) from error
    return array
