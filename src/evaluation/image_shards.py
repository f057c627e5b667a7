"""Write a set of adversarial images: arrays named by their content, the manifest last."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from src.sets.manifest import (
    FACTS,
    FILES,
    FORMAT,
    MANIFEST,
    VERSION,
    check_rules,
    content_name,
    digest_of,
    write_manifest,
)
from src.sets.records import blocks, check_budgets, check_classes, check_index
from src.sets.storage import check_budget
from src.utils.cache import sha256_of
from src.utils.files import writing

_TEMPORARY = ".writing-"
_CLEAN, _ROWS = "clean", "rows"


class SetWriter:
    """Collect images row by row in files, then name, check and describe them.

    Several processes of one machine may write one set: the first calls `create`, the others
    `open` when it has returned; each writes its own images, and when all have called `close`
    one of them calls `finish`. Writing an image again replaces it.

    Args:
        folder: of the set, and of nothing else; made where missing.
        positions: row of each image index, or the image indices in the order of the rows.
        shape: (3, H, W) of the images.
        budgets_255: the K budgets in 1/255.

    Raises:
        ValueError: if positions, shape or budgets are wrong.
    """

    def __init__(
        self,
        folder: Path,
        positions: Mapping[int, int] | Sequence[int] | np.ndarray,
        shape: tuple[int, int, int],
        budgets_255: Sequence[float],
    ) -> None:
        self.folder = Path(folder)
        self.shape = tuple(int(side) for side in shape)
        self.budgets_255 = tuple(float(eps_255) for eps_255 in budgets_255)
        self.index = _in_rows(positions)
        check_budgets(self.budgets_255)
        if len(self.shape) != 3 or self.shape[0] != 3 or min(self.shape) < 1:
            raise ValueError(f"shape must be (3, height, width), not {shape}.")
        self._row = {int(image): row for row, image in enumerate(self.index)}
        self._maps: dict[str, np.ndarray] = {}

    def create(self) -> Self:
        """Start anew: remove the manifest and temporaries of earlier writers, make empty files.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
        """
        self.close()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / MANIFEST).unlink(missing_ok=True)
            for pattern in (f"{_TEMPORARY}*", ".manifest.*.tmp*"):
                for leftover in self.folder.glob(pattern):
                    leftover.unlink(missing_ok=True)
            for name, (dtype, shape) in self._layout().items():
                path = self._path(name)
                self._maps[name] = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=shape)
                _reserve(path)
        return self

    def open(self) -> Self:
        """Join the writer that has created the files.

        Raises:
            ValueError: if there are none, or they are of another set.
        """
        self.close()
        for name, (dtype, shape) in self._layout().items():
            path = self._path(name)
            if not path.is_file():
                raise ValueError(f"{path} does not exist: no writer has created this set.")
            found = np.lib.format.open_memmap(path, "r+")
            if found.dtype != dtype or found.shape != shape:
                raise ValueError(
                    f"{path} must hold {np.dtype(dtype)} {shape}, not {found.dtype} {found.shape}."
                )
            self._maps[name] = found
        return self

    def write(
        self,
        index: Sequence[int] | np.ndarray | Tensor,
        clean: np.ndarray | Tensor,
        adversarial: np.ndarray | Tensor,
    ) -> None:
        """Store some images.

        Args:
            index: positions of N images in their data set.
            clean: uint8 (N, 3, H, W).
            adversarial: uint8 (K, N, 3, H, W), in the order of the budgets.

        Raises:
            ValueError: if nothing is open, an image is not of this set, or a shape is wrong.
        """
        maps = self._opened()
        images = [int(image) for image in index]
        unknown = [image for image in images if image not in self._row]
        if unknown:
            raise ValueError(f"Image {unknown[0]} is not among the images of {self.folder}.")
        clean, adversarial = _as_array(clean), _as_array(adversarial)
        one = (len(images), *self.shape)
        for what, array, expected in (
            ("clean", clean, one),
            ("adversarial", adversarial, (len(self.budgets_255), *one)),
        ):
            if array.dtype != np.uint8 or array.shape != expected:
                raise ValueError(
                    f"{what} must be uint8 {expected}, not {array.dtype} {array.shape}."
                )
        rows = [self._row[image] for image in images]
        maps[_CLEAN][rows] = clean
        for number, stored in enumerate(adversarial):
            maps[str(number)][rows] = stored
        maps[_ROWS][rows] = 1

    def close(self) -> None:
        """Bring what was written to the files and let go of them."""
        for stored in self._maps.values():
            if isinstance(stored, np.memmap):
                stored.flush()
        self._maps = {}

    def discard(self) -> None:
        """Remove what an unfinished writer has made; a set finished earlier stays."""
        self.close()
        for leftover in self.folder.glob(f"{_TEMPORARY}*"):
            leftover.unlink(missing_ok=True)

    def finish(self, info: Mapping[str, Any]) -> Path:
        """Check the stored bytes, name the files by their content and write the manifest.

        Args:
            info: plain data: `source`, `attack` (settings), `norm`, `seed`, `dataset` (`name`,
                `digest`, `num_classes`, `class_names`), and in the order of the rows `labels` and
                `target_labels` (or None). It may hold `ensemble`, what an ensemble of sources
                averages, and `weights`, digests of the sources' weights by name.

        Returns:
            The path of the manifest.

        Raises:
            ValueError: if `info` lacks something, an image was never written, or one breaks its
                budget. There is then no manifest.
        """
        facts = self._facts(info)
        self._check_stored(facts["norm"])
        self.close()
        clean = self._settle(_CLEAN)
        budgets: list[dict[str, Any]] = [
            {"eps_255": eps_255, **self._settle(str(number))}
            for number, eps_255 in enumerate(self.budgets_255)
        ]
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            **facts,
            "clean": clean,
            "budgets": budgets,
        }
        check_rules(manifest, FACTS + FILES, MANIFEST)
        manifest["digest"] = digest_of(manifest)
        manifest["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        manifest["software"] = _software()
        path = write_manifest(self.folder, manifest)
        self._path(_ROWS).unlink()
        kept = {clean["file"], *(entry["file"] for entry in budgets)}
        for earlier in self.folder.glob(f"{'[0-9a-f]' * 16}.npy"):
            if earlier.name not in kept:
                earlier.unlink(missing_ok=True)
        return path

    def _facts(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the manifest says besides its files, as it will be read back."""
        needed = ("source", "attack", "norm", "seed", "dataset", "labels", "target_labels")
        missing = [key for key in needed if key not in info]
        if missing:
            raise ValueError(f"The set in {self.folder} cannot be described without {missing[0]}.")
        columns = {"index": self.index, "label": info["labels"]}
        columns["target_label"] = info["target_labels"]
        facts: dict[str, Any] = {
            **{key: info[key] for key in needed[:5]},
            "ensemble": info.get("ensemble", "logits"),
            "weights": info.get("weights", {}),
            "images": {name: _as_list(values) for name, values in columns.items()},
            "shape": list(self.shape),
        }
        try:
            facts = json.loads(json.dumps(facts, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ValueError(f"The description of a set must be plain data: {error}.") from error
        check_rules(facts, FACTS, f"The description of {self.folder}")
        for name in ("label", "target_label"):
            if facts["images"][name] is not None:
                numbers = np.array(facts["images"][name], dtype=np.int64)
                check_classes(f"{name}s", numbers, facts["dataset"]["num_classes"])
        return facts

    def _check_stored(self, norm: str) -> None:
        maps = self._opened()
        unwritten = np.flatnonzero(maps[_ROWS] == 0)
        if len(unwritten):
            raise ValueError(
                f"{len(unwritten)} of {len(self.index)} images were never written to "
                f"{self.folder}, the first of them image {self.index[unwritten[0]]}."
            )
        for rows in blocks(maps[_CLEAN]):
            clean = torch.from_numpy(np.array(maps[_CLEAN][rows]))
            for number, eps_255 in enumerate(self.budgets_255):
                stored = torch.from_numpy(np.array(maps[str(number)][rows]))
                check_budget(stored, clean, eps_255, norm, self.index[rows])

    def _settle(self, name: str) -> dict[str, str]:
        """Name a finished file by its content."""
        sha256 = sha256_of(self._path(name))
        self._path(name).replace(self.folder / content_name(sha256))
        return {"file": content_name(sha256), "sha256": sha256}

    def _layout(self) -> dict[str, tuple[type[np.uint8], tuple[int, ...]]]:
        images = (len(self.index), *self.shape)
        names = (_CLEAN, *map(str, range(len(self.budgets_255))))
        return {**dict.fromkeys(names, (np.uint8, images)), _ROWS: (np.uint8, images[:1])}

    def _path(self, name: str) -> Path:
        return self.folder / f"{_TEMPORARY}{name}.npy"

    def _opened(self) -> dict[str, np.ndarray]:
        if not self._maps:
            raise ValueError(f"The writer of {self.folder} is closed: call create() or open().")
        return self._maps


def _in_rows(positions: Mapping[int, int] | Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the image indices in the order of the rows, int64 (N,)."""
    if not isinstance(positions, Mapping):
        index = np.array(positions, dtype=np.int64)
    elif sorted(positions.values()) != list(range(len(positions))):
        raise ValueError(f"positions must lead to the rows 0..{len(positions) - 1}, each once.")
    else:
        index = np.array(sorted(positions, key=positions.__getitem__), dtype=np.int64)
    check_index(index)
    return index


def _as_array(images: np.ndarray | Tensor) -> np.ndarray:
    return images.cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)


def _as_list(values: Any) -> Any:
    return values.tolist() if isinstance(values, np.ndarray | Tensor) else values


def _reserve(path: Path) -> None:
    """Claim a file's space now: a full disk would otherwise kill the process at a later write."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _software() -> dict[str, str]:
    found = {}
    for name in ("transferability", "torch", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that was never installed
            continue
    return found
