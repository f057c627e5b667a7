"""Attack functions made from their settings, and tried once."""

import inspect
from collections.abc import Iterable, Sequence
from functools import lru_cache
from textwrap import shorten
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pydantic import ValidationError
from torch import nn

from src.config.errors import refusal
from src.config.settings import GIVEN, AttackSettings
from src.data import Batch, to_unit
from src.evaluation.attacker import Attack, Attacker, accepted

_CLASSES, _SIDE = 10, 64  # number of classes and image side on which an attack is tried


def attack_function(attack: AttackSettings) -> Attack:
    """Return the function that an attack's settings name, with their keyword arguments bound."""
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
        reason = (
            f"its _target_ {words.get('_target_')} cannot be imported: {shorten(str(error), 300)}"
        )
        if isinstance(error.__cause__, ValidationError):  # of a transform that the section builds
            reason = refusal(error.__cause__, within="attack")
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


def try_attack(attack: AttackSettings, budgets: Sequence[float]) -> int:
    """Run an attack once on two tiny images, so that its own checks speak before any work.

    Returns:
        Number of gradients that an image takes at all `budgets`, in units of 1/255.
    """
    return _tried(attack.model_dump_json(), tuple(budgets))


@lru_cache(maxsize=64)  # before a sweep and in its jobs
def _tried(section: str, budgets: tuple[float, ...]) -> int:
    attack = AttackSettings.model_validate_json(section)
    levels = torch.full((2, 3, _SIDE, _SIDE), 128, dtype=torch.uint8)
    batch = Batch(levels, torch.tensor([0, 1]), torch.tensor([0, 1]))
    with torch.random.fork_rng(devices=[]):
        linear = nn.Linear(levels[0].numel(), _CLASSES)
        attacker = Attacker(
            nn.Sequential(nn.Flatten(), linear).requires_grad_(False),
            attack_function(attack),
            budgets,
            norm=attack.norm,
            target_label_rule=None if attack.target_label is None else "next",
            num_classes=_CLASSES,
            pool=(levels, batch.labels),
            name=attack.name,
        )
        try:
            counts = attacker(to_unit(levels), batch).counts
        except ValidationError as error:  # of the settings of this program's attacks
            raise ValueError(f"attack={attack.name}: {refusal(error, within='attack')}") from error
    return counts[0] // len(levels)


forget_trials = _tried.cache_clear
"""Reset of the cached trials before a new command: the attacks' code may have changed."""


def _keys(names: Iterable[str]) -> str:
    return ", ".join(f"attack.{name}" for name in names)
