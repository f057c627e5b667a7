"""Open a set of adversarial images, this project's own or another's; nothing is ever unpickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.data import is_image
from src.sets.arrays import has_batches, load_npy
from src.sets.foreign import NO_ORIGIN, Origin, read_array, read_folder
from src.sets.manifest import MANIFEST, load_manifest
from src.sets.records import AdversarialSet, budget_breaches
from src.utils.cache import sha256_of

__all__ = ["AdversarialSet", "budget_breaches", "open_set", "read_array", "read_folder", "read_set"]


def read_set(path: str | Path) -> AdversarialSet:
    """Read a set that `SetWriter` has finished, its images as memory maps.

    Args:
        path: its folder or its `manifest.json`.

    Raises:
        ValueError: if it is unfinished, or the manifest or an array is missing, damaged or edited.
    """
    folder = Path(path).parent if Path(path).name == MANIFEST else Path(path)
    manifest = load_manifest(folder)
    where = folder / MANIFEST
    images, dataset = manifest["images"], manifest["dataset"]
    shape = (len(images["index"]), *manifest["shape"])
    names = dataset["class_names"]
    try:
        return AdversarialSet(
            index=np.array(images["index"], dtype=np.int64),
            labels=np.array(images["label"], dtype=np.int64),
            target_labels=_column(images["target_label"]),
            clean=_load(folder, manifest["clean"], shape),
            budgets_255=tuple(float(entry["eps_255"]) for entry in manifest["budgets"]),
            adversarial=tuple(_load(folder, entry, shape) for entry in manifest["budgets"]),
            source=manifest["source"],
            attack=manifest["attack"],
            norm=manifest["norm"],
            ensemble=manifest["ensemble"],
            weights=manifest["weights"],
            dataset=dataset["name"],
            num_classes=dataset["num_classes"],
            digest=manifest["digest"],
            class_names=None if names is None else tuple(names),
        )
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error


def open_set(
    path: str | Path,
    *,
    clean: str | Path | None = None,
    labels: str | Path | None = None,
    eps_255: float | None = None,
    resize_clean: bool = False,
    origin: Origin = NO_ORIGIN,
) -> AdversarialSet:
    """Read whatever set of adversarial images lies at a path.

    A folder with a `manifest.json` is this project's own; a `.npy` file or a folder of
    `batch_0.npy`, ... are TA-Bench's arrays; a folder of images is TransferAttack's.

    Args:
        path: what to read.
        clean: where the clean images lie, for sets of other projects.
        labels: the CSV (of a folder of images) or `.npy` file (of arrays) of the labels.
        eps_255: the budget in 1/255; sets of other projects need it.
        resize_clean: as for `read_folder`.
        origin: what the files of other projects do not say.

    Raises:
        ValueError: if there is no such set, or it is not as its kind should be.
    """
    place = Path(path)
    if not place.exists():
        raise ValueError(f"{place} does not exist (seen from {Path.cwd()}).")
    if place.name == MANIFEST or (place / MANIFEST).exists():
        given = {"clean": clean, "labels": labels, "eps_255": eps_255}
        told = [key for key, value in given.items() if value is not None]
        told += ["resize_clean"] * resize_clean + ["origin"] * (origin != NO_ORIGIN)
        if told:
            raise ValueError(f"{place} says itself what {', '.join(told)} would: leave it out.")
        return read_set(place)
    if place.suffix == ".npy" or (place.is_dir() and has_batches(place)):
        if resize_clean:
            raise ValueError(f"{place} holds arrays, whose clean images resize_clean cannot fit.")
        return read_array(place, labels, eps_255=eps_255, clean=clean, origin=origin)
    if place.is_dir() and any(is_image(file.name) for file in place.iterdir()):
        return read_folder(
            place, labels, eps_255=eps_255, clean=clean, resize_clean=resize_clean, origin=origin
        )
    if place.is_dir():
        found = [*place.glob(f"*/{MANIFEST}"), *place.glob(f"*/*/{MANIFEST}")]
        inside = ", ".join(str(path.parent) for path in sorted(found))
        if inside:
            raise ValueError(f"{place} is no set of adversarial images; there are {inside}.")
    raise ValueError(
        f"{place} must be a folder with a {MANIFEST}, a .npy file, a folder with batch_0.npy, or a "
        f"folder of images: it is none of these, or a set whose writer did not finish."
    )


def _column(values: list[int] | None) -> np.ndarray | None:
    return None if values is None else np.array(values, dtype=np.int64)


def _load(folder: Path, entry: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    """Map an array of the set after checking it against the manifest."""
    path = folder / entry["file"]
    if not path.is_file():
        raise ValueError(f"{path} does not exist.")
    if sha256_of(path) != entry["sha256"]:
        raise ValueError(f"{path} is damaged: its SHA-256 is not {entry['sha256']}.")
    images = load_npy(path)
    if images.dtype != np.uint8 or images.shape != shape:
        raise ValueError(f"{path} must hold uint8 {shape}, not {images.dtype} {images.shape}.")
    return images
