"""Read `.npy` files of images, without ever unpickling anything."""

import re
from pathlib import Path

import numpy as np

from src.utils.checks import first_line

_BATCH = re.compile(r"batch_([0-9]+)\.npy")


def load_npy(path: Path) -> np.ndarray:
    """Map a `.npy` file into memory, read-only.

    Raises:
        ValueError: if it is missing, damaged, or holds anything but plain numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise ValueError(f"{path} does not exist.") from error
    except Exception as error:  # which one depends on where the damage lies
        raise ValueError(
            f"{path} must be a whole .npy file of plain numbers (nothing is ever unpickled): "
            f"{first_line(error)[:200]}"
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{path} must be a .npy file of one array, not an archive of several.")
    return array


def load_images(path: Path) -> np.ndarray:
    """Read images from a `.npy` file, or from `batch_0.npy`, `batch_1.npy`, ... in a folder.

    Axes may be (N, 3, H, W) or (N, H, W, 3). One file stays a memory map, several are joined in
    memory.

    Returns:
        uint8 (N, 3, H, W).

    Raises:
        ValueError: if a file is missing or not such an array, or the files do not fit together.
    """
    if not path.is_dir():
        return to_nchw(load_npy(path), path)
    parts: list[np.ndarray] = []
    for file in batch_files(path):
        part = to_nchw(load_npy(file), file)
        if parts and part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"{file} holds images of shape {part.shape[1:]} while those before it have "
                f"{parts[0].shape[1:]}."
            )
        parts.append(part)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def has_batches(folder: Path) -> bool:
    """Tell whether a folder holds any `batch_N.npy`."""
    return any(_BATCH.fullmatch(path.name) for path in folder.iterdir())


def batch_files(folder: Path) -> list[Path]:
    """Return the batch files of a folder by their number.

    Raises:
        ValueError: if there are none or one of 0, 1, 2, ... is missing.
    """
    numbers = [int(match[1]) for p in folder.iterdir() if (match := _BATCH.fullmatch(p.name))]
    if not numbers:
        raise ValueError(f"{folder} holds no batch_0.npy.")
    files = [folder / f"batch_{number}.npy" for number in range(max(numbers) + 1)]
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} does not exist, but batch_{max(numbers)}.npy does.")
    return files


def to_nchw(images: np.ndarray, where: Path) -> np.ndarray:
    """Return uint8 images as (N, 3, H, W), without a copy.

    Raises:
        ValueError: if they are not uint8, not RGB images, or their axes cannot be told apart.
    """
    if images.dtype != np.uint8:
        raise ValueError(
            f"{where} must hold uint8, grey levels 0..255, not {images.dtype}: round the images "
            f"to 8 bits where their clean images are at hand, so that none leaves its budget."
        )
    leading, trailing = (images.ndim == 4 and images.shape[axis] == 3 for axis in (1, 3))
    if leading == trailing:
        problem = "could be either" if leading else "is neither"
        raise ValueError(
            f"{where} must hold images as (N, 3, H, W) or (N, H, W, 3); the shape {images.shape} "
            f"{problem}."
        )
    return images if leading else images.transpose(0, 3, 1, 2)


def load_labels(labels: str | Path | np.ndarray, num_images: int) -> np.ndarray:
    """Return labels, from a `.npy` file or as given, as int64 (N,).

    Raises:
        ValueError: if they are not whole numbers, or not one an image.
    """
    if isinstance(labels, np.ndarray):
        where, found = "labels", labels
    else:
        where, found = str(labels), load_npy(Path(labels))
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"{where} must hold one whole number an image, not {found.dtype} {found.shape}."
        )
    if len(found) != num_images:
        raise ValueError(f"{where} holds {len(found)} labels for {num_images} images.")
    return np.array(found, dtype=np.int64)
