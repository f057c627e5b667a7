"""Public models by name, `provider/identifier`, with their provider's weights."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import nn

from ..utils.model_names import PROVIDERS, not_found
from ..utils.package import OFFLINE, command
from ..utils.refusals import choose, first_line, warn_once
from .onnx_file import onnx_input_size, onnx_network
from .pixel_classifier import NORMALISATION
from .weights import WeightFacts

LOADER = "src.models.providers.load_network"
_UNLISTED = ("hub", "onnx")
_LAYERS = {  # feature layers of timm's and torchvision's architectures
    r"\w+/(wide_)?resne(x?)t\d+(_\d+x?\d*d?)?\.": "layer2",
    r"\w+/densenet\d+\.": "features.denseblock2",
    r"\w+/inception_v3\.": "Mixed_5b",
}


@dataclass(frozen=True)
class PublicModel:
    """A public model, as its provider describes it."""

    load: Callable[[bool], nn.Module]  # True: with weights, downloaded if missing; False: random
    source: str  # address of the weights
    path: Path  # file or folder that holds the weights
    section: Mapping[str, Any]  # keys of a model file that the provider states
    facts: WeightFacts = field(default_factory=WeightFacts)
    version: str = ""  # of its code, unless the keys of stored rows already contain it


class Provider(Protocol):
    """A library or place that has models; it imports its own package when it is needed."""

    def names(self) -> list[str]:
        """Return all identifiers; raise ValueError if there is no list of them."""

    def find(self, identifier: str) -> PublicModel:
        """Return a model, without downloading or building it."""


def section_of(name: str) -> dict[str, Any]:
    """Return a model file's keys for a public model, without downloading or building it."""
    model = find(name)
    network = {"_target_": LOADER, "name": name, "pretrained": True, "version": model.version}
    layers = [layer for pattern, layer in _LAYERS.items() if re.match(pattern, name)]
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
                f"it cannot be downloaded {reason}. {OFFLINE} Or put {model.source} at {place}. On "
                f"a machine with a network: {command('models')} --fetch {name}"
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
    wanted = (net for net in networks if net["_target_"] == LOADER and net.get("pretrained", True))
    missing = sorted({net["name"] for net in wanted if not find(net["name"]).path.exists()})
    for number, name in enumerate(missing):
        try:
            load_network(name)
        except ValueError as error:  # its last line ends with a name to fetch
            raise ValueError(" ".join([str(error), *missing[number + 1 :]])) from error


def find(name: str) -> PublicModel:
    """Return a public model; raise ValueError for an unknown name."""
    package, _, identifier = name.partition("/")
    provider = open_provider(package)
    if package not in _UNLISTED and identifier not in (listed := provider.names()):
        raise not_found(name, [f"{package}/{other}" for other in listed])
    return provider.find(identifier)


def open_provider(name: str) -> Provider:
    """Return a provider; raise ValueError if there is none or its library is not installed."""
    try:
        return _CLASSES[choose("provider", name, PROVIDERS)]()
    except ModuleNotFoundError as error:
        install = "pip install git+https://github.com/RobustBench/robustbench 'setuptools<81'"
        raise ValueError(f"{name}: {error.name} is not installed: {install}") from error


class Timm:
    """Models of timm, such as `resnet50.a1_in1k`."""

    def names(self) -> list[str]:
        """Return the names of all pretrained weights."""
        import timm  # here: slow

        return timm.list_pretrained()

    def find(self, identifier: str) -> PublicModel:
        """Return a model; its weights are in Hugging Face's cache, or for a few in torch.hub's."""
        import timm
        from huggingface_hub import HfApi, constants, try_to_load_from_cache

        stated: Any = timm.get_pretrained_cfg(identifier)
        source, path = stated.url, _torch_hub_file(stated.url or "")
        if repository := stated.hf_hub_id:
            source = f"https://huggingface.co/{repository}"
            files = ("model.safetensors", "pytorch_model.bin")  # in timm's order
            folder = f"models--{repository.replace('/', '--')}"
            path = Path(constants.HF_HUB_CACHE, folder, "snapshots", "COMMIT", files[0])
            paths = [try_to_load_from_cache(repository, file) for file in files]
            path = next((Path(file) for file in paths if isinstance(file, str)), path)

        def load(pretrained: bool) -> nn.Module:
            if pretrained and repository and not path.exists():
                HfApi().model_info(repository, timeout=10)  # fails at once, not after a minute
            return timm.create_model(identifier, pretrained=pretrained)

        section = {"mean": list(stated.mean), "std": list(stated.std)}
        return PublicModel(load, source, path, section | {"input_size": stated.input_size[-1]})


