"""The facts that a provider states about a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.models.weights import WeightFacts


@dataclass(frozen=True)
class PublicModel:
    """A public model, as its provider describes it."""

    load: Callable[[bool], nn.Module]  # True: with weights, downloaded if missing; False: random
    source: str  # address of the weights
    path: Path  # file or folder that holds the weights
    section: Mapping[str, Any]  # keys of a model file that the provider states
    facts: WeightFacts = field(default_factory=WeightFacts)
    version: str = ""  # of its code, unless the keys of stored rows already contain it


def torch_hub_file(url: str) -> Path:
    """Return the file that `torch.hub.load_state_dict_from_url` saves."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
