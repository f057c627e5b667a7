"""Public models, named `provider/identifier`."""

from typing import Any

import timm


def section_of(name: str) -> dict[str, Any]:
    """Return the keys of a public model, as a file of `conf/model/` has them."""
    provider, _, identifier = name.partition("/")
    network: dict[str, Any] = {"_target_": "timm.create_model", "model_name": identifier}
    if provider == "torchvision":
        architecture, _, tag = identifier.partition(".")
        network = {"_target_": "torchvision.models.get_model", "name": architecture, "weights": tag}
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        side = 299 if architecture == "inception_v3" else 224
        keys = {"mean": mean, "std": std, "input_size": side}
    elif provider == "timm" and identifier in timm.list_pretrained():
        config = timm.get_pretrained_cfg(identifier)
        network["pretrained"] = True
        keys = {"input_size": config.input_size[-1]} if config else {}
    else:
        raise ValueError(f"{name} is not among the public models: timm/NAME, torchvision/NAME.TAG.")
    return {"network": network, "weights": "included", **keys}
