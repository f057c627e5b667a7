"""Images with labels and positions: a subset of one split, in batches."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import PIL
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, features
from torch import Tensor
from torch.utils.data import Dataset

from ..utils.files import reading, remembered
from ..utils.terminal import with_progress
from .classes import check_labels, choose_names, number_by, printable_names
from .files import CODE, content_of, to_rgb
from .subset import balanced_subset, check_names, listed_subset

_READ_TWICE = 100  # images of a data set


class SizeError(ValueError):
    """Error: images are not square, or differ in size, and no `image_size` is set."""


class Batch(NamedTuple):
    """Images with their labels and positions.

    Attributes:
        images: uint8 (B, 3, H, W), 0..255, contiguous.
        labels: int64 (B,), 0-based classes.
        index: int64 (B,), positions of the images in the full split.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides the unused method tuple.index


@dataclass
class LabelledImages:
    """One split, with the attributes of torchvision's data sets.

    Attributes:
        images: inputs of `to_rgb`, such as uint8 arrays (H, W, 3), or paths.
        targets: int64 (N,), 0-based classes.
        classes: one name per class; None without names.
        target_labels: int64 (N,), target labels for targeted attacks, or None.
        root: folder of the image files, for their names in lists.
    """

    images: Sequence[Any] | np.ndarray
    targets: np.ndarray
    classes: Sequence[str] | None = None
    target_labels: np.ndarray | None = None
    root: Path | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        return self.images[position], int(self.targets[position])


