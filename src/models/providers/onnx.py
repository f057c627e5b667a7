"""Networks in ONNX files by their path, such as `nets/resnet.onnx`."""

import logging
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from src.models.onnx_file import onnx_input_size, onnx_network
from src.models.providers.public_model import PublicModel

_warn_once = cache(logging.getLogger(__name__).warning)


def names() -> NoReturn:
    """Raise ValueError: files have no list."""
    raise ValueError("ONNX files are onnx/PATH. There is no list of them.")


def find(identifier: str) -> PublicModel:
    """Return the network in a file, for images in [0, 1] at the size that it was exported for."""
    network = {"_target_": "src.models.onnx_network", "file": identifier}
    section: dict[str, Any] = {"network": network, "mean": [0.0] * 3, "std": [1.0] * 3}
    section |= {"input_size": onnx_input_size(identifier), "feature_layer": None}
    text = "onnx/%s states no mean and std: it gets pixels in [0, 1]. Set others in a model file."
    _warn_once(text, identifier)
    return PublicModel(lambda _: onnx_network(identifier), identifier, Path(identifier), section)
