"""Images, labels and positions: the records of one split and the torch data set over them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from src.data.subset import balanced_subset

SPLITS = ("train", "test")
MOST_CLASSES = 1_000_000
"""More would be a mistake, and their names alone would fill the memory."""


class Batch(NamedTuple):
    """Images with their labels and positions.

    Attributes:
        images: uint8 (B, 3, H, W), 0..255.
        labels: int64 (B,), 0-based classes.
        index: int64 (B,), position of each image in the full split.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no batch needs


@dataclass(frozen=True, eq=False)
class ImageRecords:
    """What a loader returns: one split of a data set, its images decoded only when asked for.

    Attributes:
        labels: int64 (N,), 0-based classes.
        class_names: one name a class; every label is below their number.
        read: position -> uint8 (H, W, 3) RGB.
        content: position -> the stored bytes of the image, for the digest (no decoding).
        target_labels: int64 (N,), the classes that targeted attacks aim for, if the data has them.
        name: position -> what to call the image in a message, if it has a name.

    Raises:
        ValueError: if there are no images, or labels and classes do not fit together.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    read: Callable[[int], np.ndarray]
    content: Callable[[int], bytes]
    target_labels: np.ndarray | None = None
    name: Callable[[int], str] | None = None

    def __post_init__(self) -> None:
        """Check that the labels fit the classes."""
        check_labels("labels", self.labels, len(self.class_names))
        if self.target_labels is not None:
            check_labels("target_labels", self.target_labels, len(self.class_names))
            if len(self.target_labels) != len(self.labels):
                raise ValueError(
                    f"{len(self.target_labels)} target_labels were given for "
                    f"{len(self.labels)} images"
                )

    def __len__(self) -> int:
        """Return the number of images of the split."""
        return len(self.labels)

    def describe(self, position: int) -> str:
        """Name an image for a message: its file where it has one, and its position."""
        name = "" if self.name is None else f" ({self.name(position)})"
        return f"image {position}{name}"


def check_split(split: str) -> None:
    """Refuse a split name other than `train` and `test`.

    Raises:
        ValueError: if `split` is neither.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is not one of {', '.join(SPLITS)}")


def check_labels(what: str, labels: np.ndarray, num_classes: int) -> None:
    """Check that labels are a non-empty int64 vector of values in 0..num_classes - 1.

    Raises:
        ValueError: if they are not.
    """
    if labels.ndim != 1 or labels.dtype != np.int64:
        raise ValueError(f"{what} must be int64 (N,), not {labels.dtype} {labels.shape}")
    if len(labels) == 0:
        raise ValueError("the data set holds no images")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"{what} hold {wrong}, which is not between 0 and {num_classes - 1}")


def class_numbers(total: int, first: int = 0) -> tuple[str, ...]:
    """Return the names of classes that have none: their numbers.

    Raises:
        ValueError: if there are absurdly many.
    """
    if total > MOST_CLASSES:
        raise ValueError(f"num_classes={total} is more than {MOST_CLASSES} classes")
    return tuple(str(number) for number in range(first, first + total))


def shortened(names: Sequence[str], most: int = 5) -> str:
    """List some names for a message."""
    listed = ", ".join(name[:100] for name in names[:most])
    return f"{listed}, ..." if len(names) > most else listed


def to_unit(images_uint8: Tensor) -> Tensor:
    """Scale 8-bit images, uint8 0..255 of any shape, to float32 in [0, 1].

    Raises:
        ValueError: if the images are not uint8.
    """
    if images_uint8.dtype != torch.uint8:
        raise ValueError(f"images must be torch.uint8, not {images_uint8.dtype}")
    return images_uint8.to(torch.float32) / 255


def keep_batch(batch: Any) -> Any:
    """Return the batch as it is: the `collate_fn` for loaders over `ImageDataset`."""
    return batch


def resize_and_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side to `size` (bilinear, antialiased) and cut out the central square.

    Args:
        image: uint8 (H, W, 3).
        size: side of the result in pixels.

    Returns:
        uint8 (size, size, 3); the image itself where it has that size already.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    shorter = min(height, width)
    new_height, new_width = round(height * size / shorter), round(width * size / shorter)
    left, top = (new_width - size) // 2, (new_height - size) // 2
    resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


