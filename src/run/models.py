"""Models of a job: built, trained where weights are missing, and frozen."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from src.cache.code_digest import code_of, read_code
from src.cache.keys import content_key
from src.config.attack_file import attack_settings
from src.config.attack_settings import AttackSettings
from src.config.sections import TrainingSettings
from src.config.settings import Settings
from src.data import ImageDataset
from src.data.classes import is_imagenet, numbers_of, place_classes
from src.images.attacker import accepted
from src.models import (
    Ensemble,
    PixelClassifier,
    WeightFacts,
    build_classifier,
    check_gradient,
    fold_batch_norms,
    load_weights,
    network_text,
    tensors_of,
    use_channels_last,
    weight_facts,
)
from src.models.providers import facts_of
from src.run.attack_function import attack_function
from src.run.clean_accuracy import check_trained
from src.run.data import forget_datasets, open_dataset, open_training_images
from src.run.stages import Data, Model, Planned
from src.tracking import Tracker
from src.training import TRAINING, Craft, after_epoch, train_once
from src.utils.model_names import ModelRef
from src.utils.refusals import shortened

_last_job: dict[str, Model] = {}  # models of the last job by `_make_key`
_subset = lru_cache(maxsize=2)(ImageDataset.subset)  # a subset keeps its digest


def build_models(planned: Planned, data: Data) -> dict[str, PixelClassifier]:
    """Build the models of a job, untrained, except those left from this process's last job.

    A model that does not fit the images or the attack is refused before hours of training.
    """
    settings, images = planned.settings, data.images
    keys = {_make_key(planned, name, images): name for name in settings.models}
    for key in _last_job.keys() - keys:
        del _last_job[key]
    built = {
        name: _build(settings, name, images) for key, name in keys.items() if key not in _last_job
    }
    for name in built.keys() & set(settings.source if planned.attack else ()):
        check_gradient(name, built[name], images.image_size)
    files = trained_files(settings, built, images)
    if not all(file.exists() for file in files.values()):  # trainings end with all test images
        open_dataset(settings, "test", whole=True).digest()
        training_attack(settings.training)
    if settings.clean_accuracy_check.action == "stop":
        for name, file in files.items():
            check_trained(settings, name, file, images.num_classes)
    return built


def train_models(
    planned: Planned,
    data: Data,
    built: dict[str, PixelClassifier],
    names: Iterable[str],
    tracker: Tracker,
) -> dict[str, Model]:
    """Return the named models of a job with their weights; train those without weights.

    Models of this process's last job are reused. The named models are removed from `built`.
    """
    settings, images, models = planned.settings, data.images, dict[str, Model]()
    for name in names:
        key = _make_key(planned, name, images)
        if name in built:
            if settings.model[name].weights is None:
                _train(name, built, settings, data, tracker)
            keep = _keeps_layers(planned, name)
            _last_job[key] = _finish(settings, name, built.pop(name), images, keep)
        models[name] = _last_job[key]
    return models


def with_ensemble(settings: Settings, models: Mapping[str, Model]) -> Mapping[str, Model]:
    """Return the models, with the ensemble added if the job has several sources."""
    if len(settings.source) < 2:
        return models
    members = [models[name] for name in settings.source]
    ensemble = Model(
        Ensemble([member.classifier for member in members], settings.ensemble).eval(),
        digest=content_key([member.digest for member in members]),
        key=content_key([member.key for member in members], settings.ensemble),
        as_built=Ensemble(
            [member.as_built or member.classifier for member in members], settings.ensemble
        ).eval(),
    )
    return {**models, settings.source_name: ensemble}


def stored_classifier(
    settings: Settings, name: str, with_data: bool = True
) -> PixelClassifier | None:
    """Return a job's model, frozen, without training; None if it has no weights yet.

    The state of the random number generators is unchanged. With `with_data=False` the weights
    alone decide the classes.
    """
    forget_datasets()  # the current folder and its files may have changed
    read_code.cache_clear()
    images = open_dataset(settings, "test") if with_data else None
    with isolate_rng():
        classifier = _build(settings, name, images)
    if images is not None and settings.model[name].weights is None:
        path = checkpoint_path(settings, name, classifier, images)
        if not path.exists():
            return None
        load_weights(classifier.network, path)
    image_size = 224 if images is None else images.image_size
    _speed_up(settings, classifier.requires_grad_(False), image_size)
    return classifier


def forget_models() -> None:
    """Clear the cache of models, so that the next job rebuilds them: files may have changed."""
    _last_job.clear()
    read_code.cache_clear()


def _keeps_layers(planned: Planned, name: str) -> bool:
    """Return True if the attack's fit needs the model's layers as built."""
    part = planned.fitted
    return part is not None and part.as_built and name in planned.settings.source


def _make_key(planned: Planned, name: str, images: ImageDataset) -> str:
    """Return a key of everything that decides a model, provided that files do not change."""
    settings = planned.settings
    sections = (settings.model[name], settings.dataset, settings.training)
    parts = [section.model_dump() for section in sections]
    others = (settings.trainer.fold_batch_norms, settings.clean_accuracy_check.action)
    keep = _keeps_layers(planned, name)
    return content_key(name, parts, others, settings.cache_dir, images.digest(), keep)


def _build(settings: Settings, name: str, images: ImageDataset | None) -> PixelClassifier:
    """Build a model from its file; without weights, initialise it with `training.seed`."""
    pl.seed_everything(settings.training.seed, verbose=False)
    section = settings.model[name].model_dump(
        exclude={"expected_accuracy", "epoch", "url", "missing"}
    )
    if images is None:
        return build_classifier(name, **section)
    stated, names = _read_facts(settings, name).class_names, images.class_names
    if stated and not _agree(stated, names):
        old, new = _list_new(stated, names), _list_new(names, stated)
        renamed = "set dataset.class_names, " * (len(stated) == len(names))
        way = f"Name another model, {renamed}or train this one: model.{name}.weights=null."
        if settings.model[name].weights == "included":
            way = f"Name another model, {renamed}or evaluate other images."
        if place_classes(names, stated) is not None:
            wanted = "imagenet" if is_imagenet(stated) else f"[{','.join(stated)}]"
            way = f"Number them alike: 'dataset.class_names={wanted}'."
        raise ValueError(
            f"model {name}: its weights are for {len(stated)} classes ({old}), "
            f"but {settings.dataset.name} has {len(names)} ({new}). {way}"
        )
    section |= {"num_classes": images.num_classes, "image_size": images.image_size}
    try:
        return build_classifier(name, **section)
    except ValueError as error:
        if not re.search(r"classes|size mismatch", str(error)) or settings.dataset.class_names:
            raise
        way = "set dataset.class_names (imagenet, or all in order), or dataset.num_classes of lists"
        text = f"{error} If the images have only some of the network's classes, {way}."
        raise ValueError(text) from error


def _read_facts(settings: Settings, name: str) -> WeightFacts:
    """Return the facts stated by a model's weight file or provider, if any."""
    model = settings.model[name]
    included = model.weights in (None, "included")
    return facts_of(model.network) if included else weight_facts(str(model.weights), name)


