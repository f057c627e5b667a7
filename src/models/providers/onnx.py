"""Networks in ONNX files by their path, such as `nets/resnet.onnx`."""

from pathlib import Path
from typing import Any, NoReturn

from src.models.onnx_file import onnx_input_size, onnx_network
from src.models.providers.public_model import PublicModel
from src.utils.refusals import warn_once


def names() -> NoReturn:
    """Raise ValueError: files have no list."""
    raise ValueError("ONNX files are onnx/PATH. There is no list of them.")


def find(identifier: str) -> PublicModel:
    """Return the network in a file, for images in [0, 1] at the size that it was exported for."""
    network = {"_target_": "src.models.onnx_network", "file": identifier}
    section: dict[str, Any] = {"network": network, "mean": [0.0] * 3, "std": [1.0] * 3}
    section |= {"input_size": onnx_input_size(identifier), "feature_layer": None}
    text = "onnx/%s states no mean and std: it gets pixels in [0, 1]. Set others in a model file."
    warn_once(text, identifier)
    return PublicModel(lambda _: onnx_network(identifier), identifier, Path(identifier), section)