class Torchvision:
    """Classifiers of torchvision, such as `resnet50.IMAGENET1K_V2`."""

    def __init__(self) -> None:
        from torchvision import models  # slow to import

        self.models = models

    def names(self) -> list[str]:
        """Return the names of all classifiers' weights; weights without classes are features."""
        return [
            f"{name}.{weights.name}"
            for name in self.models.list_models(self.models)
            for weights in self.models.get_model_weights(name)
            if weights.meta["categories"]
        ]

    def find(self, identifier: str) -> PublicModel:
        """Return a model; its weights are in torch.hub's cache."""
        name, _, tag = identifier.partition(".")
        weights = self.models.get_model_weights(name)[tag]
        preset, meta = weights.transforms(), weights.meta

        def load(pretrained: bool) -> nn.Module:
            if pretrained:  # allow only tensors: torchvision would unpickle anything
                weights.get_state_dict(check_hash=True, weights_only=True)
            return self.models.get_model(name, weights=weights if pretrained else None)

        facts = WeightFacts((*meta["categories"],), meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
        section = {"mean": preset.mean, "std": preset.std, "input_size": preset.crop_size[0]}
        return PublicModel(load, weights.url, _torch_hub_file(weights.url), section, facts)


def _torch_hub_file(url: str) -> Path:
    """Return the file that `torch.hub.load_state_dict_from_url` saves."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


class Hub:
    """Models from GitHub repositories with a `hubconf.py`: `OWNER/REPO@COMMIT/ENTRY`."""

    def names(self) -> NoReturn:
        """Raise ValueError: GitHub has no list of models."""
        raise ValueError(
            "Models of torch.hub are hub/OWNER/REPO@COMMIT/ENTRY: all 40 digits of a commit, and a "
            "function in its hubconf.py. There is no list of them."
        )

    def find(self, identifier: str) -> PublicModel:
        """Return a model of torch.hub; loading it runs code from a commit on GitHub."""
        match = re.fullmatch(r"([\w.-]+)/([\w.-]+)@([0-9a-f]{40})/(\w+)", identifier)
        owner, name, commit, entry = match.groups() if match else self.names()
        path = Path(torch.hub.get_dir(), f"{owner}_{name}_{commit}")
        source = f"https://github.com/{owner}/{name}/tree/{commit}"

        def load(pretrained: bool) -> nn.Module:
            if not (pretrained or path.exists()):
                raise FileNotFoundError("a plan downloads nothing")
            warn_once("hub/%s runs code: %s of %s.", identifier, entry, source)
            options: dict[str, Any] = {"trust_repo": True, "skip_validation": True}
            net: Any = torch.hub.load(
                f"{owner}/{name}:{commit}", entry, **options, verbose=False, pretrained=pretrained
            )
            if not getattr(net, "pretrained_cfg", None):
                warn_once("hub/%s states no mean and std; ImageNet's are taken.", identifier)
                net.pretrained_cfg = dict(NORMALISATION["imagenet"])
            return net

        return PublicModel(load, source, path, {})


class Robustbench:
    """Models of RobustBench, such as `cifar10/Linf/Carmon2019Unlabeled`."""

    def __init__(self) -> None:
        from robustbench import model_zoo, utils

        self.load_model = utils.load_model
        self.version = version("robustbench")  # torchattacks bundles an old copy without a version
        self.models = {
            f"{dataset.value}/{threat.value}/{name}": stated
            for dataset, threats in model_zoo.model_dicts.items()
            for threat, models in threats.items()
            for name, stated in models.items()
        }

    def names(self) -> list[str]:
        """Return the names of all models of the installed package."""
        return [*self.models]

    def find(self, identifier: str) -> PublicModel:
        """Return a model for images in [0, 1]; its weights are in `models/` of this folder."""
        data, threat, name = identifier.split("/")
        stated = self.models[identifier]

        def load(pretrained: bool) -> nn.Module:
            if pretrained:
                return self.load_model(name, "models", data, threat)
            return stated["model"]()

        file = stated["gdrive_id"]
        end = "_m0.pt" if isinstance(file, list) else ".pt"
        path = Path("models", f"{identifier}{end}")
        side = str(stated.get("preprocessing")).rpartition("Crop")[2]  # of ImageNet models
        section = {"mean": [0.0] * 3, "std": [1.0] * 3}
        size = {"input_size": int(side)} if side.isdigit() else {}
        drive = f"Google Drive's {file}"
        return PublicModel(load, drive, path, section | size, version=self.version)


class Onnx:
    """Networks in ONNX files by their path, such as `nets/resnet.onnx`."""

    def names(self) -> NoReturn:
        """Raise ValueError: files have no list."""
        raise ValueError("ONNX files are onnx/PATH. There is no list of them.")

    def find(self, identifier: str) -> PublicModel:
        """Return the network in a file, for images in [0, 1] at its exported size."""
        network = {"_target_": "src.models.onnx_network", "file": identifier}
        section: dict[str, Any] = {"network": network, "mean": [0.0] * 3, "std": [1.0] * 3}
        section |= {"input_size": onnx_input_size(identifier), "feature_layer": None}
        text = "onnx/%s states no mean and std: it gets pixels in [0, 1]."
        warn_once(f"{text} Set others in a model file.", identifier)
        return PublicModel(
            lambda _: onnx_network(identifier), identifier, Path(identifier), section
        )


_CLASSES: dict[str, Callable[[], Provider]] = {
    "timm": Timm,
    "torchvision": Torchvision,
    "hub": Hub,
    "robustbench": Robustbench,
    "onnx": Onnx,
}
