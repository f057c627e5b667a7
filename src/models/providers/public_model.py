"""A public model, as each provider describes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.models.weights import WeightFacts


@dataclass(frozen=True)
class PublicModel:
    """A public model.

    Attributes:
        load: Returns the network with its weights, which are downloaded; with False random ones.
        source: Address that the weights come from.
        path: File or folder that they are kept in.
        section: Keys of a model file: `mean`, `std` and `input_size`, as far as they are stated.
        facts: What the provider states of the weights.
        version: Version of its code, unless the keys of stored rows have it anyway.
    """

    load: Callable[[bool], nn.Module]
    source: str
    path: Path
    section: Mapping[str, Any]
    facts: WeightFacts = field(default_factory=WeightFacts)
    version: str = ""


def torch_hub_file(url: str) -> Path:
    """Return the file that `torch.hub.load_state_dict_from_url` keeps."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
