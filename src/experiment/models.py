"""What a job needs before it can attack: its images, and its models with their weights."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from src.config.read import Job, content_key
from src.config.settings import TrainerSettings, TrainingSettings
from src.data import ImageDataset, load_dataset, to_unit
from src.experiment.identity import code_of
from src.models import (
    Ensemble,
    PixelClassifier,
    build_classifier,
    fold_batch_norms,
    load_weights,
    weights_digest,
)
from src.tracking import Tracker
from src.training import trained_weights

COMMON_KEYS = ("n_images", "seed", "image_size", "num_classes", "class_names")
"""The keys of every data set; the others are its callable's own."""


@dataclass(frozen=True)
class Model:
    """A classifier that is ready to be shown images.

    Attributes:
        name: In the catalogue; of an ensemble `a+b`.
        classifier: Frozen, in evaluation mode.
        settings: Its resolved file; empty for an ensemble.
        digest: Of its weights.
        key: Of everything that decides its logits but the trainer.
    """

    name: str
    classifier: nn.Module
    settings: Mapping[str, Any]
    digest: str
    key: str


def open_dataset(job: Job, split: str, *, whole: bool = False) -> ImageDataset:
    """Return a split of the job's data set; opened once for all jobs of a process.

    Args:
        job: What is run.
        split: `train` or `test`.
        whole: All images of the split, whatever `n_images` says.
    """
    section = job.section("dataset")
    if whole:
        section["n_images"] = None
    return _opened(json.dumps(section), split)


def open_datasets(jobs: Iterable[Job]) -> None:
    """Open each data set once, so that no job waits for a download in vain.

    Raises:
        ValueError: One cannot be had.
    """
    own = [job for job in jobs if job.stored is None]
    for job in {json.dumps(job.section("dataset")): job for job in own}.values():
        open_dataset(job, "test")


def check_images(dataset: ImageDataset, together: int = 1) -> None:
    """Decode every chosen image once, so that a bad one shows before any model is trained.

    Args:
        dataset: The images; nothing of them is kept.
        together: How many images at least must share a batch.

    Raises:
        ValueError: An image cannot be read, the images are not square, or there are too few.
    """
    height, width = dataset.image_shape
    if height != width:
        raise ValueError(
            f"the images are {height} x {width} pixels; dataset.image_size=N makes them N x N."
        )
    if len(dataset) < together:
        raise ValueError(
            f"controls=true needs at least {together} images, to show each with the perturbation "
            f"of another one, not {len(dataset)}."
        )
    dataset.digest()


def prepare_models(job: Job, dataset: ImageDataset, tracker: Tracker) -> dict[str, Model]:
    """Build all models of a job, then train those without weights.

    All are built before one is trained, so that what does not fit the data shows at once. An
    ensemble of sources is a model of its own beside its members.

    Raises:
        ValueError: A model or its weights do not fit the data.
    """
    classifiers = {name: _built(job, name, dataset) for name in job.models}
    models = {name: _ready(job, name, classifiers[name], dataset, tracker) for name in job.models}
    if len(job.sources) > 1:
        models[job.source] = _ensemble(job, [models[name] for name in job.sources])
    return models


def _ensemble(job: Job, members: list[Model]) -> Model:
    """Return several models as one."""
    classifier = Ensemble([member.classifier for member in members], job.ensemble)
    digest = content_key([member.digest for member in members])
    key = content_key([member.key for member in members], job.ensemble)
    return Model(job.source, classifier.eval(), {}, digest, key)


def _built(job: Job, name: str, dataset: ImageDataset) -> PixelClassifier:
    """Build a model from its file; without weights it is initialised by the training's seed."""
    pl.seed_everything(job.config.training.seed, verbose=False)
    settings = job.section(f"model.{name}")
    settings.pop("expected_accuracy", None)
    return build_classifier(
        name,
        **settings,
        num_classes=dataset.num_classes,
        image_size=dataset.image_size,
        attacked=name in job.sources and job.stored is None,
    )


