"""The door of a job: its settings are checked, and end here in objects that have their own keys."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..attacks import adapt
from ..cache.keys import attack_parts, clean_parts, code_keys, defence_parts
from ..config.attack_settings import AttackSettings, function_of, stated_about
from ..config.command import BUDGETS, SET_BUDGETS
from ..config.errors import refusal
from ..config.fields import check_among
from ..config.sections import PROGRAM_KEYWORDS, EpsilonSettings, reference_budget
from ..config.settings import Settings
from ..data import Batch, ImageDataset
from ..data.dataset import SizeError
from ..defences import Defence
from ..images.attacker import Attack
from ..images.saved import UNKNOWN, SavedImages
from ..images.storage import AS_SAVED, TOLERANCE_255
from ..measure.attack_cost import AdversarialImages, AttackCost, most_pictures
from ..measure.own_measurement import own_measurements
from ..measure.predictions import Clean, Control, Predictions
from ..measure.protocol import Measurement
from ..measure.registry import TABLES, make_tables
from ..utils.about import About
from ..utils.call_target import call_target, check_target
from ..utils.devices import computes_in_tf32, device_of, named_errors
from ..utils.model_names import NO_DEFENCE, ModelRef
from ..utils.refusals import choose, suggestion, warn_once
from ..utils.vocabulary import CONTROLS
from .data import (
    DataSets,
    check_named,
    mixing_pool,
    open_fit_images,
    open_images,
    target_labels_of,
)
from .stages import JobAttack, JobContext, JobDefence, Planned
from .trainer import for_device, root_device, speed_key


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
    crafted, saved = settings.attack.kind == "crafted", settings.attack.saved
    function = attack_function(settings.attack) if crafted else None
    measurements = own_measurements(settings.measurements)
    images = None if saved is None else sets.open_saved(saved)
    settings = settings if images is None else _with_set(settings, images)
    planned = make_planned(settings, function, defences, images, measurements=measurements)
    return planned


def make_planned(
    settings: Settings,
    function: Attack | None,
    defences: Mapping[str, Defence],
    saved: SavedImages | None = None,
    **others: Any,
) -> Planned:
    """Return a job with the attack and the defences that its settings describe.

    Their code and files are read now: before a sweep, and again when a job is opened.
    """
    attack, trainer, name = settings.attack, settings.trainer, settings.source_defence
    made = {
        key: JobDefence(
            defences[key], section.repeats, partial(defence_parts, section, settings.seed)
        )
        for key, section in settings.defence.items()
    }

    def parts() -> Mapping[str, Any]:
        return attack_parts(
            attack,
            None if saved is None else saved.digest,
            source_defence=[name != NO_DEFENCE and made[name].key, settings.source_draws],
            ensemble=settings.ensemble,
            layers=settings.layers,
            seed=settings.seed,
            gradient_batch=trainer.gradient_batch,
            attack_precision=trainer.attack_precision,
        )

    sections = {"attack": attack.settings}
    sections |= {name: settings.model[name].network for name in settings.models}
    sections |= {f"defence.{name}": section.call for name, section in settings.defence.items()}
    crafting = JobAttack(
        function,
        name=attack.name,
        target_label=attack.target_label,
        mixes=_may_mix(attack),
        draws=settings.source_draws,
        stated=settings.gradients,
        seed=settings.seed,
        precision=trainer.attack_precision,
        augmentation=(settings.training.crop_padding, settings.training.flip),
        make_parts=parts,
    )
    return Planned(settings, crafting, made, code_keys(sections), saved, **others)


def _may_mix(attack: AttackSettings) -> bool:
    """Return True if an attack may use other images of the data set.

    A file that is based on another one inherits its statement. So the statement of an attack's
    function comes first, then that of a file that has no category of this program. Parts that a
    file adds may mix.
    """
    parts = json.dumps([value for key, value in attack.settings.items() if key != "_target_"])
    stated = stated_about(attack.settings)
    if isinstance(stated, About):
        return stated.mixes or '"_target_"' in parts
    return attack.about.mixes or attack.about.category != "own" or '"_target_"' in parts


def open_job(planned: Planned, sets: DataSets) -> tuple[Planned, JobContext]:
    """Open a job's images before any model is trained, and complete its settings for the device.

    Raises:
        ValueError: A file is damaged, or there are too few images.
    """
    settings, attack, pool = planned.settings, planned.attack, None
    defences = {name: defence.function for name, defence in planned.defences.items()}
    now = make_planned(settings, attack.function, defences, planned.saved)  # files may be new
    planned = replace(planned, attack=now.attack, defences=now.defences, code=now.code)
    images = open_images(planned, sets)
    try:
        images.digest()  # reads all files, so a bad one is refused here
    except SizeError as error:
        sides = [side for name in settings.models if (side := settings.model[name].input_size)]
        raise ValueError(f"{error}{f'={max(sides)}' if sides else ''}") from error
    if settings.controls and len(images) < 2:
        text = "it adds the perturbation of another image to each."
        raise ValueError(f"controls=true needs at least 2 images: {text}")
    if attack.function is not None:
        target_labels_of(attack.target_label, images)  # refused before any model is built
        pool = mixing_pool(sets.open(settings, "test", whole=True), settings.dataset.seed)
    fitted_on = open_fit_images(planned, images, sets)
    planned = replace(planned, settings=for_device(settings, len(images)))
    return planned, build_job(planned, images, root_device(settings.trainer), {}, pool, fitted_on)


def build_job(
    planned: Planned,
    images: ImageDataset,
    device: torch.device,
    models: Mapping[str, Any],
    pool: Batch | None = None,
    fit_images: ImageDataset | None = None,
) -> JobContext:
    """Return a job of its plan, images and models; see `JobContext`."""
    settings = planned.settings
    budgets, report, side = settings.budgets, settings.report, images.image_size
    check_named(report.images, images.indices)
    by_class = images.indices[np.argsort(images.labels, kind="stable")]
    count = min(report.examples, len(images), most_pictures(side, len(budgets)))
    examples = [int(by_class[position * len(images) // count]) for position in range(count)]
    size = 4 * 3 * side**2 * len(budgets) * len(images)
    stores_all = settings.save_adversarial or size <= settings.cache.images_mb * 1e6
    storage, trainer = settings.storage or AS_SAVED, settings.trainer
    largest = settings.gradient_batch(device.type, side)
    stored = images.indices if stores_all else [*report.images, *examples]
    measured = _measurements(settings, storage, stored, largest)
    return JobContext(
        images=images,
        diagnosed=images.subset(settings.diagnostics.n_images, settings.dataset.seed),
        pool=pool,
        fit_images=fit_images,
        device=device,
        source=ModelRef.parse(settings.source_name),
        targets=[*map(ModelRef.parse, settings.targets)],
        evaluated=settings.evaluated,
        budgets=budgets,
        reference=settings.reference,
        norm=settings.attack.norm,
        name=settings.job,
        models=models,
        members=settings.source,
        attacked=settings.source_model,
        attack=planned.attack,
        saved=planned.saved,
        defences=planned.defences,
        measurements=[*measured, *planned.measurements],
        max_batch=max(1, largest // settings.source_draws),  # draws share memory
        trainer=trainer,
        arithmetic=clean_parts(device.type, trainer.precision, trainer.fold_batch_norms),
        check=settings.clean_accuracy_check,
        cache_dir=Path(settings.cache.dir),
        rerun=settings.rerun,
        speed_key=speed_key(settings, side),
        named=report.images,
        examples=examples,
        stores_all=stores_all,
        call=planned.call,
        on_first_batch=planned.on_first_batch,
    )


def _measurements(
    settings: Settings, storage: str, stored: Sequence[int] | np.ndarray, max_batch: int
) -> list[Measurement]:
    """Return the program's measurements that a job asks for.

    `stored` are the images whose adversarial versions are stored.
    """
    asked, seed, universal = settings.diagnostics, settings.seed, settings.attack.about.universal
    measured: list[Measurement] = [Clean("clean images")]
    if settings.budgets:
        if settings.attack.kind == "crafted":
            measured += [AttackCost(settings.gradients), AdversarialImages(stored)]
        # The primary format comes first; other tables need the logits of unrounded images.
        formats = dict.fromkeys((storage, *settings.variants))
        measured += [Predictions(name, name == storage) for name in formats]
        if settings.controls:
            measured += [Control(name, storage, seed, universal) for name in CONTROLS]
    return measured + [
        table
        for table in make_tables(settings.reference, seed, max_batch)
        if {table.name, "all"} & {*asked.tables} and (settings.budgets or not table.attacked)
    ]


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


def _check_tables(names: Sequence[str]) -> None:
    for name in names:
        choose("diagnostics.tables", name, ("all", *TABLES))


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
    with named_errors(f"defence.{name}"):
        defence: Defence = call_target(settings.defence[name].call)
        if not callable(defence):
            raise ValueError(f"{type(defence).__name__} is not callable.")
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
    with named_errors(f"attack={attack.name}"):
        call: Any = call_target(keys | {"_partial_": True})
        if not isinstance(call, partial):
            raise ValueError("its _target_ is not a function.")
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
    accepts = [*_signature(call.func).parameters.values()][4:]  # after model, images, labels, eps
    named = {
        parameter.name: parameter
        for parameter in accepts
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    settings = [name for name in named if name not in PROGRAM_KEYWORDS]
    any_key, keywords = len(named) < len(accepts), call.keywords
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
    except Exception:  # an annotation is no code, or uses a type imported for type checkers alone
        return inspect.signature(function)


def _convert(key: str, value: Any, named: Mapping[str, inspect.Parameter]) -> Any:
    """Convert a keyword's value to the type of its annotation, if pydantic knows the type."""
    annotation = named[key].annotation if key in named else inspect.Parameter.empty
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    config = ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    try:
        with catch_warnings(action="error"):  # pydantic warns of what is no type
            adapter = TypeAdapter(annotation, config=config)
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except TypeError:  # an object built from a nested `_target_`
            return adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(refusal(error, within=f"attack.{key}")) from error
    except Exception:  # the annotation is no type that pydantic knows
        return value
