"""The backward rules, and gradients to compare theirs with."""

from copy import deepcopy
from functools import cache

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from src.attacks import (
    BackwardPropagation,
    LinearPropagation,
    SkipGradient,
    TokenGradient,
)
from src.utils.call_target import call_target
from src.utils.hydra_versions import VERSION_BASE

from .conftest import CONF

RULES = {
    **{"sgm": SkipGradient(), "bpa": BackwardPropagation(), "tgr": TokenGradient()},
    "linbp": LinearPropagation(),
}
EPS = torch.tensor([1, 8, 32], dtype=torch.float64) / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(model: nn.Module, images: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient of the weighted sum of a model's outputs."""
    x = images.detach().requires_grad_()
    return torch.autograd.grad((model(x) * weights).sum(), x)[0]


def built(name: str) -> nn.Module:
    """Return a network of the catalogue for 32 pixels or its input size, without weights."""
    return deepcopy(_built(name))


@cache
def _built(name: str) -> nn.Module:
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = OmegaConf.to_container(compose(f"model/{name}"), resolve=True)
    section = config["model"][name]
    known = {"num_classes": 10, "image_size": section["input_size"] or 32, "pretrained": False}
    filled = {key: value for key, value in known.items() if key in section["network"]}
    torch.manual_seed(0)
    return call_target({**section["network"], **filled}).eval()
