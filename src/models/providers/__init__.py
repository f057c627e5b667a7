"""Public models, named `provider/identifier`."""

from typing import Any

import timm


def section_of(name: str) -> dict[str, Any]:
    """Return the keys of a public model, as a file of `conf/model/` has them."""
    provider, _, identifier = name.partition("/")
    if provider != "timm" or identifier not in timm.list_pretrained():
        raise ValueError(f"{name} is not among the public models: timm/IDENTIFIER.")
    size = timm.create_model(identifier).pretrained_cfg["input_size"][-1]
    network = {"_target_": "timm.create_model", "model_name": identifier, "pretrained": True}
    return {"network": network, "input_size": size, "weights": "included"}
