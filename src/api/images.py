"""The images of a call to `transfer`, in the forms in which people have them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..data import to_rgb
from ..data.arrays import grey_levels
from ..utils.refusals import first_line


def read_images(key: str, images: Any, labels: Any = None) -> tuple[Tensor, Any]:
    """Return images as uint8 (N, 3, H, H), and their labels.

    Args:
        key: Name of the argument, for messages.
        images: Tensor or array (N, 3, H, H) or (N, H, H, 3); a sequence of Pillow images, tensors
            or arrays; or a torch `Dataset` or `DataLoader` of images or of (image, label).
        labels: Labels; None: those of the data set.

    Raises:
        ValueError: The images have another form, other values or several sizes, or there are no
            labels, or two sets of them.
    """
    if isinstance(images, Dataset | DataLoader):
        images, own = _read_items(images)
        if own and labels is not None:
            raise ValueError(f"{key} have labels of their own. Leave out labels.")
        labels = (own or None) if labels is None else labels
    if hasattr(images, "__iter__") and not isinstance(images, str | np.ndarray | Tensor):
        images = _stack(key, list(images))
    if labels is None:
        raise ValueError(f"{key} come without labels. Pass labels.")
    return _square(key, to_tensor(key, images)), labels


def to_tensor(key: str, values: Any) -> Tensor:
    """Return values as a tensor; refuse what is neither a tensor nor an array."""
    try:
        # A column of pandas is read-only.
        writable = values if isinstance(values, Tensor) else np.require(values, requirements="W")
        return torch.as_tensor(writable)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{key} is neither a tensor nor an array: {first_line(error)}") from error


def _read_items(data: Dataset[Any] | DataLoader[Any]) -> tuple[list[Any], list[Any]]:
    """Return the images, and the labels if there are any, of a data set or loader."""
    items: Any = data
    if not isinstance(data, DataLoader | IterableDataset):
        items = (data[i] for i in range(len(items)))
    batched = isinstance(data, DataLoader) and data.batch_sampler is not None
    images, labels = list[Any](), list[Any]()
    for item in items:
        image, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
        images += list(image) if batched and not isinstance(image, Mapping) else [image]
        if label is not None:
            labels += list(label) if batched else [label]
    return images, labels


def _stack(key: str, images: list[Any]) -> Any:
    """Return Pillow images, arrays or tensors as one array or tensor."""
    if any(isinstance(image, Mapping | str | tuple) for image in images):
        raise ValueError(f"{key} are not images. Pass columns: data['image'], data['label'].")
    pictures = [to_rgb(image) if isinstance(image, Image.Image) else image for image in images]
    sizes = {np.shape(picture) for picture in pictures}
    if len(sizes) > 1:
        raise ValueError(f"{key} have {len(sizes)} sizes. Resize them to squares of one size.")
    if any(isinstance(picture, Tensor) for picture in pictures):
        return torch.stack([torch.as_tensor(picture) for picture in pictures])
    return pictures


def _square(key: str, images: Tensor) -> Tensor:
    """Return images (N, 3, H, H) or (N, H, H, 3) as uint8 (N, 3, H, H)."""
    if images.ndim == 4 and images.shape[1] != 3 and images.shape[3] == 3:
        images = images.permute(0, 3, 1, 2)
    square = images.ndim == 4 and images.shape[1] == 3 and images.shape[2] == images.shape[3]
    if not square or not len(images):
        raise ValueError(
            f"{key} must be of shape (N, 3, H, H) or (N, H, H, 3), not {tuple(images.shape)}."
        )
    return grey_levels(images)
