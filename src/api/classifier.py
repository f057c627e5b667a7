"""Models of the catalogue for use from Python, with the weights that the command line has."""

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict
from torch import nn

from src.config.compose import compose_words
from src.config.errors import REFUSALS, explain
from src.config.fields import short_name
from src.config.names import is_public
from src.config.read import read_job
from src.config.resolvers import CONF
from src.models import PixelClassifier
from src.run.models import stored_classifier

Modules = nn.Module | Sequence[nn.Module]
Models = Mapping[str, Modules] | Sequence[str | Mapping[str, Modules]]
"""Modules by name, or a list of such mappings and of names of models."""


def load_classifier(
    name: str, *words: str, config_dir: str | Path | None = None
) -> PixelClassifier:
    """Build a model as the command line would with the same words; nothing is trained.

    The weights are `model.NAME.weights`, those in the package, or those that the command line has
    trained for the same data set by the same recipe, in `cache/` of the current folder. The data
    set decides the number of classes and the size of images, and may be downloaded. A public model
    needs no data set; where the words name one, its classes are compared.

    Args:
        name: Name of a file of `conf/model/`, such as `vgg16`, or of a public model, such as
            `timm/resnet50.a1_in1k`.
        *words: More of the command line about models, data set and training, such as
            `experiment=demo`, `dataset=cifar10_mini` or `model.vgg16.weights=vgg16_bn.pt`.
        config_dir: A folder with files of your own, as `--config-dir` names it.

    Returns:
        A frozen torch module in evaluation mode on the CPU: float32 images in [0, 1] of shape
        (N, 3, H, W) to logits of shape (N, classes), resizing and normalisation included. Batch
        norms are folded unless the words differ.

    Raises:
        ValueError: There is no such model, key or file, or the weights do not fit. If there are
            none, it says which command line trains them.

    Examples:
        >>> vgg_small = load_classifier("vgg_small", "dataset=cifar10_mini")  # doctest: +SKIP
        >>> vgg_small(images).argmax(1)  # doctest: +SKIP
    """
    words = ("attack=none", f"targets=[{name}]", *words)
    try:
        config = _without_attack(compose_words(CONF, words, config_dir))
        settings = read_job(config, config.hydra)
    except REFUSALS as error:
        raise ValueError(explain(error)) from error
    named = any(re.match(r"\+*(dataset|experiment)\b", word) for word in words)
    classifier = stored_classifier(settings, settings.targets[0], named or not is_public(name))
    if classifier is None:
        flags = [] if config_dir is None else ["--config-dir", str(config_dir)]
        command = shlex.join(["python", "-m", "src.main", *flags, *words])
        raise ValueError(
            f"model {name} has no weights in {settings.cache_dir}/ for {settings.dataset.name}; "
            f"give model.{name}.weights=PATH, or train it: {command}"
        )
    return classifier


def loaded(sources: Models, targets: Models) -> tuple[Mapping[str, Modules], Mapping[str, Modules]]:
    """Return the modules of a call by name, where a list holds names of models and mappings.

    A name is `load_classifier`'s, and loaded once.
    """
    load = cache(load_classifier)

    def by_name(models: Any) -> Mapping[str, Modules]:
        if not isinstance(models, list | tuple):
            return models  # which the call checks
        if not all(isinstance(its, str | Mapping) for its in models):
            raise ValueError(
                "models must be a list of names and of mappings from names to modules."
            )
        named = [{short_name(its): load(its)} if isinstance(its, str) else its for its in models]
        return {name: module for its in named for name, module in dict(its).items()}

    return by_name(sources), by_name(targets)


def _without_attack(config: DictConfig) -> DictConfig:
    """Return a config without an experiment's attack settings, which models do not need."""
    with open_dict(config):
        config.attack = {}
        config.source, config.protocol, config.storage, config.variants = None, "all", None, []
        config.controls, config.save_adversarial, config.diagnostics = False, False, {}
    return config
