"""Training batches with random crops and flips."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, Sampler, default_convert

from src.config.sections import TrainingSettings
from src.data import ImageDataset


def augment(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Apply random crops and horizontal flips to images, uint8 (N, 3, H, W).

    Args:
        images: The images.
        padding: Zero pixels added on every side before a random crop to H x W; 0: no crop.
        flip: True: mirror a random half of the images left to right.
        generator: Random generator on the CPU.
    """
    count, _, height, width = images.shape
    rows = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator)
    columns = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator)
    rows = rows + torch.arange(height)
    columns = columns + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns[mirrored] = columns[mirrored].flip(1)
    padded = functional.pad(images, [padding] * 4)
    pick = torch.arange(count, device=images.device)[:, None, None]
    rows, columns = rows.to(images.device), columns.to(images.device)
    return padded[pick, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def make_loaders(
    train: ImageDataset, test: ImageDataset, settings: TrainingSettings, num_workers: int
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Return loaders of uint8 batches: shuffled training images, some test images, all test images.

    The second loader is for the test after each epoch. The order depends only on seed and epoch, so
    that a resumed run gives the same result.
    """
    options: dict[str, Any] = {"num_workers": num_workers, "collate_fn": default_convert}
    order: Sampler = DistributedSampler(train, num_replicas=1, rank=0, seed=settings.seed)
    size = min(settings.batch_size, len(train))
    # Batch norms cannot learn from a single image, and the last batch might have just one.
    shuffled = DataLoader(train, size, sampler=order, drop_last=True, **options)
    sample = test.subset(settings.evaluate_on, settings.seed)
    return shuffled, DataLoader(sample, size, **options), DataLoader(test, size, **options)
