"""From the `attack` section of a config to a function that has been tried."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from src.attacks import NORMS
from src.config.attack_file import AttackFile
from src.config.settings import GIVEN, Norm, TargetLabelRule
from src.evaluation import Attack, accepted
from src.utils.checks import check_choice, check_name, first_line

_CLASSES, _SIDE = 10, 64  # of the images on which an attack is tried


@dataclass(frozen=True)
class AttackConfig:
    """An attack as a config describes it.

    Attributes:
        name: That of its file.
        settings: All keys of the section, resolved.
        label: For runs, tables and headings: the name, and the settings that are not the file's.
    """

    name: str
    settings: Mapping[str, Any]
    label: str

    def stored(self) -> dict[str, Any]:
        """Return the section as tables and sets keep it, with the label."""
        return {**self.settings, "label": self.label}

    @property
    def aim(self) -> TargetLabelRule | None:
        """How the classes to reach are chosen; None for an untargeted attack."""
        aim: TargetLabelRule | None = self.settings.get("target_label")
        return aim

    @property
    def norm(self) -> Norm:
        """The norm of the budgets."""
        norm: Norm = self.settings.get("norm", "linf")
        return norm

    @cached_property
    def function(self) -> Attack:
        """The attack as a function of (model, images, labels, eps).

        Raises:
            ValueError: Its function cannot be imported, or what it is made of cannot be built.
        """
        words = {k: v for k, v in self.settings.items() if k not in ("name", "target_label")}
        try:
            function: Attack = instantiate(words, _partial_=True, _convert_="all")
        except InstantiationException as error:
            inner = error.__cause__
            if isinstance(inner, ValueError):  # of a transform that the section builds
                raise ValueError(f"attack={self.name}: {first_line(inner)}") from error
            raise ValueError(
                f"attack={self.name}: its _target_ {words.get('_target_')} cannot be imported: "
                f"{first_line(error)}"
            ) from error
        _check_keys(self.name, function)
        return function


def _check_keys(name: str, function: Any) -> None:
    """Refuse keys that the function of an attack does not take."""
    parameters = inspect.signature(function.func).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return  # the attack itself knows, and is tried
    unknown = [key for key in function.keywords if key not in parameters]
    if unknown:
        raise ValueError(f"attack={name}: it has no key {_keys(unknown)}.")


def _keys(names: Sequence[str]) -> str:
    return ", ".join(f"attack.{name}" for name in names)


def read_attack(
    settings: Mapping[str, Any], budgets: Sequence[float], file: AttackFile | None = None
) -> AttackConfig:
    """Check an attack's section and return it.

    The attack is run once on two tiny images, so that its own checks speak before any work.

    Args:
        settings: The resolved section.
        budgets: In units of 1/255.
        file: What the section was read from; None where that is not known.

    Raises:
        ValueError: The section makes no attack, or another one than its file.
    """
    name = str(settings.get("name"))
    check_name("attack.name", name)
    attack = AttackConfig(name, settings, name if file is None else file.label(settings))
    check_choice("attack.target_label", attack.aim, (None, *get_args(TargetLabelRule)))
    check_choice("attack.norm", attack.norm, NORMS)
    reserved = [word for word in GIVEN if word in settings]
    if reserved:
        raise ValueError(
            f"{_keys(reserved)} is filled in by the program: attack.target_label makes an attack "
            "targeted, seed decides what it draws, and trainer.gradient_batch bounds its batches."
        )
    if file is not None:
        file.check(settings)
    if attack.aim is not None and "targeted" not in accepted(attack.function):
        raise ValueError(
            f"attack={attack.name} cannot aim for attack.target_label={attack.aim}: its function "
            "has no argument `targeted`."
        )
    _try(attack, budgets)
    return attack


def _try(attack: AttackConfig, budgets: Sequence[float]) -> None:
    images = torch.full((2, 3, _SIDE, _SIDE), 0.5)
    labels = torch.tensor([0, 1])
    given = {"targeted": attack.aim is not None, "seeds": labels, "pool": (images, labels)}
    words = {key: given.get(key) for key in accepted(attack.function)}
    try:
        with torch.random.fork_rng(devices=[]):
            linear = nn.Linear(images[0].numel(), _CLASSES)
            model = nn.Sequential(nn.Flatten(), linear).requires_grad_(False)
            result = attack.function(model, images, labels, torch.tensor(budgets) / 255, **words)
    except Exception as error:  # an attack of the user's own may raise anything
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        reason = f"it has no key {_keys([unknown[1]])}." if unknown else first_line(error)
        raise ValueError(f"attack={attack.name}: {reason}") from error
    expected = (len(budgets), *images.shape)
    if not isinstance(result, torch.Tensor) or result.shape != expected:
        shape = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise ValueError(
            f"attack={attack.name} returns {shape} for {len(budgets)} budgets and images of "
            f"shape {tuple(images.shape)}; it must return a tensor {expected}."
        )
