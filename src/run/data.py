"""Images of a job, and images that its attack may mix in or is fitted on."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from src.attacks import Fitted
from src.config.sections import DatasetSettings
from src.config.settings import Settings
from src.data import Batch, ImageDataset, load_dataset
from src.images.saved import saved_dataset
from src.run.batches import Batches
from src.run.stages import Data, Planned
from src.run.trainer import make_trainer

_POOL = 32  # images that attacks may mix in


def open_data(planned: Planned) -> Data:
    """Open a job's images before any model is trained; refuse bad files and too small sets."""
    settings, saved = planned.settings, planned.saved
    runner = make_trainer(settings.trainer)
    if saved is None:
        images = open_dataset(settings, "test")
    else:
        wanted = {"num_classes", "class_names", "n_images", "images", "seed"}
        images = saved_dataset(saved, **settings.dataset.model_dump(include=wanted))
    images.digest()  # reads all files, so a bad one is refused here
    seed = settings.dataset.seed
    pair_seed = seed if settings.controls else None
    Batches(images, int(settings.trainer.batch_size), runner.world_size, shuffle_seed=pair_seed)
    diagnosed = images.subset(settings.diagnostics.n_images, seed)
    pool = None
    if planned.attack is not None:
        pool = mixing_pool(open_dataset(settings, "test", whole=True), seed)
    fitted_on = None
    if planned.fitted is not None:
        training = _open_fit_images(settings, planned.fitted, images)
        fitted_on = choose_fit_images(settings, planned.fitted, images, training)
    return Data(images, diagnosed, pool, runner.strategy.root_device, fitted_on)


def _open_fit_images(settings: Settings, part: Fitted, images: ImageDataset) -> ImageDataset:
    """Return the training images that an attack is fitted on."""
    if part.fit_images is None:
        try:
            return open_dataset(settings, "train")
        except ValueError as error:
            raise ValueError(
                f"attack={settings.attack.name} is fitted on training images, but those of "
                f"dataset={settings.dataset.name} cannot be opened. Set attack.fit_images=FOLDER."
            ) from error
    path = Path(part.fit_images)
    source = {"_target_": "src.data.image_folder.image_folder", "root": str(path)}
    if path.suffix == ".csv":
        places = {"root": str(path.parent), "csv": path.name}
        source = {"_target_": "src.data.image_csv.image_csv", **places}
    side, classes = images.image_size, images.num_classes
    try:
        return load_dataset("test", source, image_size=side, num_classes=classes)
    except ValueError as error:
        raise ValueError(f"attack.fit_images={part.fit_images}: {error}") from error


def choose_fit_images(
    settings: Settings, part: Fitted, images: ImageDataset, training: ImageDataset | None
) -> ImageDataset:
    """Choose the training images that an attack is fitted on.

    Raises:
        ValueError: There are no training images, they differ from the evaluated ones in classes or
            size, or one of them is also evaluated.
    """
    name = settings.attack.name
    if training is None:
        raise ValueError(f"attack {name} is fitted on training images. Pass fit_images.")
    stated = (training.num_classes, training.image_size)
    if stated != (images.num_classes, images.image_size):
        raise ValueError(
            f"attack.fit_images: {stated[0]} classes, {stated[1]} pixels; the images have "
            f"{images.num_classes} classes, {images.image_size} pixels."
        )
    chosen = training.subset(part.fit_n_images, settings.seed)
    if (both := np.isin(images.image_digests, chosen.image_digests)).any():
        raise ValueError(
            f"attack={name} would be fitted on {both.sum():,} of the evaluated images, "
            f"such as image {images.indices[both][0]}. Set attack.fit_images=FOLDER to use others."
        )
    return chosen


def mixing_pool(dataset: ImageDataset, seed: int) -> Batch:
    """Return the images of a split that attacks may mix into its other images."""
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:_POOL]
    return dataset[chosen.tolist()]


def open_dataset(settings: Settings, split: str, *, whole: bool = False) -> ImageDataset:
    """Return the `train` or `test` split of a job's data set, opened once per process.

    With `whole`, return all images of the split, regardless of `n_images`.
    """
    changes = dict.fromkeys(("n_images", "images")) if whole else {}
    section = settings.dataset.model_copy(update=changes).model_dump_json()
    return _open(section, split, settings.cache_dir)


def open_datasets(jobs: Iterable[Settings]) -> None:
    """Open each data set before the first job, so that a failed download is noticed at once."""
    loaded = [job for job in jobs if job.attack.kind != "saved"]
    for job in {job.dataset.model_dump_json(): job for job in loaded}.values():
        open_dataset(job, "test")


def forget_datasets() -> None:
    """Clear the cache of opened data sets, so that they are opened again."""
    _open.cache_clear()


@lru_cache(maxsize=4)
def _open(section: str, split: str, cache_dir: str) -> ImageDataset:
    dataset = DatasetSettings.model_validate_json(section)
    common = dataset.model_dump(include=set(DatasetSettings.model_fields) - {"name"})
    folder = Path(cache_dir) / "images"
    return load_dataset(split, dataset.model_extra or {}, lock_folder=folder, **common)
