"""Attack functions from the config, with keywords checked against signature and annotations."""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from ..config.attack_settings import AttackSettings
from ..config.errors import refusal
from ..config.label import function_of
from ..config.sections import PROGRAM_KEYWORDS
from ..images.attacker import Attack
from ..utils.package import importable_name, rename_targets
from ..utils.refusals import first_line, suggestion, warn_once


def attack_function(attack: AttackSettings) -> Attack:
    """Return an attack's function as a `partial` with the keyword arguments of its settings.

    Raises:
        ValueError: `_target_` is not a function, or a keyword is unknown, missing or invalid.
    """
    keys = {key: value for key, value in attack.settings.items() if key != "target_label"}
    try:
        located = rename_targets(keys, importable_name)
        call: Any = instantiate(located, _partial_=True, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, ImportError):  # its reason is in the further lines
            reason = " ".join(str(error.__cause__).split())
            raise ValueError(f"attack={attack.name}: {reason}") from error
        cause = f" {first_line(error.__cause__)}" if error.__cause__ else ""
        line = cause if isinstance(error.__cause__, ValueError) else f" {first_line(error)}{cause}"
        raise ValueError(f"attack={attack.name}:{line}") from error
    if not isinstance(call, partial):
        raise ValueError(f"attack={attack.name}: its _target_ is not a function.")
    call = partial(function_of(keys), **call.keywords)
    parameters = _check_keywords(attack, call)
    if unchecked := [key for key in call.keywords if key not in parameters]:
        text = "attack=%s takes any keyword; unchecked: %s"
        warn_once(text, attack.name, ", ".join(unchecked))
    return partial(
        call.func, **{key: _convert(key, value, parameters) for key, value in call.keywords.items()}
    )


def _check_keywords(attack: AttackSettings, call: Any) -> dict[str, inspect.Parameter]:
    """Return the function's parameters by name; refuse keywords that it does not accept."""
    every = [*_signature(call.func).parameters.values()][4:]  # after model, images, labels, eps
    named = {
        parameter.name: parameter
        for parameter in every
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    settings = [name for name in named if name not in PROGRAM_KEYWORDS]
    any_key, keywords = len(named) < len(every), call.keywords
    if attack.target_label is not None and not (any_key or "targeted" in named):
        raise ValueError(
            f"attack={attack.name} cannot take attack.target_label={attack.target_label}: its "
            "function has no argument `targeted`."
        )
    for key in keywords:
        if key in PROGRAM_KEYWORDS:
            raise ValueError(
                f"attack.{key} is set by the program. Use attack.target_label for a targeted "
                "attack, seed for random numbers, trainer.gradient_batch for the batch size."
            )
        if key not in named and not any_key:
            raise ValueError(
                f"attack.{key}: attack={attack.name} has no such setting. Its settings: "
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
    except NameError:  # an annotation uses a type that is imported only for type checkers
        return inspect.signature(function)


def _convert(key: str, value: Any, named: Mapping[str, inspect.Parameter]) -> Any:
    """Convert a keyword's value to the type of its annotation, if pydantic knows the type."""
    annotation = named[key].annotation if key in named else inspect.Parameter.empty
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        adapter = TypeAdapter(annotation, config=config)
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except TypeError:  # an object built from a nested `_target_`
            return adapter.validate_python(value)
    except PydanticUserError:
        return value
    except ValidationError as error:
        raise ValueError(refusal(error, within=f"attack.{key}")) from error
