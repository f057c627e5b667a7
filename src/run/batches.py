"""Batches of images that do not depend on the number of processes."""

import numpy as np
import torch
from torch.utils.data import Dataset

from src.data import Batch, ImageDataset


class Batches(Dataset[Batch]):
    """Batches of one process.

    All batches are laid out first and then dealt to the processes in turn, so an image shares its
    batch with the same other images for any number of processes. Processes beyond the number of
    batches get an empty one.

    Args:
        dataset: The images.
        batch_size: Maximum number of images in a batch.
        processes: Number of processes that share the batches.
        rank: Number of this process.
        shuffle_seed: Seed for random pairs of images, see `layout`; None: in order.
        groups: Group of each image, int64 (n,). Batches are split by group, and images with a
            group below 0 are left out.
        whole_batches: True: keep a batch unsplit if any of its images is in a group of 0 or above.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        processes: int = 1,
        rank: int = 0,
        shuffle_seed: int | None = None,
        groups: np.ndarray | None = None,
        whole_batches: bool = False,
    ) -> None:
        self.dataset = dataset
        batches = layout(len(dataset), batch_size, shuffle_seed)
        groups = np.zeros(len(dataset), np.int64) if groups is None else groups
        self.positions: list[list[int]] = []
        for batch in batches[rank::processes]:
            parts: dict[int, list[int]] = {}
            for at in batch:
                parts.setdefault(
                    int(groups[batch].max() if whole_batches else groups[at]), []
                ).append(at)
            parts.pop(-1, None)
            self.positions += parts.values() or [[]]
        self.positions = self.positions or [[]]  # Lightning refuses a process without batches

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, number: int) -> Batch:
        if not self.positions[number]:
            none = torch.zeros(0, dtype=torch.int64)
            return Batch(torch.zeros(0, 3, 1, 1, dtype=torch.uint8), none, none)
        return self.dataset[self.positions[number]]


def layout(count: int, batch_size: int, shuffle_seed: int | None) -> list[list[int]]:
    """Return the positions of the images in each batch, in order or, with a seed, shuffled.

    Shuffled batches consist of pairs; if the number of images is odd, the last one has a triple.
    """
    order, size = list(range(count)), batch_size
    if shuffle_seed is not None:
        if count < 2:
            raise ValueError(
                "controls=true needs at least 2 images: it adds the perturbation of another image "
                "to each."
            )
        order = np.random.default_rng(shuffle_seed).permutation(count).tolist()
        size = 2 * max(1, batch_size // (2 + count % 2))
    batches = [order[first : first + size] for first in range(0, count, size)]
    if shuffle_seed is not None and len(batches[-1]) == 1:
        single = batches.pop()
        batches[-1] += single
    return batches
