"""Models of timm, such as `resnet50.a1_in1k`."""

from pathlib import Path
from typing import Any

import timm
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from torch import nn

from src.models.providers.public_model import PublicModel, torch_hub_file


def names() -> list[str]:
    """Return the names of all pretrained weights."""
    return timm.list_pretrained()


def find(identifier: str) -> PublicModel:
    """Return a model; its weights are in Hugging Face's cache, or for a few in torch.hub's."""
    stated: Any = timm.get_pretrained_cfg(identifier)
    source, path = stated.url, torch_hub_file(stated.url or "")
    if repository := stated.hf_hub_id:
        source = f"https://huggingface.co/{repository}"
        files = ("model.safetensors", "pytorch_model.bin")  # in timm's order
        folder = f"models--{repository.replace('/', '--')}"
        path = Path(constants.HF_HUB_CACHE, folder, "snapshots", "COMMIT", files[0])
        paths = [try_to_load_from_cache(repository, file) for file in files]
        path = next((Path(file) for file in paths if isinstance(file, str)), path)

    def load(pretrained: bool) -> nn.Module:
        if pretrained and repository and not path.exists():
            HfApi().model_info(repository, timeout=10)  # fails at once, downloads after a minute
        return timm.create_model(identifier, pretrained=pretrained)

    section = {"mean": list(stated.mean), "std": list(stated.std)}
    return PublicModel(load, source, path, section | {"input_size": stated.input_size[-1]})