def _list_new(names: Sequence[str], others: Sequence[str]) -> str:
    """Return up to three names that are not in `others`, or else the first three, as text."""
    return shortened([name for name in names if name not in others] or names)


def _agree(stated: Sequence[str], names: Sequence[str]) -> bool:
    """Return True if class names agree with stated ones.

    The numbers 0, 1, ... and 1, 2, ... agree with as many words.
    """
    numbers, count = numbers_of(names), len(stated)
    if numbers is None or numbers_of(stated) is not None:
        return tuple(stated) == tuple(names)
    return numbers in ([*range(count)], [*range(1, count + 1)])


def _finish(
    settings: Settings,
    name: str,
    classifier: PixelClassifier,
    images: ImageDataset,
    keep_layers: bool = False,
) -> Model:
    """Freeze a model with weights, and speed up its gradients."""
    network = _network_settings(settings, name)
    digest = classifier.digest
    parts = (digest, network_text(classifier.network), classifier.state)
    key = content_key(network, code_of(network), *parts)
    classifier.eval().requires_grad_(False)
    as_built = copy.deepcopy(classifier) if keep_layers else None
    _speed_up(settings, classifier, images.image_size)
    expected, facts = settings.model[name].expected_accuracy, _read_facts(settings, name)
    if expected is None and facts.class_names == images.class_names:
        expected = facts.expected_accuracy
    return Model(classifier, digest, key, expected, as_built)


def _speed_up(settings: Settings, classifier: PixelClassifier, image_size: int) -> None:
    """Speed up the gradients of a frozen model."""
    if settings.trainer.fold_batch_norms:
        classifier.network = fold_batch_norms(classifier.network)
    use_channels_last(classifier, image_size)


def _network_settings(settings: Settings, name: str) -> dict[str, Any]:
    """Return the settings that decide what a model computes, without its weights."""
    section, keys = settings.model[name], {"network", "mean", "std", "input_size"}
    if section.channels != "RGB":  # the keys of earlier weights lack it
        keys.add("channels")
    return section.model_dump(include=keys)


