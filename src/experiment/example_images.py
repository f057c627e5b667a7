"""Image files of a job: examples over the budgets, and clean images of its galleries."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from src.data import ImageDataset
from src.store.record import EXAMPLES, IMAGES
from src.utils.files import atomic_write


def store_examples(
    dataset: ImageDataset,
    budgets: Sequence[float],
    examples: Mapping[int, np.ndarray],
    folder: Path,
) -> None:
    """Store the example images with their adversarial versions.

    The file holds `index`, `label`, `eps_255`, `clean` uint8 (E, 3, H, W) and `adversarial`
    float32 (K, E, 3, H, W) in [0, 1], of K budgets in units of 1/255. `examples` are
    adversarial versions (K, 3, H, W) in [0, 1] by image index.
    """
    index = np.array(sorted(examples))
    batch = dataset.__getitems__(np.searchsorted(dataset.indices, index).tolist())
    with atomic_write(folder / EXAMPLES) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            index=index,
            label=batch.labels.numpy(),
            eps_255=np.array(budgets),
            clean=batch.images.numpy(),
            adversarial=np.stack([examples[number] for number in index], axis=1),
        )


def store_images(dataset: ImageDataset, indices: Collection[int], folder: Path) -> None:
    """Store clean images that a report will show: `index`, and `clean` uint8 (N, 3, H, W)."""
    if not indices:
        return
    index = np.array(sorted(indices))
    batch = dataset.__getitems__(np.searchsorted(dataset.indices, index).tolist())
    with atomic_write(folder / IMAGES) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, index=index, clean=batch.images.numpy())
