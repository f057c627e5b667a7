"""Public models by name, `provider/identifier`, with their provider's weights."""

import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from src.models.providers.public_model import PublicModel
from src.models.weights import WeightFacts
from src.utils.public_models import PROVIDERS, not_found
from src.utils.refusals import first_line, suggestion

LOADER = "src.models.providers.load_network"
_UNLISTED = ("hub", "onnx")
_LAYERS = {  # feature layers of timm's and torchvision's architectures
    r"\w+/(wide_)?resne(x?)t\d+(_\d+x?\d*d?)?\.": "layer2",
    r"\w+/densenet\d+\.": "features.denseblock2",
    r"\w+/inception_v3\.": "Mixed_5b",
}


def section_of(name: str) -> dict[str, Any]:
    """Return a model file's keys for a public model, without downloading or building it."""
    model = find(name)
    network = {"_target_": LOADER, "name": name, "pretrained": True, "version": model.version}
    layers = [layer for known, layer in _LAYERS.items() if re.match(known, name)]
    layer = layers[0] if layers else None
    return {"network": network, "weights": "included", "feature_layer": layer, **model.section}


def load_network(name: str, pretrained: bool = True, version: str = "") -> nn.Module:
    """Load a public model's network, or build the same architecture with random weights.

    Missing weights are downloaded.

    Raises:
        ValueError: The weights cannot be downloaded or read.
    """
    model = find(name)
    try:
        return model.load(pretrained)
    except Exception as error:  # from a download, a damaged file or a hub's code
        reason = f"({type(error).__name__}: {first_line(error).partition('. ')[0][:80]})"
        text = f"{model.path} cannot be loaded {reason}. Delete it if it is damaged."
        if not model.path.exists():
            place = str(model.path).partition("/snapshots/")[0]  # Hugging Face: the whole folder
            text = (
                f"it cannot be downloaded {reason}. Put {model.source} at {place}. On a machine "
                f"with a network: python -m src.models --fetch {name}"
            )
        raise ValueError(f"{name}: {text}") from error


def facts_of(network: Mapping[str, Any]) -> WeightFacts:
    """Return what a provider states about a model; empty facts for other networks."""
    return find(network["name"]).facts if network.get("_target_") == LOADER else WeightFacts()


def fetch_missing(networks: Iterable[Mapping[str, Any]]) -> None:
    """Download the missing weights of public models; `networks` are the keys of model files.

    Raises:
        ValueError: Weights cannot be downloaded. The message names all that are missing.
    """
    wanted = (its for its in networks if its["_target_"] == LOADER and its.get("pretrained", True))
    missing = sorted({its["name"] for its in wanted if not find(its["name"]).path.exists()})
    for number, name in enumerate(missing):
        try:
            load_network(name)
        except ValueError as error:  # its last line ends with a name to fetch
            raise ValueError(" ".join([str(error), *missing[number + 1 :]])) from error


def find(name: str) -> PublicModel:
    """Return a public model; raise ValueError for an unknown name."""
    package, _, identifier = name.partition("/")
    provider = open_provider(package)
    if package not in _UNLISTED and identifier not in (known := provider.names()):
        raise not_found(name, [f"{package}/{other}" for other in known])
    return provider.find(identifier)


def open_provider(name: str) -> Any:
    """Import a provider's module; raise ValueError if its library is not installed."""
    if name not in PROVIDERS:
        raise ValueError(f"{name} is none of {', '.join(PROVIDERS)}.{suggestion(name, PROVIDERS)}")
    try:
        return import_module(f"src.models.providers.{name}")
    except ModuleNotFoundError as error:
        install = "pip install git+https://github.com/RobustBench/robustbench 'setuptools<81'"
        raise ValueError(f"{name}: {error.name} is not installed: {install}") from error
