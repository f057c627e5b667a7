"""Catalogue models for use from Python, with the weights that the command line uses."""

import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import open_dict
from torch import nn

from ..config.catalogue import is_public
from ..config.command import Command
from ..config.compose import compose_words
from ..config.errors import REFUSALS, explain
from ..config.read import read_job
from ..config.settings import Settings
from ..models import PixelClassifier
from ..run.data import DataSets
from ..run.models import stored_classifier
from ..utils.model_names import ModelRef
from ..utils.package import command

Modules = nn.Module | Sequence[nn.Module]
Models = Mapping[str, Modules] | Sequence[str | Mapping[str, Modules]]
"""Modules by name, or a list of model names and such mappings."""


def load_classifier(
    name: str, *words: str, config_dir: str | Path | None = None
) -> PixelClassifier:
    """Load a model as the command line would with the same arguments, without training it.

    The weights come from `model.NAME.weights`, from the package, or from `cache/` in the current
    folder if the command line trained them there for the same data set with the same recipe. The
    data set determines the number of classes and the image size, and may be downloaded. A public
    model needs no data set; if `words` name one, its classes must match the model's.

    Args:
        name: Name of a file in `conf/model/`, such as `vgg16`, or of a public model, such as
            `timm/resnet50.a1_in1k`.
        *words: Further command-line arguments for models, data set and training, such as
            `experiment=demo`, `dataset=cifar10_mini` or `model.vgg16.weights=vgg16_bn.pt`.
        config_dir: Folder with your own config files, as for `--config-dir`.

    Returns:
        A frozen torch module in evaluation mode on the CPU. It maps float32 images in [0, 1] of
        shape (N, 3, H, W) to logits of shape (N, classes), and includes resizing and normalisation.
        Batch norms are folded unless `words` say otherwise.

    Raises:
        ValueError: There is no such model, key or file, or the weights do not fit. If the model has
            no weights, the message names the command that trains them.

    Examples:
        >>> vgg_small = load_classifier("vgg_small", "dataset=cifar10_mini")  # doctest: +SKIP
        >>> vgg_small(images).argmax(1)  # doctest: +SKIP
    """
    arguments = ("attack=none", f"targets=[{name}]", *words)
    settings = model_settings(arguments, config_dir)
    keys = [key.partition(".")[0] for key in Command.parse(arguments).keys]
    named = "dataset" in keys or "experiment" in keys
    sets = DataSets() if named or not is_public(name) else None
    classifier = stored_classifier(settings, settings.targets[0], sets)
    if classifier is None:
        flags = [] if config_dir is None else ["--config-dir", str(config_dir)]
        line = f"{command()} {shlex.join([*flags, *arguments])}"
        raise ValueError(
            f"model {name} has no weights in {settings.cache.dir}/ for {settings.dataset.name}. "
            f"Set model.{name}.weights=PATH, or train it: {line}"
        )
    return classifier


def model_settings(arguments: Sequence[str], config_dir: str | Path | None = None) -> Settings:
    """Return the settings of a command that evaluates models on clean images."""
    try:
        config = compose_words(arguments, config_dir)
        with open_dict(config):  # without an experiment's attack, which loading does not need
            config.attack = {}
            config.source, config.protocol, config.storage, config.variants = None, "all", None, []
            config.controls, config.save_adversarial, config.diagnostics = False, False, {}
        return read_job(config, config.hydra)
    except REFUSALS as error:
        raise ValueError(explain(error)) from error


def loaded(sources: Models, targets: Models) -> tuple[Mapping[str, Modules], Mapping[str, Modules]]:
    """Return sources and targets as modules by name.

    Model names in a list are loaded with `load_classifier`, each of them once.
    """
    load = cache(load_classifier)

    def by_name(models: Any) -> Mapping[str, Modules]:
        if not isinstance(models, list | tuple):
            return models  # checked by the caller
        if not all(isinstance(model, str | Mapping) for model in models):
            raise ValueError(
                "models must be a list of names, or of mappings from names to modules."
            )
        named = [
            {str(ModelRef.typed(one)): load(one)} if isinstance(one, str) else one for one in models
        ]
        return {name: module for modules in named for name, module in dict(modules).items()}

    return by_name(sources), by_name(targets)
