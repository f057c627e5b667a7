"""Statements of a provider about a model."""

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

    load: Callable[[bool], nn.Module]  # with weights, downloaded if they are missing, or random
    source: str  # address that the weights come from
    path: Path  # file or folder that they are kept in
    section: Mapping[str, Any]  # keys of a model file, as far as they are stated
    facts: WeightFacts = field(default_factory=WeightFacts)
    version: str = ""  # of its code, unless the keys of stored rows have it anyway


def torch_hub_file(url: str) -> Path:
    """Return the file that `torch.hub.load_state_dict_from_url` keeps."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
