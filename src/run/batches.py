"""Batches of images that do not depend on the number of processes."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from ..data import Batch, ImageDataset

_PART = 8  # images that a thread decodes in turn


class Batches:
    """Batches of one process.

    All batches are laid out first and then dealt to the processes in turn, so an image shares its
    batch with the same other images for any number of processes. Processes beyond the number of
    batches get an empty one.

    Args:
        dataset: The images.
        batch_size: Maximum number of images in a batch.
        processes: Number of processes that share the batches.
        rank: Number of this process.
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
        groups: np.ndarray | None = None,
        whole_batches: bool = False,
    ) -> None:
        self.dataset = dataset
        batches = layout(dataset.dealt.tolist(), batch_size)
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

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; while one is used, threads decode the next one."""
        threads, ahead = ThreadPoolExecutor(), deque[list[Future[Batch]]]()
        try:
            for positions in self.positions:
                parts = (positions[n : n + _PART] for n in range(0, len(positions), _PART))
                ahead.append([threads.submit(self.dataset.__getitem__, part) for part in parts])
                if len(ahead) > 1:
                    yield _joined(ahead.popleft())
            yield from map(_joined, ahead)
        finally:
            threads.shutdown(cancel_futures=True)


def _joined(parts: Sequence[Future[Batch]]) -> Batch:
    """Return a batch from its parts, in order."""
    if not parts:
        none = torch.zeros(0, dtype=torch.int64)
        return Batch(torch.zeros(0, 3, 1, 1, dtype=torch.uint8), none, none)
    columns = zip(*(part.result() for part in parts), strict=True)
    return Batch(*(torch.cat(column) for column in columns))


def layout(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return the images of each batch: an even number of neighbours in a dealt order.

    Neighbours swap perturbations in a control. The last of an odd number gets the first one's, so
    it is in the first batch. A batch has at least two images.
    """
    odd, size = len(order) % 2, 2 * max(1, batch_size // 2)
    rotated = [*order[len(order) - odd :], *order[: len(order) - odd]]
    first = max(3, (batch_size + 1) // 2 * 2 - 1) if odd else size
    starts = range(first, len(order), size)
    return [rotated[:first], *(rotated[start : start + size] for start in starts)]
