"""Build the untrained models of a job from their files, and check that they fit its images."""

import re
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from ..config.sections import ModelSettings
from ..config.settings import Settings
from ..data import ImageDataset
from ..data.classes import is_imagenet, numbers_of, place_classes
from ..models import PixelClassifier, WeightFacts, build_classifier, weight_facts
from ..models.providers import facts_of
from ..utils.refusals import shortened


def build(
    settings: Settings, name: str, images: ImageDataset | None, download: bool = True
) -> PixelClassifier:
    """Build a model from its file; without weights, initialise it with `training.seed`.

    With `download=False` the same holds for weights that would have to be downloaded.
    """
    pl.seed_everything(settings.training.seed, verbose=False)
    model = settings.model[name]
    section = model.model_dump(exclude={"expected_accuracy", "epoch", "url"})
    if not download:
        section["network"] |= without_downloads(model)
        section["weights"] = "included" if model.missing else model.weights
    if images is None:
        return build_classifier(name, **section)
    stated, names = read_facts(settings, name).class_names, images.class_names
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


def without_downloads(model: ModelSettings) -> dict[str, Any]:
    """Return the arguments with which a network does not download its weights; none: it has none.

    Only the arguments that have to change are returned.
    """
    network = model.network
    others = {"weights": None} if str(network.get("_target_")).startswith("torchvision.") else {}
    included = model.missing or model.weights == "included"
    return {
        key: value
        for key, value in ({"pretrained": False} | others).items()
        if included and network.get(key)
    }


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
