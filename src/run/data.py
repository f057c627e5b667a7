"""A job's images, and those that its attack may mix in."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from src.config.sections import DatasetSettings
from src.config.settings import Settings
from src.data import Batch, ImageDataset, load_dataset
from src.images.saved import saved_dataset
from src.run.batches import Batches
from src.run.stages import Data, Planned
from src.run.trainer import make_trainer

_POOL = 32  # images that attacks may mix in


def open_data(planned: Planned) -> Data:
    """Open a job's images before any model is trained; bad files and too small sets are refused."""
    settings, saved = planned.settings, planned.saved
    runner = make_trainer(settings.trainer)
    if saved is None:
        images = open_dataset(settings, "test")
    else:
        wanted = {"num_classes", "class_names", "n_images", "images", "seed"}
        images = saved_dataset(saved, **settings.dataset.model_dump(include=wanted))
    images.digest()  # reads all files
    seed = settings.dataset.seed
    pair_seed = seed if settings.controls else None
    Batches(images, int(settings.trainer.batch_size), runner.world_size, shuffle_seed=pair_seed)
    diagnosed = images.subset(settings.diagnostics.n_images, seed)
    pool = None
    if planned.attack is not None:
        pool = mixing_pool(open_dataset(settings, "test", whole=True), seed)
    return Data(images, diagnosed, pool, runner.strategy.root_device)


def mixing_pool(whole: ImageDataset, seed: int) -> Batch:
    """Return the images of a whole split that attacks may mix in to any of its images."""
    chosen = np.random.default_rng(seed).permutation(len(whole))[:_POOL]
    return whole[chosen.tolist()]


def open_dataset(settings: Settings, split: str, *, whole: bool = False) -> ImageDataset:
    """Return the `train` or `test` split of a job's data; opened once for all jobs of a process.

    With `whole` all images of the split are taken, whatever `n_images` says.
    """
    changes = dict.fromkeys(("n_images", "images")) if whole else {}
    section = settings.dataset.model_copy(update=changes).model_dump_json()
    return _open(section, split, settings.cache_dir)


def open_datasets(jobs: Iterable[Settings]) -> None:
    """Open each data set once, so that no job waits for a download in vain."""
    loaded = [job for job in jobs if job.attack.kind != "saved"]
    for job in {job.dataset.model_dump_json(): job for job in loaded}.values():
        open_dataset(job, "test")


def forget_datasets() -> None:
    """Let data sets be opened anew."""
    _open.cache_clear()


@lru_cache(maxsize=4)
def _open(section: str, split: str, cache_dir: str) -> ImageDataset:
    dataset = DatasetSettings.model_validate_json(section)
    common = dataset.model_dump(include=set(DatasetSettings.model_fields) - {"name"})
    folder = Path(cache_dir) / "images"
    return load_dataset(split, dataset.model_extra or {}, lock_folder=folder, **common)
