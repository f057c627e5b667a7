"""This program's own files of adversarial images: a shard for each batch, and a manifest.

A shard `batch-PROCESS-NUMBER.safetensors` holds `index` and `label` int64 (N,), `clean` uint8
(N, 3, H, W), `adversarial` uint8 (K, N, 3, H, W), and of a targeted attack `target_label` int64
(N,). `manifest.json` is written last: a folder without one holds no set.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from src.config.settings import Budget, Norm
from src.data import Batch
from src.evaluation.saved_images import SavedImages
from src.utils.cache import sha256_of
from src.utils.files import atomic_write, reason, write_text, writing

MANIFEST = "manifest.json"
ShardName = Annotated[str, StringConstraints(pattern=r"^batch-\d+-\d+\.safetensors$")]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DatasetFacts(_Facts):
    """The data set that saved images are of."""

    name: str
    digest: str
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)]
    class_names: tuple[str, ...] | None


class SavedImagesFacts(_Facts):
    """What a set of saved images says of itself.

    Attributes:
        source: The model that the images were crafted on, of an ensemble `a+b`.
        ensemble: What the ensemble averages.
        weights: Digests of the sources' weights by name.
        attack: Its settings.
        norm: Of the budgets.
        seed: Of the attack.
        dataset: The data set.
        budgets_255: The K budgets in units of 1/255.
    """

    source: str
    ensemble: str
    weights: dict[str, str]
    attack: dict[str, Any]
    norm: Norm
    seed: int
    dataset: DatasetFacts
    budgets_255: Annotated[tuple[Budget, ...], Field(min_length=1)]


class Manifest(_Facts):
    """The manifest: format and version, the facts, and the SHA-256 of every shard by name."""

    format: Literal["transferability-images"] = "transferability-images"
    version: Literal[2] = 2
    facts: SavedImagesFacts
    shards: Annotated[dict[ShardName, str], Field(min_length=1)]


class SavedImagesWriter:
    """Write a set of adversarial images, a shard for each batch and process.

    Processes that share a job write into one folder, each its own shards: `start` and `finish` are
    the first one's, before any and after every process has written.

    Args:
        folder: Of the set, and of nothing else; made where missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written = 0

    def start(self) -> None:
        """Remove an earlier set, its manifest first.

        Raises:
            WriteError: The folder cannot be written.
        """
        with writing(self.folder):
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for path in self._shards():
                path.unlink()

    def write(self, batch: Batch, adversarial: Tensor, target_labels: Tensor | None) -> None:
        """Write a batch.

        Args:
            batch: The clean images in 8 bits, with labels and index.
            adversarial: Their adversarial versions, uint8 (K, N, 3, H, W).
            target_labels: The classes that a targeted attack aims for, int64 (N,).

        Raises:
            WriteError: The disk is full, or the folder cannot be written.
        """
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
            # What `save_file` raises on a full disk is no OSError.
            temporary.write_bytes(save({k: v.cpu().contiguous() for k, v in tensors.items()}))
        self._written += 1

    def finish(self, facts: SavedImagesFacts, index: np.ndarray) -> Path:
        """Write the manifest.

        Args:
            facts: What the set is.
            index: Of the images that must have been written, int64 (N,).

        Returns:
            The path of the manifest.

        Raises:
            ValueError: An image was not written, as by processes that share no file system.
        """
        shards = {path.name: sha256_of(path) for path in self._shards()}
        written = [number for name in shards for number in _columns(self.folder / name)["index"]]
        missing = np.setdiff1d(index, written)
        if len(missing):
            raise ValueError(
                f"{self.folder} lacks {len(missing)} of {len(index)} images, the first of them "
                f"image {missing[0]}: all processes must write to one file system."
            )
        manifest = Manifest(facts=facts, shards=shards)
        write_text(self.folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        return self.folder / MANIFEST

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("batch-*.safetensors"))


def read_shards(folder: Path) -> SavedImages:
    """Open a set that `SavedImagesWriter` has finished; images are read when asked for.

    Raises:
        ValueError: The manifest or a shard is missing, damaged or of another format.
    """
    manifest = _read_manifest(folder / MANIFEST)
    facts = manifest.facts
    for name, digest in manifest.shards.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise ValueError(f"{folder / name} is missing or damaged: its SHA-256 is not {digest}.")
    parts = [_columns(folder / name) for name in manifest.shards]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["index"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    sizes = [len(part["index"]) for part in parts]
    shard = np.repeat(np.arange(len(parts)), sizes)[order]
    place = np.concatenate([np.arange(size) for size in sizes])[order]
    digests = "".join(sorted(manifest.shards.values()))  # whichever process has written which
    names = list(manifest.shards)

    def read(row: int, images: str) -> Tensor:
        at = int(place[row])
        with safe_open(folder / names[shard[row]], "pt") as file:  # anew: processes share no handle
            stored = file.get_slice(images)
            found: Tensor = stored[:, at] if images == "adversarial" else stored[at]
        return found

    return SavedImages(
        index=columns["index"],
        labels=columns["label"],
        target_labels=columns.get("target_label"),
        read_adversarial=partial(read, images="adversarial"),
        read_clean=partial(read, images="clean"),
        dataset=facts.dataset.name,
        digest=hashlib.sha256((facts.model_dump_json() + digests).encode()).hexdigest()[:16],
        num_classes=facts.dataset.num_classes,
        class_names=facts.dataset.class_names,
        **facts.model_dump(exclude={"dataset", "seed"}),
    )


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {reason(error)}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {key[:200]}: {first['msg'][:200]}.") from error


def _columns(path: Path) -> dict[str, np.ndarray]:
    """Return what a shard holds beside images: `index`, `label` and perhaps `target_label`."""
    with safe_open(path, "pt") as file:
        names = set(file.keys()) - {"clean", "adversarial"}
        return {name: file.get_tensor(name).numpy() for name in names}
