"""Lightning trainer for a pass over the images, and settings that depend on the device."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

from src.config.sections import TrainerSettings
from src.config.settings import Settings
from src.utils.devices import is_cuda
from src.utils.refusals import first_line

_CPU_BATCH, _GPU_BATCH = 50, 1000


def make_trainer(settings: TrainerSettings, *callbacks: pl.Callback) -> pl.Trainer:
    """Return a Lightning trainer that allows gradients while it predicts.

    Raises:
        ValueError: Lightning refuses the settings.
    """
    try:
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=settings.precision,
            # Ignore a launcher's environment variables unless processes share the job.
            plugins=None if settings.distributed else LightningEnvironment(),
            use_distributed_sampler=False,  # `Batches` distributes the images
            inference_mode=False,  # attacks need gradients, which inference mode forbids
            callbacks=[*callbacks],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError, ImportError) as error:
        raise ValueError(f"trainer: {first_line(error)}") from error


def for_device(settings: Settings) -> Settings:
    """Return settings with `trainer.batch_size=auto` replaced by a size for the device.

    Batches have 50 images on a CPU, where larger ones are not faster, and 1,000 on a GPU.
    """
    if settings.trainer.batch_size != "auto":
        return settings
    device = make_trainer(settings.trainer).strategy.root_device
    size = _GPU_BATCH if is_cuda(device) else _CPU_BATCH
    trainer = settings.trainer.model_copy(update={"batch_size": size})
    return settings.model_copy(update={"trainer": trainer})


def meet(trainer: TrainerSettings) -> None:
    """Start the communication between processes that share a job."""
    if trainer.distributed and not torch.distributed.is_initialized():
        loader = DataLoader(TensorDataset(torch.zeros(1)))
        make_trainer(trainer).predict(_Nothing(), loader, return_predictions=False)


class _Nothing(pl.LightningModule):
    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return batch
