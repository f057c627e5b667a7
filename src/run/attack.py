"""Attack of a job: its function from the config, tried on two images before the pass."""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from torch import nn

from ..attacks import adapt
from ..config.attack_settings import AttackSettings, function_of
from ..config.command import BUDGETS, SET_BUDGETS
from ..config.errors import refusal
from ..config.sections import PROGRAM_KEYWORDS
from ..defences import AttackedDefence
from ..images.attacker import Attack, Attacker
from ..utils.call_target import call_target
from ..utils.devices import move_states
from ..utils.model_names import NO_DEFENCE
from ..utils.refusals import suggestion, warn_once
from .data import target_labels_of
from .fit import fitted_states
from .stages import JobContext


def attack_function(attack: AttackSettings) -> Attack:
    """Return an attack's function as a `partial` with the keyword arguments of its settings.

    Raises:
        ValueError: `_target_` is not a function, or a keyword is unknown, missing or invalid.
    """
    keys = {key: value for key, value in attack.settings.items() if key != "target_label"}
    try:
        call: Any = call_target(keys | {"_partial_": True})
    except ValueError as error:
        raise ValueError(f"attack={attack.name}: {error}") from error
    if not isinstance(call, partial):
        raise ValueError(f"attack={attack.name}: its _target_ is not a function.")
    call = partial(adapt(function_of(keys)), **call.keywords)
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
            way = f" Its settings: {', '.join(settings) or 'none'}.{suggestion(key, settings)}"
            if key in BUDGETS:
                way = f" {SET_BUDGETS}"
            raise ValueError(f"attack.{key}: attack={attack.name} has no such setting.{way}")
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


def make_attacker(job: JobContext) -> Attacker:
    """Return a job's attack on its source."""
    settings, attack = job.settings, job.settings.attack
    source, pool, fitted = job.models[settings.source_name], job.data.pool, job.planned.fitted
    assert job.planned.attack is not None
    layers = source.as_built if fitted and fitted.as_built else None
    attacker = Attacker(
        _behind_its_defence(job, layers or source.classifier),
        job.planned.attack,
        norm=attack.norm,
        target_label_rule=attack.target_label,
        num_classes=job.images.num_classes,
        data_target_labels=target_labels_of(settings, job.images),
        seed=settings.seed,
        pool=pool and (pool.images, pool.labels),
        max_batch=job.gradient_batch,
        precision=settings.trainer.attack_precision,
        name=attack.name,
    )
    attacker.states = move_states(fitted_states(job, attacker), job.data.device)
    return attacker


def _behind_its_defence(job: JobContext, classifier: nn.Module) -> nn.Module:
    """Return the source behind `source_defence`, as an adaptive attacker sees it."""
    name = job.settings.source_defence
    if name == NO_DEFENCE:
        return classifier
    draws = job.settings.source_draws
    model = AttackedDefence(classifier, job.planned.defences[name], draws, name)
    if draws > model.draws:
        raise ValueError(f"source_draws={draws}: source_defence={name} is not random; set it to 1.")
    return model
