"""This program's own files of adversarial images: a shard for each batch, and a manifest.

A shard `batch-PROCESS-NUMBER.safetensors` holds `index` and `label` int64 (N,), `clean` uint8
(N, 3, H, W), `adversarial` uint8 (K, N, 3, H, W), and of a targeted attack `target_label` int64
(N,). `manifest.json` is written last: a folder without one holds no set.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from src.config.settings import Section
from src.data import Batch
from src.evaluation.saved_images import SavedImages, SavedImagesFacts
from src.utils.cache import sha256_of
from src.utils.checks import first_line
from src.utils.files import atomic_write, reason, write_text, writing

MANIFEST = "manifest.json"


class Manifest(Section):
    """Manifest of a set, with the SHA-256 of every shard by file name."""

    format: Literal["transferability-images"] = "transferability-images"
    version: Literal[3] = 3
    facts: SavedImagesFacts
    shards: dict[str, str]


class SavedImagesWriter:
    """Writer of a set of adversarial images: a shard for each batch and process.

    Processes that share a job write into one folder, each its own shards: `start` and `finish` are
    the first one's, before any and after every process has written. The folder holds nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written = 0

    def start(self) -> None:
        """Remove an earlier set, its manifest first."""
        with writing(self.folder):
            for path in (self.folder / MANIFEST, *_shards(self.folder)):
                path.unlink(missing_ok=True)

    def write(self, batch: Batch, adversarial: Tensor, target_labels: Tensor | None) -> None:
        """Write a batch and its adversarial versions, uint8 (K, N, 3, H, W)."""
        tensors = {
            "index": batch.index,
            "label": batch.labels,
            "clean": batch.images,
            "adversarial": adversarial,
        }
        if target_labels is not None:
            tensors["target_label"] = target_labels
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        with atomic_write(self.folder / f"batch-{rank}-{self._written}.safetensors") as temporary:
            # On a full disk `save_file` raises no OSError.
            temporary.write_bytes(save({k: v.cpu().contiguous() for k, v in tensors.items()}))
        self._written += 1

    def finish(self, facts: SavedImagesFacts, index: np.ndarray) -> None:
        """Write the manifest, if all images of the `index`, int64 (N,), have been written.

        Raises:
            ValueError: An image was not written, as by processes that share no file system.
        """
        shards = _shards(self.folder)
        parts = [_columns(path, len(facts.budgets_255)) for path in shards]
        missing = np.setdiff1d(index, [row for part in parts for row in part["index"]])
        if len(missing):
            raise ValueError(
                f"{self.folder} lacks {len(missing)} of {len(index)} images, the first of them "
                f"image {missing[0]}: all processes must write to one file system."
            )
        manifest = Manifest(facts=facts, shards={path.name: sha256_of(path) for path in shards})
        write_text(self.folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def read_shards(folder: Path) -> SavedImages:
    """Open a set that `SavedImagesWriter` has finished; images are read when asked for."""
    manifest = _read_manifest(folder / MANIFEST)
    shards = _shards(folder)
    unlike = manifest.shards.items() ^ {path.name: sha256_of(path) for path in shards}.items()
    if unlike or not shards:
        name = min(unlike, default=("batch-0-0.safetensors", ""))[0]
        raise ValueError(f"{folder / name} is missing or damaged, by the SHA-256 in {MANIFEST}.")
    parts = [_columns(path, len(manifest.facts.budgets_255)) for path in shards]
    if any(part.keys() != parts[0].keys() for part in parts):
        raise ValueError(f"{folder}: not all of its shards have target labels.")
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["index"], kind="stable")
    counts = [len(part["index"]) for part in parts]
    places = [(path, at) for path, count in zip(shards, counts, strict=True) for at in range(count)]

    def read(row: int, name: str) -> Tensor:
        path, at = places[order[row]]
        with safe_open(path, "pt") as file:  # anew: processes share no handle
            stored = file.get_slice(name)
            images: Tensor = stored[:, at] if name == "adversarial" else stored[at]
        return images

    digests = "".join(sorted(manifest.shards.values()))  # sorted: any process may have written any
    content = manifest.facts.model_dump_json() + digests
    return SavedImages(
        facts=manifest.facts,
        index=columns["index"][order],
        labels=columns["label"][order],
        target_labels=columns["target_label"][order] if "target_label" in columns else None,
        read_adversarial=partial(read, name="adversarial"),
        read_clean=partial(read, name="clean"),
        digest=hashlib.sha256(content.encode()).hexdigest()[:16],
    )


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason(error)}.") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {first_line(error)[:400]}.") from error


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("batch-*.safetensors"))


def _columns(path: Path, budgets: int) -> dict[str, np.ndarray]:
    """Return a valid shard's `index`, `label` and, of a targeted attack, `target_label`."""
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_slice(name) for name in set(file.keys())}
            kinds = {name: f"{one.get_dtype()} {one.get_shape()}" for name, one in found.items()}
            count, _, *size = found["clean"].get_shape()
            images = ", ".join(map(str, (count, 3, *size)))
            names = {"index", "label"} | (kinds.keys() & {"target_label"})
            wanted = dict.fromkeys(names, f"I64 [{count}]") | {"clean": f"U8 [{images}]"}
            wanted["adversarial"] = f"U8 [{budgets}, {images}]"
            if kinds != wanted or len(size) != 2:
                raise ValueError(f"it holds {kinds}, not {wanted}")
            return {name: file.get_tensor(name).numpy() for name in names}
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(f"{path} is no shard of images: {first_line(error)[:400]}.") from error
