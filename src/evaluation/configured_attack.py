"""From the settings of an attack to a function that has been tried."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pydantic import ValidationError
from torch import nn

from src.config.errors import refusal
from src.config.settings import GIVEN, AttackSettings
from src.evaluation.attacker import Attack, accepted
from src.utils.checks import first_line

_CLASSES, _SIDE = 10, 64  # of the images on which an attack is tried


def attack_function(attack: AttackSettings) -> Attack:
    """Return the attack that some settings name, with their keyword arguments bound.

    Raises:
        ValueError: It cannot be imported or built, or lacks one of the arguments.
    """
    reserved = [word for word in GIVEN if word in attack.settings]
    if reserved:
        raise ValueError(
            f"{_keys(reserved)} is filled in by the program: attack.target_label makes an attack "
            "targeted, seed decides what it draws, and trainer.gradient_batch bounds its batches."
        )
    words = {k: v for k, v in attack.settings.items() if k not in ("name", "target_label")}
    if not words.get("_target_"):
        raise ValueError(f"attack={attack.name} names no function as its _target_.")
    try:
        function: Any = instantiate(words, _partial_=True, _convert_="all")
    except InstantiationException as error:
        reason = f"its _target_ {words.get('_target_')} cannot be imported: {first_line(error)}"
        if isinstance(error.__cause__, ValidationError):  # of a transform that the section builds
            reason = _reason(error.__cause__)
        raise ValueError(f"attack={attack.name}: {reason}") from error
    parameters = inspect.signature(function.func).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
        unknown = [key for key in function.keywords if key not in parameters]
        if unknown:
            raise ValueError(f"attack={attack.name}: it has no key {_keys(unknown)}.")
    if attack.target_label is not None and "targeted" not in accepted(function):
        raise ValueError(
            f"attack={attack.name} cannot take attack.target_label={attack.target_label}: its "
            "function has no argument `targeted`."
        )
    return function


def try_attack(attack: AttackSettings, budgets: Sequence[float]) -> None:
    """Run an attack once on two tiny images, so that its own checks speak before any work.

    Args:
        attack: Its settings.
        budgets: In units of 1/255.

    Raises:
        ValueError: It fails, or returns something else than images for every budget.
    """
    function = attack_function(attack)
    images = torch.full((2, 3, _SIDE, _SIDE), 0.5)
    labels = torch.tensor([0, 1])
    given = {"targeted": attack.target_label is not None, "seeds": labels, "pool": (images, labels)}
    words = {key: given.get(key) for key in accepted(function)}
    try:
        with torch.random.fork_rng(devices=[]):
            linear = nn.Linear(images[0].numel(), _CLASSES)
            model = nn.Sequential(nn.Flatten(), linear).requires_grad_(False)
            result = function(model, images, labels, torch.tensor(budgets) / 255, **words)
    except Exception as error:  # an attack of the user's own may raise anything
        raise ValueError(f"attack={attack.name}: {_reason(error)}") from error
    expected = (len(budgets), *images.shape)
    if not isinstance(result, torch.Tensor) or result.shape != expected:
        shape = tuple(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        raise ValueError(
            f"attack={attack.name} returns {shape} for {len(budgets)} budgets and images of "
            f"shape {tuple(images.shape)}; it must return a tensor {expected}."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return refusal(error, within="attack")
    return first_line(error)


def _keys(names: Iterable[str]) -> str:
    return ", ".join(f"attack.{name}" for name in names)