class ImageDataset(Dataset[Batch]):
    """Subset of one split: square images of one size, each decoded when it is read.

    `dataset[:100]` is a batch; a `DataLoader` needs `collate_fn=default_convert`.

    Args:
        data: the full split: a map-style data set, such as torchvision's, with items (image,
            class), where `to_rgb` accepts the image. Attribute `targets` has all classes. Optional
            attributes are `classes`, the names of the classes (default: their numbers), and
            `target_labels` for targeted attacks.
        n_images: size of a fixed, class-balanced subset, chosen with `seed`; None: all images.
        images: CSV file that lists the images to take, in the form of `listed`; None: no list.
        seed: seed of the subset.
        image_size: N: resize the shorter side to N (bilinear, antialiased) and crop the central
            N x N square; None: leave the images as stored.
        resize: resize the shorter side to this number of pixels before the crop to `image_size`.
        num_classes: number of classes, if there are no names.
        class_names: names that replace the data's own, or `imagenet` for the 1000 of ImageNet-1k.
            If all of the data's own names are among them, images keep their class by name. For
            `imagenet` these may also be WordNet ids or numbers, see `place_classes`.
        numbers: int64 (N,), positions of the images of `data`, for example in another data set of
            which they are a saved part; None: 0, 1, ...

    Attributes:
        indices: int64 (n,), positions in the full split, ascending.
        labels: int64 (n,), 0-based classes of the chosen images.
        dealt: int64 (n,), places of the images in this subset, in the order of `balanced_subset`.
        target_labels: int64 (n,), target labels for targeted attacks, or None.
    """

    def __init__(
        self,
        data: Any,
        *,
        n_images: int | None = None,
        images: str | None = None,
        seed: int = 0,
        image_size: int | None = None,
        resize: int | None = None,
        num_classes: int | None = None,
        class_names: str | Sequence[str] | None = None,
        numbers: np.ndarray | None = None,
    ) -> None:
        target_labels = getattr(data, "target_labels", None)
        self.class_names = choose_names(data, num_classes, class_names)
        labels = number_by(
            self.class_names, data, check_labels("labels", data.targets, self.num_classes)
        )
        if images is not None and n_images is not None:
            raise ValueError(f"dataset.images={images} selects the images. Set n_images=null")
        if resize is not None and not (image_size and image_size <= resize):
            raise ValueError(f"dataset.resize={resize} needs dataset.image_size, at most {resize}")
        positions = np.arange(len(labels)) if numbers is None else numbers
        listed = np.arange(len(labels))
        if images is not None:
            listed = listed_subset(images, positions, labels)
        dealt = listed[balanced_subset(labels[listed], n_images, seed)]
        chosen = np.sort(dealt)
        self.dealt = np.searchsorted(chosen, dealt)
        self.labels, self.target_labels = labels[chosen], None
        if target_labels is not None:
            wanted = check_labels("target_labels", target_labels, self.num_classes)
            self.target_labels = number_by(self.class_names, data, wanted)[chosen]
        self.indices = positions[chosen]
        self._data, self._chosen, self._size = data, chosen, image_size
        self._shorter = resize or image_size
        self._digest = ""
        if images is not None and getattr(data, "keeps_names", True):
            check_names(images, self.listed())

    @property
    def num_classes(self) -> int:
        """Number of classes, including classes without images."""
        return len(self.class_names)

    @cached_property
    def image_size(self) -> int:
        """Side of the images in pixels; without `image_size`, the height of the first one."""
        return self._size or len(self._read(0))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: int | slice | Sequence[int] | NDArray[np.int64]) -> Batch:
        """Read one or more images by position in the subset; one image has no batch dimension."""
        rows = np.arange(len(self))[chosen]
        if rows.ndim == 0:
            return Batch(*(column[0] for column in self[[int(rows)]]))
        if rows.ndim > 1 or not len(rows):
            raise IndexError(f"{chosen!r} selects none of the {len(self)} images.")
        return Batch(
            torch.from_numpy(np.stack([self._prepared(i, self._read(i)) for i in rows])),
            torch.from_numpy(self.labels[rows]),
            torch.from_numpy(self.indices[rows]),
        )

    __getitems__ = __getitem__  # loaders read whole batches

    def subset(self, n_images: int | None, seed: int = 0) -> "ImageDataset":
        """Return a subset of at most `n_images` images, by `balanced_subset`; None: all images."""
        if n_images is None or n_images >= len(self):
            return self
        chosen, part = np.sort(balanced_subset(self.labels, n_images, seed)), self._copied()
        part.labels, part.indices = self.labels[chosen], self.indices[chosen]
        part._chosen = self._chosen[chosen]
        part.dealt = np.searchsorted(chosen, self.dealt[np.isin(self.dealt, chosen)])
        if self.target_labels is not None:
            part.target_labels = self.target_labels[chosen]
        return part

    @property
    def own_names(self) -> tuple[str, ...]:
        """Names of the classes in the data itself; empty without names."""
        return printable_names(getattr(self._data, "classes", None) or ())

    def with_classes(self, names: Sequence[str]) -> "ImageDataset":
        """Return the whole split with other `class_names`."""
        size, resize = self._size, None if self._shorter == self._size else self._shorter
        return ImageDataset(self._data, image_size=size, resize=resize, class_names=names)

    def with_target_labels(self, labels: np.ndarray | None) -> "ImageDataset":
        """Return the same images with other target labels, int64 (n,), or without any."""
        part = self._copied()
        part.target_labels = labels
        return part

    def _copied(self) -> "ImageDataset":
        """Return a copy without digests, which change with the images and labels."""
        part = copy(self)
        part._digest = ""
        part.__dict__.pop("_digests", None)
        return part

    def listed(self) -> pd.DataFrame:
        """Return a row per image: `index`, `label`, and `file`, a file's path from its root."""
        names = [self._read(i, by=self._file) for i in range(len(self))]
        # A name may have bytes that no text file can have.
        columns = {"index": self.indices, "label": self.labels, "file": printable_names(names)}
        return pd.DataFrame(columns)

    def _file(self, image: Any) -> str:
        root = getattr(self._data, "root", None)
        inside = root and isinstance(image, Path) and image.is_relative_to(root)
        return str(image.relative_to(root).as_posix() if inside else getattr(image, "name", ""))

    def digest(self) -> str:
        """Return a digest of the data set's content, 16 hexadecimal digits of a SHA-256.

        It covers labels, target labels, positions, number of classes, size, and the images: the
        bytes of files, regardless of their path, and the pixels of other images; see `content_of`.

        Raises:
            ValueError: A file is not an image, or an image has a different size from the others,
                or one of the first images differs between two reads.
        """
        if not self._digest:
            total = hashlib.sha256(f"{self.image_size} {self.num_classes}".encode())
            if self._shorter != self._size:
                total.update(f" {self._shorter}".encode())
            for numbers in (self.indices, self.labels, self.target_labels):
                total.update(b"none" if numbers is None else numbers.astype("<i8").tobytes())
            for i in with_progress(range(len(self)), "reading images", len(self)):
                content, height, width = self._read(i, by=content_of)
                if i < _READ_TWICE and self._read(i, by=content_of)[0] != content:
                    raise ValueError(
                        f"image {self._chosen[i]} differs between two reads. Remove random "
                        "transforms from the data set"
                    )
                if self._size is None:
                    self._check_size(i, height, width, self.image_size)
                total.update(f"{content} {height} {width}\n".encode())
            self._digest = total.hexdigest()[:16]
        return self._digest

    @property
    def image_digests(self) -> np.ndarray:
        """Digests that identify rows: 16 hexadecimal digits per image, shape (n,).

        A digest covers an image's 8-bit pixels, after resizing, its label and its target label.
        """
        return self._digests[:, 0]

    @property
    def pixel_digests(self) -> np.ndarray:
        """Digests that identify photographs, whatever their labels, shape (n, 2).

        The first covers an image's pixels as stored, the second those after resizing.
        """
        return self._digests[:, 1:]

    def shared_with(self, other: "ImageDataset") -> NDArray[np.bool_]:
        """Return a mask of the images, (n,), that another data set has, whatever their labels."""
        shared: NDArray[np.bool_] = np.isin(self.pixel_digests, other.pixel_digests)
        return np.any(shared, axis=1)

    @cached_property
    def _digests(self) -> np.ndarray:
        aims = [None] * len(self) if self.target_labels is None else self.target_labels.tolist()

        def digest(i: int) -> list[str]:
            image = self._read(i)
            stored, pixels = image.transpose(2, 0, 1).tobytes(), self._prepared(i, image).tobytes()
            row = f"{self.labels[i]} {aims[i]} ".encode() + pixels
            return [hashlib.sha256(part).hexdigest()[:16] for part in (row, stored, pixels)]

        def compute() -> list[list[str]]:
            with ThreadPoolExecutor() as threads:  # decoding releases the GIL
                digests = threads.map(digest, range(len(self)))
                return [*with_progress(digests, "decoding images", len(self))]

        # Files may change without another time (by mmap), so the bytes of all count.
        others = self._size, self._shorter, aims, PIL.__version__, features.version("jpg")
        return remembered(f"digests of {self.digest()} {others}", CODE, compute)

    @property
    def partners(self) -> np.ndarray:
        """Places of the images' neighbours in `dealt`, int64 (n,).

        Two neighbours are partners. The last of an odd number has the first one as its partner.
        """
        neighbours = (np.arange(len(self)) ^ 1) % len(self)
        partners = np.empty_like(neighbours)
        partners[self.dealt] = self.dealt[neighbours]
        return partners

    def row_digests(self, places: np.ndarray, paired: bool = False) -> np.ndarray:
        """Return the `image_digests` at some places.

        With `paired`, the digest of its partner and the partner's position, which seeds it, follow.
        """
        digests, partners = self.image_digests[places], self.partners[places]
        if not paired:
            return digests
        others = np.char.add(self.image_digests[partners], self.indices[partners].astype(str))
        return np.char.add(digests, others)

    def holds(
        self, index: ArrayLike, digests: ArrayLike, paired: bool = False
    ) -> NDArray[np.bool_]:
        """Return a mask of images in this data set, by their positions and `row_digests`."""
        numbers, wanted = np.asarray(index), np.asarray(digests)
        places = np.searchsorted(self.indices, numbers).clip(max=len(self) - 1)
        same: NDArray[np.bool_] = self.row_digests(places, paired) == wanted
        return same & (self.indices[places] == numbers)

    def _read(self, i: int, by: Callable[[Any], Any] = to_rgb) -> Any:
        """Return image `i` of the subset as stored, uint8 (H, W, 3), or converted by `by`."""
        name = f"image {self._chosen[i]}"
        with reading(name, "an image"):
            image, _ = self._data[int(self._chosen[i])]
        if isinstance(image, str | Path):
            name = f"{name} ({image})"
        with reading(name, "an image"):
            return by(image)

    def _prepared(self, i: int, image: np.ndarray) -> np.ndarray:
        """Return image `i`, as read, in the size of the subset: uint8 (3, N, N), contiguous."""
        if self._size is not None:
            image = _central_square(image, self._shorter or self._size, self._size)
        height, width = image.shape[:2]
        self._check_size(i, height, width, self.image_size)
        return np.ascontiguousarray(image.transpose(2, 0, 1))  # networks may flatten by `view`

    def _check_size(self, i: int, height: int, width: int, side: int) -> None:
        if not height == width == side:
            raise SizeError(
                f"image {self._chosen[i]} has {height} x {width} pixels (height x width), not "
                f"{side} x {side}. To resize all images, set dataset.image_size"
            )


def _central_square(image: np.ndarray, shorter: int, size: int) -> np.ndarray:
    """Resize the shorter side of an image, uint8 (H, W, 3), and cut out the central square."""
    picture = Image.fromarray(image)
    sides = [shorter * side // min(picture.size) for side in picture.size]
    left, top = (round((side - size) / 2) for side in sides)
    resized = picture.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def to_unit(images_uint8: Tensor) -> Tensor:
    """Convert 8-bit images, uint8 0..255 of any shape, to float32 in [0, 1]."""
    if images_uint8.dtype != torch.uint8:
        raise ValueError(f"images must be torch.uint8, not {images_uint8.dtype}")
    return images_uint8.to(torch.float32) / 255
