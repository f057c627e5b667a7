"""Models from GitHub repositories with a `hubconf.py`: `OWNER/REPO@COMMIT/ENTRY`."""

import re
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from src.models.providers.public_model import PublicModel
from src.utils.refusals import warn_once

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def names() -> NoReturn:
    """Raise ValueError: GitHub has no list of models."""
    raise ValueError(
        "Models of torch.hub are hub/OWNER/REPO@COMMIT/ENTRY: all 40 digits of a commit, and a "
        "function in its hubconf.py. There is no list of them."
    )


def find(identifier: str) -> PublicModel:
    """Return a model of torch.hub; loading it runs code from a commit on GitHub."""
    match = re.fullmatch(r"([\w.-]+)/([\w.-]+)@([0-9a-f]{40})/(\w+)", identifier)
    owner, name, commit, entry = match.groups() if match else names()
    path = Path(torch.hub.get_dir(), f"{owner}_{name}_{commit}")
    source = f"https://github.com/{owner}/{name}/tree/{commit}"

    def load(pretrained: bool) -> nn.Module:
        if not (pretrained or path.exists()):
            raise FileNotFoundError("a plan downloads nothing")
        warn_once("hub/%s runs code: %s of %s.", identifier, entry, source)
        options: dict[str, Any] = {"trust_repo": True, "skip_validation": True, "verbose": False}
        net: Any = torch.hub.load(
            f"{owner}/{name}:{commit}", entry, **options, pretrained=pretrained
        )
        if not getattr(net, "pretrained_cfg", None):
            warn_once("hub/%s states no mean and std; ImageNet's are taken.", identifier)
            net.pretrained_cfg = _IMAGENET
        return net

    return PublicModel(load, source, path, {})