class ImageDataset(Dataset[tuple[Tensor, int, int]]):
    """A chosen subset of one split, at one image size, decoded image by image.

    Use it with `DataLoader(dataset, collate_fn=keep_batch)`: whole batches come from
    `__getitems__`, so nothing needs collating.

    Args:
        records: the full split.
        n_images: size of the fixed, class-balanced subset; None takes all.
        seed: of the subset.
        image_size: N brings the shorter side to N and cuts out the central N x N square;
            None leaves the images as stored, which must then all have one size.
        numbers: int64 (N,), what `records` call their images where that is not 0, 1, ..., as for
            a stored part of another data set.

    Attributes:
        indices: int64 (n,), positions in the full split, ascending.
        labels: int64 (n,), 0-based classes of the chosen images.
        target_labels: int64 (n,), classes to aim for, or None.
        class_names: one name a class.

    Raises:
        ValueError: if `n_images`, `seed` or `image_size` is out of range.
    """

    def __init__(
        self,
        records: ImageRecords,
        *,
        n_images: int | None = None,
        seed: int = 0,
        image_size: int | None = None,
        numbers: np.ndarray | None = None,
    ) -> None:
        """Choose the subset; nothing is decoded yet."""
        if image_size is not None:
            if isinstance(image_size, bool) or not isinstance(image_size, int | np.integer):
                raise ValueError(f"image_size={image_size!r} is not a whole number or null")
            if image_size < 1:
                raise ValueError(f"image_size={image_size} is not at least 1 (or null: as stored)")
        self._records = records
        self._size = image_size
        chosen = balanced_subset(records.labels, n_images, seed)
        self.indices = chosen if numbers is None else numbers[chosen]
        self.labels = records.labels[chosen]
        targets = records.target_labels
        self.target_labels = None if targets is None else targets[chosen]
        self.class_names = records.class_names

    @property
    def num_classes(self) -> int:
        """The number of classes, present or not."""
        return len(self.class_names)

    @cached_property
    def image_shape(self) -> tuple[int, int]:
        """Height and width of every image; as stored, those of the first image of the subset."""
        if self._size is not None:
            return self._size, self._size
        height, width = self._records.read(int(self.indices[0])).shape[:2]
        return height, width

    @property
    def image_size(self) -> int:
        """The side of the square images; of images that are not square, the shorter side."""
        return min(self.image_shape)

    def __len__(self) -> int:
        """Return the number of chosen images."""
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        """Read image `i` of the subset.

        Returns:
            The image as uint8 (3, H, W), its label, and its position in the full split.

        Raises:
            ValueError: if it cannot be decoded, or has another size than the first image.
        """
        position = int(self.indices[i])
        image = self._read(position)
        return torch.from_numpy(image), int(self.labels[i]), position

    def __getitems__(self, chosen: Sequence[int]) -> Batch:
        """Read several images of the subset as one `Batch`; raises as `__getitem__` does."""
        positions = self.indices[list(chosen)]
        images = np.stack([self._read(int(position)) for position in positions])
        return Batch(
            torch.from_numpy(images),
            torch.from_numpy(self.labels[list(chosen)]),
            torch.from_numpy(positions),
        )

    def digest(self) -> str:
        """Hash what the data set holds: 16 hexadecimal digits of a SHA-256.

        It covers labels, target labels, positions, stored image bytes and image size, so the
        same images give the same digest from a folder as from a tar, wherever they lie.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        total = hashlib.sha256(f"{self.image_shape} {self.num_classes}".encode())
        for numbers in (self.indices, self.labels, self.target_labels):
            total.update(b"none" if numbers is None else numbers.astype("<i8").tobytes())
        for position in self.indices:
            total.update(hashlib.sha256(self._records.content(int(position))).digest())
        return total.hexdigest()[:16]

    def _read(self, position: int) -> np.ndarray:
        """Read one image of the full split as a writable uint8 (3, H, W) array."""
        image = self._records.read(position)
        if self._size is not None:
            image = resize_and_crop(image, self._size)
        if image.shape[:2] != self.image_shape:
            found, expected = (" x ".join(map(str, s)) for s in (image.shape[:2], self.image_shape))
            raise ValueError(
                f"{self._records.describe(position)} has {found} pixels (height x width) while "
                f"the first one has {expected}: set dataset.image_size to bring all to one size"
            )
        return image.transpose(2, 0, 1).copy()
