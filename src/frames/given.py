"""Modules and images of a call from Python, as a job has them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from src.config.settings import Settings
from src.data import ImageDataset, LabelledImages, to_unit
from src.defences import Defence
from src.evaluation import Attack, for_device
from src.evaluation.configured_attack import attack_function
from src.experiment.models import Model, with_ensemble
from src.experiment.prepared import Job, mixing_pool
from src.models import weights_digest
from src.store.keys import content_key
from src.store.rows import Rows


class Given:
    """Modules and images of a call."""

    def __init__(
        self,
        sources: Mapping[str, nn.Module | Sequence[nn.Module]],
        targets: Mapping[str, nn.Module],
        images: Tensor,
        labels: Tensor,
        target_labels: Tensor | str | None,
        index: Tensor | None,
    ) -> None:
        modules = dict(targets)
        for name, given in sources.items():
            members = [given] if isinstance(given, nn.Module) else list(given)
            for member, module in zip(name.split("+"), members, strict=True):
                if modules.setdefault(member, module) is not module:
                    raise ValueError(f"{member} is one module as a source and another as a target.")
        self.targets = list(targets)
        places = {value.device for each in modules.values() for value in each.state_dict().values()}
        if len(places) > 1:
            raise ValueError(f"The modules are on {len(places)} devices; move them to one.")
        self.device = places.pop() if places else images.device
        self.networks = {name: copy.deepcopy(each).eval() for name, each in modules.items()}
        for network in self.networks.values():
            network.requires_grad_(False)
        levels = _grey_levels(images)
        wanted = target_labels.cpu().numpy() if isinstance(target_labels, Tensor) else None
        numbers = None if index is None else index.cpu().numpy()
        if numbers is not None and (np.diff(numbers) <= 0).any():
            raise ValueError("index must rise, by images.")
        data = levels.permute(0, 2, 3, 1).cpu().numpy(), labels.cpu().numpy()
        labelled = LabelledImages(*data, target_labels=wanted)
        classes = {self._classes(name, levels[:2]) for name in self.networks}
        if len(classes) > 1:
            raise ValueError(f"The modules tell {sorted(classes)} classes apart.")
        self.images = ImageDataset(labelled, num_classes=classes.pop(), numbers=numbers)

    @property
    def trainer(self) -> dict[str, Any]:
        """Settings of the modules' device."""
        kind = {"cuda": "gpu"}.get(self.device.type, self.device.type)
        return {"accelerator": kind, "devices": [self.device.index or 0] if kind == "gpu" else 1}

    def config(self, source: str) -> dict[str, Any]:
        """Return the config's keys of a source and the targets."""
        names = dict.fromkeys((*source.split("+"), *self.targets))
        model = {
            name: {
                "network": {"name": name_of(self.networks[name])},
                "weights": "included",
                "feature_layer": getattr(self.networks[name], "feature_layer", None),
            }
            for name in names
        }
        return {"source": source.split("+"), "targets": self.targets, "model": model}

    def job(
        self,
        settings: Settings,
        attack: Attack | None,
        defences: Mapping[str, Defence],
        rows: Rows,
    ) -> Job:
        """Return the job of some settings."""
        trainer = for_device(settings.trainer, self.device.type)
        models = {}
        for name in settings.models:
            network, digest = self.networks[name], weights_digest(self.networks[name])
            models[name] = Model(
                network, digest, content_key(name_of(network), repr(network), digest)
            )
        settings = settings.model_copy(update={"trainer": trainer})
        return Job(
            settings,
            saved=None,
            images=self.images,
            diagnosed=self.images,
            pool=mixing_pool(self.images, settings.seed),
            models=with_ensemble(settings, models),
            device=self.device.type,
            rows=rows,
            attack=attack or attack_function(settings.attack),
            defences=defences,
        )

    def _classes(self, name: str, levels: Tensor) -> int:
        """Return the number of a module's classes, by its logits of two images."""
        with torch.no_grad():
            logits = self.networks[name](to_unit(levels).to(self.device))
        if not isinstance(logits, Tensor) or logits.shape[:-1] != levels.shape[:1]:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"{name} must return logits of shape (N, C), not {got}.")
        return int(logits.shape[1])


def name_of(given: Any) -> str:
    """Return the module and name of a function, or of an object's class."""
    given = getattr(given, "func", given)
    named = given if hasattr(given, "__qualname__") else type(given)
    return f"{named.__module__}.{named.__qualname__}"


def _grey_levels(images: Tensor) -> Tensor:
    """Return images as uint8."""
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be of shape (N, 3, H, H), not {tuple(images.shape)}.")
    if images.dtype == torch.uint8:
        return images
    levels = (images * 255).round()
    if not ((images * 255 - levels).abs() < 0.01).all() or not (
        0 <= levels.min() <= levels.max() <= 255
    ):
        raise ValueError(
            "images must be uint8, or in [0, 1] and multiples of 1/255, as files hold them: "
            "(255 * images).round().clamp(0, 255).to(torch.uint8)."
        )
    return levels.to(torch.uint8)
