"""Models of RobustBench, such as `cifar10/Linf/Carmon2019Unlabeled`."""

from importlib.metadata import version
from pathlib import Path

from robustbench.model_zoo import model_dicts
from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
from robustbench.utils import load_model
from torch import nn

from src.models.providers.public_model import PublicModel

_VERSION = version("robustbench")  # torchattacks bundles an old copy without a version


def names() -> list[str]:
    """Return the names of all models of the installed package."""
    return [
        f"{dataset.value}/{threat.value}/{name}"
        for dataset, threats in model_dicts.items()
        for threat, models in threats.items()
        for name in models
    ]


def find(identifier: str) -> PublicModel:
    """Return a model for images in [0, 1]; its weights are in `models/` of the current folder."""
    data, threat, name = identifier.split("/")
    stated = model_dicts[BenchmarkDataset(data)][ThreatModel(threat)][name]

    def load(pretrained: bool) -> nn.Module:
        return load_model(name, "models", data, threat) if pretrained else stated["model"]()

    file = stated["gdrive_id"]
    path = Path("models", f"{identifier}_m0.pt" if isinstance(file, list) else f"{identifier}.pt")
    side = str(stated.get("preprocessing")).rpartition("Crop")[2]  # of ImageNet models
    section = {"mean": [0.0] * 3, "std": [1.0] * 3}
    size = {"input_size": int(side)} if side.isdigit() else {}
    return PublicModel(load, f"Google Drive's {file}", path, section | size, version=_VERSION)