def checkpoint_path(
    settings: Settings,
    name: str,
    classifier: PixelClassifier,
    images: ImageDataset,
    *,
    at_end: bool = False,
) -> Path:
    """Return the path of the weights that a model gets from this data and recipe.

    With `at_end`, return the path after the last epoch, regardless of the epoch in the model's
    name.
    """
    dataset, model = settings.dataset.name, ModelRef((name,))
    epoch = model.epoch
    if epoch is not None and epoch not in settings.training.keep_epochs:
        raise ValueError(f"model {name} needs training.keep_epochs=[{epoch}].")
    if not settings.dataset.has_loader:
        raise ValueError(
            f"model {name} has no weights, and a saved set has no training images. Set "
            f"model.{name}.weights=PATH or dataset=NAME."
        )
    try:
        open_training_images(settings, images)
    except ValueError as error:
        way = f"Set model.{name}.weights=PATH, or name other models in targets"
        raise ValueError(f"model {name} cannot be trained on {dataset}: {error}. {way}.") from error
    data = training_images(settings, images).digest()  # reads all files, so a bad one is refused
    shapes = {key: list(value.shape) for key, value in tensors_of(classifier.network)}
    network = _network_settings(settings, name)
    # This program's code and library versions do not count: an upgrade must not cause retraining.
    built = (network, code_of(network, upgrades=False), shapes, network_text(classifier.network))
    others = {"device", "evaluate_on", "keep_epochs"}  # do not affect the weights
    recipe = settings.training.model_dump(exclude=others, exclude_defaults=True)
    key = content_key(TRAINING, built, data, recipe)
    path = Path(settings.cache_dir) / "checkpoints" / f"{model.base}-{dataset}-{key}.safetensors"
    return path if epoch is None or at_end else after_epoch(path, epoch)


def training_images(settings: Settings, images: ImageDataset) -> ImageDataset:
    """Return the images that models are trained on, to be evaluated on `images`."""
    train, n_images = open_training_images(settings, images), settings.training.n_images
    if n_images is not None and not train.num_classes <= n_images <= len(train):
        allowed = f"{train.num_classes} (classes) to {len(train):,} (training images)"
        raise ValueError(f"training.n_images={n_images}: use {allowed}, or null for all images.")
    return _subset(train, n_images, settings.training.seed)


def training_attack(recipe: TrainingSettings) -> Craft | None:
    """Return the attack for adversarial training; None for ordinary training."""
    if recipe.attack is None:
        return None
    try:
        attack = attack_function(settings_of_attack(recipe))
    except ValueError as error:
        raise ValueError(f"training.attack={recipe.attack}: {error}") from error
    if getattr(getattr(attack, "func", attack), "fitted", None):
        raise ValueError(f"training.attack={recipe.attack} needs a fit. Use an attack without one.")
    drawn = "seeds" in accepted(attack)

    def craft(model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        budgets = images.new_tensor([recipe.eps / 255])
        with torch.enable_grad():
            return attack(model, images, labels, budgets, **({"seeds": seeds} if drawn else {}))[0]

    return craft


def settings_of_attack(recipe: TrainingSettings) -> AttackSettings:
    """Return the settings of the attack used in adversarial training."""
    keywords = {} if recipe.steps is None else {"steps": recipe.steps}
    return attack_settings(str(recipe.attack), keywords)


def trained_files(
    settings: Settings, built: Mapping[str, PixelClassifier], images: ImageDataset
) -> dict[str, Path]:
    """Return the files of trained weights by model, for all models without given weights."""
    names = [name for name in built if settings.model[name].weights is None]
    return {name: checkpoint_path(settings, name, built[name], images) for name in names}


def _train(
    name: str, built: dict[str, PixelClassifier], settings: Settings, data: Data, tracker: Tracker
) -> None:
    """Load a model's weights into it; train them first if their file is missing."""
    files = trained_files(settings, built, data.images)
    file = files.pop(name)
    path = checkpoint_path(settings, name, built[name], data.images, at_end=True)
    recipe, dataset = settings.training, settings.dataset.name
    train = training_images(settings, data.images)
    test = open_dataset(settings, "test", whole=True)
    tags = {"model": name, "dataset": dataset, "seed": str(recipe.seed)}
    tags["sweep"] = settings.sweep or ""
    parameters = {**recipe.model_dump(), "images": len(train), "checkpoint": file.name}
    then = [other for other, missing in files.items() if not missing.exists()]
    logged = f"train {name}", tags, parameters, train.digest()
    make_logger = partial(tracker.training_logger, *logged)
    craft, trainer = training_attack(recipe), settings.trainer
    train_once(name, path, built[name], train, test, recipe, trainer, make_logger, then, craft)
    check_trained(settings, name, file, train.num_classes)
    # Built anew, as by later commands: training may have changed state that the file does not hold.
    built[name] = _build(settings, name, data.images)
    load_weights(built[name].network, file)
