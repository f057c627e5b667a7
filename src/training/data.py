"""Batches for training: shuffled, cropped and flipped, reproducible from any epoch on."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from src.config.settings import TrainingSettings
from src.data import Batch, ImageDataset, keep_batch

IN_MEMORY_BYTES = 2**30
"""Decoded training images up to this size are held in memory, larger sets read batch by batch."""


def augment(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Crop every image at random from its zero-padded self and mirror it at random.

    Args:
        images: uint8, shape (N, 3, H, W).
        padding: Pixels added on every side before the crop of H x W; 0: no crop.
        flip: Whether half of the images, at random, are mirrored left to right.
        generator: Where the randomness comes from, on the CPU.

    Returns:
        A new tensor of the same shape and type.
    """
    count, _, height, width = images.shape
    rows = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator)
    columns = torch.randint(0, 2 * padding + 1, (count, 1), generator=generator)
    rows = rows + torch.arange(height)
    columns = columns + torch.arange(width)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        columns[mirrored] = columns[mirrored].flip(1)
    padded = functional.pad(images, (padding, padding, padding, padding))
    pick = torch.arange(count, device=images.device)[:, None, None]
    rows, columns = rows.to(images.device), columns.to(images.device)
    return padded[pick, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class TrainingData(pl.LightningDataModule):
    """The training images, augmented, and the test images, as they are.

    Args:
        train: Images to learn from.
        test: Images whose accuracy is reported; nothing is chosen by it.
        settings: `batch_size`, `crop_padding`, `flip` and the `seed` of shuffling and augmentation.
        num_workers: Processes that decode images.
    """

    def __init__(
        self,
        train: ImageDataset,
        test: ImageDataset,
        settings: TrainingSettings,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.train, self.test = train, test
        self.settings = settings
        self.batch_size = min(settings.batch_size, len(train))
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        """Decode the training images once if they fit into memory."""
        size = 3 * self.train.image_size**2 * len(self.train)
        self.source: Dataset = self.train if size > IN_MEMORY_BYTES else _Decoded(self.train)

    def train_dataloader(self) -> DataLoader:
        """Return uint8 batches, shuffled by seed and epoch alone, so that a resumed run agrees."""
        sampler: Sampler = DistributedSampler(
            self.source, num_replicas=1, rank=0, shuffle=True, seed=self.settings.seed
        )
        # A batch norm cannot learn from one image, which the last batch might have.
        return self._loader(self.source, sampler=sampler, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        """Return the test images in uint8 batches."""
        return self._loader(self.test)

    def _loader(self, source: Dataset, **options: Any) -> DataLoader:
        return DataLoader(
            source,
            self.batch_size,
            num_workers=self.num_workers,
            collate_fn=keep_batch,
            **options,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment training batches on the device; seeded by the step, so a resumed run agrees."""
        if self.trainer is None or not self.trainer.training:
            return batch
        step = self.trainer.global_step
        own = self.settings
        generator = torch.Generator().manual_seed(own.seed * 1_000_003 + step)
        images = augment(batch.images, own.crop_padding, own.flip, generator)
        return batch._replace(images=images)


class _Decoded(Dataset):
    """A data set's images, decoded once."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.all = dataset.__getitems__(range(len(dataset)))

    def __len__(self) -> int:
        return len(self.all.labels)

    def __getitems__(self, positions: list[int]) -> Batch:
        return Batch(*(part[positions] for part in self.all))
