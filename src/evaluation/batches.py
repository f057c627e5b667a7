"""How images fall into batches, the same for any number of processes."""

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from src.data import Batch, ImageDataset


class Batches(Dataset[Batch]):
    """The batches of one process.

    All batches are laid out first and dealt to the processes in turn, so that every image is
    in the same company, and gets the same digits, on any number of processes.

    Args:
        dataset: The images.
        groups: Positions in the data set that must share a batch, each position once.
        batch_size: Images in a batch; a group is never cut.
        processes: How many processes share the batches.
        rank: Which of the processes this is.

    Attributes:
        idle: Whether there are too few batches for this process to get one. It then works on the
            first one along with its owner, since processes must meet in every pass, and what it
            finds must be dropped.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        groups: Sequence[Sequence[int]],
        batch_size: int,
        processes: int = 1,
        rank: int = 0,
    ) -> None:
        self.dataset = dataset
        widest = max(map(len, groups))
        count = max(1, batch_size // widest)
        cut = [groups[first : first + count] for first in range(0, len(groups), count)]
        batches = [[position for group in part for position in group] for part in cut]
        self.idle = rank >= len(batches)
        self.own = batches[:1] if self.idle else batches[rank::processes]

    def __len__(self) -> int:
        """Return the number of batches of this process."""
        return len(self.own)

    def __getitem__(self, number: int) -> Batch:
        """Read a batch."""
        return self.dataset.__getitems__(self.own[number])


def singles(count: int) -> list[list[int]]:
    """Return groups of one position each, in order."""
    return [[position] for position in range(count)]


def pairs(count: int, seed: int) -> list[list[int]]:
    """Return `count` positions, at least two, in random groups of two; the last may have three."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    groups = [order[first : first + 2] for first in range(0, count, 2)]
    if len(groups[-1]) == 1:
        last = groups.pop()
        groups[-1] += last
    return groups


def partners(
    groups: Sequence[Sequence[int]], indices: Sequence[int] | np.ndarray
) -> dict[int, int]:
    """Return for each image of the groups the next one of its group, both by index."""
    return {
        int(indices[position]): int(indices[group[(place + 1) % len(group)]])
        for group in groups
        for place, position in enumerate(group)
    }
