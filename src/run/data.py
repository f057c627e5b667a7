"""Images of a job, and images that its attack may mix in or is fitted on."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..config.attack_settings import SavedSettings
from ..config.errors import explain
from ..config.sections import DatasetSettings, TargetLabelRule
from ..config.settings import Settings
from ..data import Batch, ImageDataset, load_dataset
from ..data.classes import place_classes
from ..data.image_files import has_splits
from ..data.load import make_dataset, open_source
from ..images.saved import SavedImages, open_set, saved_dataset
from ..utils.refusals import shortened
from .stages import Planned

_POOL = 32  # images that attacks may mix in
_FOLDER = "src.data.image_files.image_folder"
_NIPS17 = "src.data.nips17.nips17"


class DataSets:
    """The data sets of one command, and its sets of adversarial images, each opened once.

    Changed files are opened by the next command, which has its own data sets. With
    `download=False`, data sets that would have to be downloaded are refused.
    """

    def __init__(self, download: bool = True) -> None:
        self.download = download
        # A data set keeps the digest of its images, so subsets are kept, too.
        self._source = lru_cache(maxsize=4)(_open_source)
        self._open = lru_cache(maxsize=4)(self._open_split)
        self._with_classes = lru_cache(maxsize=2)(ImageDataset.with_classes)
        self._subset = lru_cache(maxsize=2)(ImageDataset.subset)
        self.open_saved = lru_cache(maxsize=2)(_open_saved)

    def open(self, settings: Settings, split: str, *, whole: bool = False) -> ImageDataset:
        """Return the `train` or `test` split of a job's data set.

        With `whole`, return all images of the split, regardless of `n_images`.
        """
        section, n_images = settings.dataset, settings.n_images
        if whole:
            section, n_images = section.model_copy(update={"images": None}), None
        return self._open(section.model_dump_json(), n_images, split, settings.cache.dir)

    def _open_split(
        self, section: str, n_images: int | None, split: str, cache_dir: str
    ) -> ImageDataset:
        dataset = DatasetSettings.model_validate_json(section)
        source = json.dumps(dataset.model_extra or {}, sort_keys=True)
        opened = self._source(source, split, cache_dir, self.download)
        common = dataset.model_dump(include=set(DatasetSettings.model_fields) - {"name"})
        return make_dataset(opened, split, n_images=n_images, **common)

    def open_all(self, jobs: Iterable[Settings]) -> None:
        """Open each data set before the first job, to refuse what fails or lacks named images."""
        loaded = [job for job in jobs if job.attack.kind != "saved"]
        keys = [(job.dataset.model_dump_json(), job.n_images, *job.report.images) for job in loaded]
        for job in dict(zip(keys, loaded, strict=True)).values():
            check_named(job.report.images, self.open(job, "test").indices)

    def open_training(
        self, settings: Settings, images: ImageDataset, place: str | None = None
    ) -> ImageDataset:
        """Open training images for a network or a fit, with their classes numbered as in `images`.

        Args:
            settings: The job's settings.
            images: The evaluated images.
            place: Folder of class folders; None: the data set's training split.

        Raises:
            ValueError: They cannot be opened, or it is unknown which classes theirs are.
        """
        if place is None:
            training = self.open(settings, "train")
        else:
            root = Path(place).expanduser()
            if not root.is_dir():
                raise ValueError("this is not a folder with a folder of images per class")
            root = root / "train" if has_splits(root) else root
            source, size = {"_target_": _FOLDER, "root": str(root)}, images.image_size
            training = load_dataset("test", source, image_size=size, resize=settings.dataset.resize)
        names, classes = training.own_names, images.class_names
        if names == images.own_names or place_classes(names, classes) is not None:
            same = training.class_names == classes
            return training if same else self._with_classes(training, classes)
        numbers = tuple(map(str, range(training.num_classes)))
        if place is None and not images.own_names and classes == numbers:
            return training
        new = [name for name in names if name not in classes]
        raise ValueError(
            f"its classes ({shortened(new)}) are not those of the images ({shortened(classes)}). "
            "Name them alike, or set dataset.class_names"
        )

    def training_images(self, settings: Settings, images: ImageDataset) -> ImageDataset:
        """Return the images that models are trained on, to be evaluated on `images`."""
        train, n_images = self.open_training(settings, images), settings.training.n_images
        if n_images is not None and not train.num_classes <= n_images <= len(train):
            allowed = f"{train.num_classes} (classes) to {len(train):,} (training images)"
            raise ValueError(
                f"training.n_images={n_images}: use {allowed}, or null for all images."
            )
        return self._subset(train, n_images, settings.training.seed)


def check_named(named: Iterable[int], index: np.ndarray) -> None:
    """Raise ValueError if a number in `report.images` is none of the job's images, int64 (n,)."""
    if unknown := sorted({*named} - {*index.tolist()}):
        raise ValueError(
            f"report.images: image {unknown[0]} is not one of the job's {len(index)} images."
        )