def _ready(
    job: Job, name: str, classifier: PixelClassifier, dataset: ImageDataset, tracker: Tracker
) -> Model:
    """Train a model if it has no weights, and make it fast to differentiate."""
    settings = job.section(f"model.{name}")
    built = {key: settings[key] for key in ("network", "mean", "std", "input_size")}
    if settings["weights"] is None:
        path = _trained(job, name, built, classifier, dataset, tracker)
        load_weights(classifier.network, path, dataset.num_classes)
    digest = weights_digest(classifier.network)
    key = content_key(built, code_of(built), digest, _logits(classifier.eval(), dataset).tolist())
    classifier.eval().requires_grad_(False)
    if job.config.trainer.fold_batch_norms:
        classifier.network = fold_batch_norms(classifier.network)
    if job.config.trainer.channels_last:
        classifier.to(memory_format=torch.channels_last)
    return Model(name, classifier, settings, digest, key)


def _logits(classifier: PixelClassifier, dataset: ImageDataset) -> Tensor:
    """Return the logits of the first two images, which tell apart networks of equal weights."""
    images = dataset.__getitems__(list(range(min(2, len(dataset))))).images
    with torch.no_grad():
        logits: Tensor = classifier(to_unit(images))
    return logits


def _rounded_logits(classifier: PixelClassifier, dataset: ImageDataset) -> list[list[float]]:
    """Return `_logits` in hundredths of the largest: no rounding of kernels makes others of them.

    Other numbers of threads or versions of libraries change the last digits, which is no reason
    to train anew.
    """
    logits = _logits(classifier, dataset).double()
    largest = logits.abs().max().clamp_min(torch.finfo(logits.dtype).tiny)
    rounded: list[list[float]] = ((logits / largest).round(decimals=2) + 0.0).tolist()  # no -0.0
    return rounded


def _trained(
    job: Job,
    name: str,
    built: Mapping[str, Any],
    classifier: PixelClassifier,
    dataset: ImageDataset,
    tracker: Tracker,
) -> Path:
    """Return the file of the weights that this model gets from this data by this recipe."""
    if job.config.dataset.get("_target_") is None:
        raise ValueError(
            f"model {name} has no weights, and a stored set brings no images to train it on; give "
            f"model.{name}.weights=PATH, or the data set as dataset=NAME."
        )
    train = open_dataset(job, "train")
    named = job.stored is None or job.stored.class_names is not None
    if named and train.class_names != dataset.class_names:
        raise ValueError(
            f"model {name} cannot be trained on {job.config.dataset.name}, whose classes "
            f"({', '.join(train.class_names[:3])}, ...) are not those of the images "
            f"({', '.join(dataset.class_names[:3])}, ...)."
        )
    recipe = TrainingSettings(**job.section("training"))
    shapes = {key: list(value.shape) for key, value in classifier.network.state_dict().items()}
    network = (built, code_of(built), shapes, _rounded_logits(classifier, train))
    key = content_key(network, train.digest(), recipe.model_dump())
    where = job.config.dataset.name
    path = Path(job.config.cache_dir) / "checkpoints" / f"{name}-{where}-{key}.safetensors"
    tags = {"model": name, "dataset": where, "seed": str(recipe.seed)}
    parameters = {**recipe.model_dump(), "images": len(train), "checkpoint": path.name}
    return trained_weights(
        name,
        path,
        classifier,
        train,
        open_dataset(job, "test", whole=True),
        recipe,
        trainer=TrainerSettings(**job.section("trainer")),
        make_logger=lambda work: tracker.training_logger(f"train {name}", tags, parameters, work),
    )


@lru_cache(maxsize=4)
def _opened(section: str, split: str) -> ImageDataset:
    source = {key: value for key, value in json.loads(section).items() if key != "name"}
    common = {key: source.pop(key) for key in COMMON_KEYS}
    return load_dataset(split, source, **common)
