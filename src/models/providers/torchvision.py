"""Classifiers of torchvision, such as `resnet50.IMAGENET1K_V2`."""

from torch import nn
from torchvision import models

from src.models.providers.public_model import PublicModel, torch_hub_file
from src.models.weights import WeightFacts


def names() -> list[str]:
    """Return the names of all classifiers' weights; weights without classes are features."""
    return [
        f"{name}.{weights.name}"
        for name in models.list_models(models)
        for weights in models.get_model_weights(name)
        if weights.meta["categories"]
    ]


def find(identifier: str) -> PublicModel:
    """Return a model; its weights are in torch.hub's cache."""
    name, _, tag = identifier.partition(".")
    weights = models.get_model_weights(name)[tag]
    preset, meta = weights.transforms(), weights.meta

    def load(pretrained: bool) -> nn.Module:
        if pretrained:  # allow only tensors: torchvision would unpickle anything
            weights.get_state_dict(check_hash=True, weights_only=True)
        return models.get_model(name, weights=weights if pretrained else None)

    facts = WeightFacts((*meta["categories"],), meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
    section = {"mean": preset.mean, "std": preset.std, "input_size": preset.crop_size[0]}
    return PublicModel(load, weights.url, torch_hub_file(weights.url), section, facts)