def open_images(planned: Planned, sets: DataSets) -> ImageDataset:
    """Open a job's images, or those of its saved set."""
    settings = planned.settings
    if planned.saved is None:
        images = sets.open(settings, "test")
        by_next = settings.attack.target_label == "next_image"
        return images.with_target_labels(next_labels(images.labels)) if by_next else images
    stated = settings.dataset.model_dump(include={"num_classes", "class_names", "images", "seed"})
    return saved_dataset(planned.saved, n_images=settings.n_images, **stated)


def open_fit_images(
    planned: Planned, images: ImageDataset, sets: DataSets, training: ImageDataset | None = None
) -> ImageDataset | None:
    """Return the training images that an attack is fitted on; None for an attack without a fit.

    They have target labels under the rule `data` alone: their own, or the class that is the target
    label of all evaluated images.

    Args:
        planned: The job.
        images: The evaluated images.
        sets: Data sets of the command.
        training: Training images passed from Python; None: those that the job's settings name.

    Raises:
        ValueError: There are no training images, they differ from the evaluated ones in classes or
            size, one of them is also evaluated, or their target labels are unknown.
    """
    settings, attack, name = planned.settings, planned.attack, planned.attack.name
    if not attack.is_fitted:
        return None
    place, count = (attack.keywords.get(key) for key in ("fit_images", "fit_n_images"))
    key = f"attack={name} is fitted on training images (attack.fit_images={place})"
    if training is None:
        try:
            training = sets.open_training(settings, images, place)
        except ValueError as error:
            way = ". Set attack.fit_images=FOLDER" * (place is None)
            raise ValueError(f"{key}: {error}{way}.") from error
    if training.image_size != images.image_size:
        sizes = f"{training.image_size} pixels, but the images have {images.image_size}"
        raise ValueError(f"{key} of {sizes}.")
    chosen = training.subset(count, settings.seed)
    if (both := images.shared_with(chosen)).any():
        raise ValueError(
            f"attack={name} would be fitted on {both.sum():,} of the evaluated images, "
            f"such as image {images.indices[both][0]}. Set attack.fit_images=FOLDER to use others."
        )
    if attack.fit_rule == "next_image":
        return chosen.with_target_labels(next_labels(chosen.labels))
    if attack.fit_rule != "data":
        return chosen.with_target_labels(None)
    aims = np.unique([] if images.target_labels is None else images.target_labels)
    if chosen.target_labels is None and len(aims) != 1:
        raise ValueError(
            f"{key} without target labels, and attack.target_label=data has several for the "
            "images. Set attack.target_label=random."
        )
    labels = chosen.target_labels
    return chosen.with_target_labels(np.full(len(chosen), aims[0]) if labels is None else labels)


def target_labels_of(rule: TargetLabelRule | None, images: ImageDataset) -> dict[int, int]:
    """Return target labels by image index; empty unless the rule is `data` or `next_image`.

    Raises:
        ValueError: There are none, or one is the image's class.
    """
    if rule not in ("data", "next_image"):
        return {}
    if images.target_labels is None:
        raise ValueError(
            f"attack.target_label={rule}, but the data set has no target labels. "
            "Use least_likely, random or next."
        )
    wrong = images.indices[images.target_labels == images.labels]
    if len(wrong):
        raise ValueError(
            f"attack.target_label={rule}, but the target label of image {wrong[0]} is its true "
            "class."
        )
    return dict(zip(images.indices.tolist(), images.target_labels.tolist(), strict=True))


def next_labels(labels: np.ndarray) -> np.ndarray:
    """Return the class of the next image of another class, from the last to the first one on.

    TransferBench takes the next image's class. If all classes are equal, the result is this class.

    >>> next_labels(np.array([0, 0, 1])).tolist()
    [1, 1, 0]
    """
    after = np.concatenate([labels, labels])
    pairs = enumerate(labels)
    return np.array([after[i + np.argmax(after[i : i + len(labels)] != y)] for i, y in pairs])


def mixing_pool(dataset: ImageDataset, seed: int) -> Batch:
    """Return the images of a split that attacks may mix into its other images."""
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:_POOL]
    return dataset[chosen.tolist()]


def _open_source(text: str, split: str, cache_dir: str, download: bool) -> Any:
    """Open a split of the source that JSON describes, all images of it."""
    source = json.loads(text)
    if not download and (source.get("download") or source["_target_"] == _NIPS17):
        source["download"] = False  # the default of the second is true
    return open_source(split, source, Path(cache_dir) / "images")


def _open_saved(settings: SavedSettings) -> SavedImages:
    """Open and measure a set of adversarial images, so that damage shows before any job."""
    try:
        saved = open_set(settings)
        _ = saved.breaches
        return saved
    except (ValueError, OSError) as error:
        raise ValueError(f"attack.path={settings.path}: {explain(error)}") from error
