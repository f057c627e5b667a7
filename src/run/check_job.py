"""Checks of a job: all refusals of its settings before anything runs."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from ..attacks import adapt
from ..cache.keys import code_keys
from ..config.attack_settings import AttackSettings, function_of
from ..config.command import BUDGETS, SET_BUDGETS
from ..config.errors import refusal
from ..config.fields import check_among
from ..config.sections import PROGRAM_KEYWORDS, EpsilonSettings, reference_budget
from ..config.settings import Settings
from ..defences import Defence
from ..images.attacker import Attack, accepted
from ..images.saved import UNKNOWN, SavedImages
from ..images.storage import TOLERANCE_255
from ..measure.own_measurement import own_measurements
from ..measure.registry import DIAGNOSTICS
from ..utils.call_target import call_target, check_target
from ..utils.devices import computes_in_tf32, device_of
from ..utils.model_names import NO_DEFENCE, ModelRef
from ..utils.refusals import suggestion, warn_once
from .data import DataSets
from .stages import Planned


def check_job(settings: Settings, sets: DataSets) -> Planned:
    """Check a job; return its settings, attack function, defences and saved set.

    A sweep checks all of its jobs before the first one runs. Another process that runs a job checks
    it again, because functions cannot be sent between processes.

    Raises:
        ValueError: The settings are invalid.
    """
    _check_precision(settings)
    for name in settings.models:
        check_target(f"model.{name}.network", settings.model[name].network)
    defences = {name: _build_defence(settings, name) for name in settings.defence}
    _check_tables(settings.diagnostics.tables)
    _check_budgets_of_files(settings)
    code_keys(settings)  # reads the code now: files may be edited later
    crafted, saved = settings.attack.kind == "crafted", settings.attack.saved
    attack = attack_function(settings.attack) if crafted else None
    measurements = own_measurements(settings)
    images = None if saved is None else sets.open_saved(saved)
    settings = settings if images is None else _with_set(settings, images)
    planned = Planned(settings, attack, defences, images, measurements=measurements)
    _check_diagnostics(planned)
    return planned


def _check_precision(settings: Settings) -> None:
    """Refuse TF32 on a device that does not have it."""
    trainer = settings.trainer
    device = device_of(trainer.accelerator)
    for key in ("precision", "attack_precision"):
        if getattr(trainer, key) == "tf32" and not computes_in_tf32(device):
            raise ValueError(
                f"trainer.{key}=tf32: this device ({device}) has no TF32. Use 32-true, or an "
                "NVIDIA GPU from A100 on."
            )


def _check_diagnostics(planned: Planned) -> None:
    """Refuse diagnostics that the attack cannot give, or for whose budgets it is not fitted."""
    part, diagnostics = planned.fitted, planned.settings.diagnostics
    if planned.attack and diagnostics.iterations and "iterates" not in accepted(planned.attack):
        raise ValueError(
            f"diagnostics.iterations: attack={planned.settings.attack.name} has no keyword "
            "`iterates`. The attacks of src.attacks have it."
        )
    if part is None or part.one_state:
        return
    for key in ("bisection", "iterations"):
        if value := getattr(diagnostics, key):
            raise ValueError(
                f"diagnostics.{key}={value}: attack={planned.settings.attack.name} is fitted only "
                "for the budgets in epsilon.grid. Leave the diagnostic out."
            )


def _check_tables(names: Sequence[str]) -> None:
    known = [*{its.name: "" for its in DIAGNOSTICS if its.switched_by == "tables"}]
    for name in names:
        if name not in (*known, "all"):
            listed = f"Use all, or any of {', '.join(known)}.{suggestion(name, known)}"
            raise ValueError(f"diagnostics.tables={name}: no such table. {listed}")


def _check_budgets_of_files(settings: Settings) -> None:
    """Refuse L-infinity budgets below 1/255 if images are saved: the files would be clean images.

    An L2 budget bounds the root mean square of the changes. Below 1/255 some grey values of an
    8-bit image may still change, so L2 budgets are not refused.
    """
    small = [f"{eps:g}" for eps in settings.budgets if eps + TOLERANCE_255 < 1]
    if settings.save_adversarial and settings.attack.norm == "linf" and small:
        raise ValueError(
            f"save_adversarial=true: epsilon.grid has {', '.join(small)}, but 8-bit images cannot "
            "change by less than 1/255. Leave out budgets below 1, or set save_adversarial=false."
        )


def _build_defence(settings: Settings, name: str) -> Defence:
    try:
        defence: Defence = call_target(settings.defence[name].call)
    except ValueError as error:
        raise ValueError(f"defence.{name}: {error}") from error
    if not callable(defence):
        raise ValueError(f"defence.{name}: {type(defence).__name__} is not callable.")
    return defence


def _with_set(settings: Settings, saved: SavedImages) -> Settings:
    """Return a job's settings with the attack, budgets and protocol of its saved set.

    Raises:
        ValueError: The set has another source or data set, or lacks what the job needs.
    """
    path = settings.attack.saved.path if settings.attack.saved else ""
    source, dataset = saved.source, saved.dataset
    if settings.source_name and source not in (UNKNOWN, settings.attacked):
        raise ValueError(
            f"source={_describe(settings.attacked)}, but according to {path} its images were "
            f"crafted on {_describe(source)}."
        )
    if settings.dataset.has_loader and dataset not in (UNKNOWN, settings.dataset.name):
        raise ValueError(
            f"dataset={settings.dataset.name}, but according to {path} its images are from "
            f"{dataset}."
        )
    budgets = tuple(sorted(float(eps) for eps in saved.budgets_255))
    reference = settings.epsilon.reference
    reference = reference_budget(budgets) if reference is None else reference
    check_among("epsilon.reference", reference, budgets)
    protocol = settings.protocol or ("joint" if settings.source else "target_correct")
    if protocol in ("joint", "source_correct") and not settings.source:
        raise ValueError(
            f"protocol={protocol} needs the clean predictions of the model that the images were "
            "crafted on. Set source=NAME."
        )
    changes: dict[str, Any] = {
        "attack": saved.attack.model_copy(
            update={"kind": "saved", "saved": settings.attack.saved, "source": source}
        ),
        "protocol": protocol,
        "epsilon": EpsilonSettings.model_construct(grid=budgets, reference=reference),
    }
    if saved.ensemble is not None:
        changes["ensemble"] = saved.ensemble
    if not settings.dataset.has_loader:
        changes["dataset"] = settings.dataset.model_copy(update={"name": dataset})
    return settings.model_copy(update=changes)


def _describe(source: str) -> str:
    model, defence = ModelRef.parse(source).columns
    return model if defence == NO_DEFENCE else f"{model} with source_defence={defence}"


def check_weights(saved: SavedImages, digests: dict[str, str]) -> None:
    """Refuse a model whose weights differ from those of the saved set's source of the same name.

    Otherwise it would count as the white box.
    """
    for name, digest in saved.weights.items():
        if digests.get(name, digest) != digest:
            raise ValueError(
                f"model {name}: its weights differ from those that the images were crafted on. "
                f"Set model.{name}.weights=PATH, or rename this model."
            )


def attack_function(attack: AttackSettings) -> Attack:
    """Return an attack's function as a `partial` with the keyword arguments of its settings.

    Raises:
        ValueError: `_target_` is not a function, a keyword is unknown, missing or invalid, or
            keywords do not go together.
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
    return checked(call, parameters)


def checked(call: Any, parameters: Mapping[str, inspect.Parameter]) -> Any:
    """Return a `partial` with converted keywords; refuse invalid ones, and those in conflict."""
    made = {key: _convert(key, value, parameters) for key, value in call.keywords.items()}
    if check := getattr(call.func, "check", None):
        check({**made})
    return partial(call.func, **made)


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
