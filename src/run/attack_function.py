"""Attack functions of a config, their keywords checked by signature and annotations."""

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from src.config.attack_settings import AttackSettings
from src.config.errors import refusal
from src.config.label import function_of
from src.config.sections import GIVEN
from src.images.attacker import Attack
from src.utils.refusals import first_line, suggestion

log = logging.getLogger(__name__)


def attack_function(attack: AttackSettings) -> Attack:
    """Return the function that an attack's settings name, with their keyword arguments bound."""
    keys = {key: value for key, value in attack.settings.items() if key != "target_label"}
    try:
        call: Any = instantiate(keys, _partial_=True, _convert_="all")
    except InstantiationException as error:
        cause = f" {first_line(error.__cause__)}" if error.__cause__ else ""
        line = cause if isinstance(error.__cause__, ValueError) else f" {first_line(error)}{cause}"
        raise ValueError(f"attack={attack.name}:{line}") from error
    if not isinstance(call, partial):
        raise ValueError(f"attack={attack.name} names no function as its _target_.")
    call = partial(function_of(keys), **call.keywords)
    parameters = _check_keywords(attack, call)
    if unchecked := [key for key in call.keywords if key not in parameters]:
        _log_unchecked(attack.name, ", ".join(unchecked))
    return partial(
        call.func, **{key: _convert(key, value, parameters) for key, value in call.keywords.items()}
    )


def _check_keywords(attack: AttackSettings, call: Any) -> dict[str, inspect.Parameter]:
    """Refuse keywords that a function does not take; return its parameters by name."""
    every = [*_signature(call.func).parameters.values()][4:]  # after model, images, labels, eps
    named = {each.name: each for each in every if each.kind is not each.VAR_KEYWORD}
    settings = [name for name in named if name not in GIVEN]
    any_key, keywords = len(named) < len(every), call.keywords
    if attack.target_label is not None and not (any_key or "targeted" in named):
        raise ValueError(
            f"attack={attack.name} cannot take attack.target_label={attack.target_label}: its "
            "function has no argument `targeted`."
        )
    for key in keywords:
        if key in GIVEN:
            raise ValueError(
                f"attack.{key} is filled in by the program: attack.target_label makes an attack "
                "targeted, seed decides what it draws, trainer.gradient_batch bounds its batches."
            )
        if key not in named and not any_key:
            raise ValueError(
                f"attack.{key}: attack={attack.name} has no such setting; its settings are "
                f"{', '.join(settings) or 'none'}.{suggestion(key, settings)}"
            )
    for name in settings:
        if named[name].default is inspect.Parameter.empty and name not in keywords:
            raise ValueError(f"attack.{name}: attack={attack.name} needs this setting.")
    if "norm" in settings and "norm" not in keywords and named["norm"].default != attack.norm:
        norm = named["norm"].default
        raise ValueError(f"attack.norm: attack={attack.name} needs norm: {norm} in its file.")
    return named


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function, eval_str=True)
    except NameError:  # of an annotation whose type is imported for type checkers alone
        return inspect.signature(function)


def _convert(key: str, value: Any, named: Mapping[str, inspect.Parameter]) -> Any:
    """Return a keyword's value as the type of its annotation, if that is one for pydantic."""
    kind = named[key].annotation if key in named else inspect.Parameter.empty
    if kind is inspect.Parameter.empty or isinstance(kind, str):
        return value
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        adapter = TypeAdapter(kind, config=config)
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except TypeError:  # an object that the section builds
            return adapter.validate_python(value)
    except PydanticUserError:
        return value
    except ValidationError as error:
        raise ValueError(refusal(error, within=f"attack.{key}")) from error


@cache
def _log_unchecked(name: str, keys: str) -> None:
    log.warning("attack=%s takes any keyword; unchecked: %s", name, keys)
