"""Jobs of `experiment=paper`: an attack, its base at equal cost, and what reviewers ask."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from inspect import signature
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..artifacts.card import read_facts
from ..cache.rows import Rows
from ..config.command import BUDGETS
from ..config.fields import find_preset
from ..config.gradient_cost import COPIES
from ..report.beside import cost_of
from ..tracking import Tracker
from ..utils.model_names import NO_DEFENCE, ModelRef
from .check_job import checked
from .job import finish_job, prepare_job
from .models import ModelPool
from .stages import Planned

_SWITCHES = {"warm_up_scale": "warm_up_steps", "start_radius": "random_start"}
"""Settings that have no effect while another one is off."""


def paper_jobs(
    words: Sequence[Sequence[str]], planned: Sequence[Planned], models: Iterable[str]
) -> list[list[str]]:
    """Return the overrides of the jobs of a paper, those of the first comparison first.

    Args:
        words: Overrides of the attack's job from each source.
        planned: These jobs, checked.
        models: Names of models, among which are trainings of the sources.

    Raises:
        ValueError: More than the source changes, the attack is its base or fitted, its source has
            a defence, or no target is another network than the source.
    """
    first = planned[0]
    rest = {tuple(word for word in line if not word.startswith("source=")) for line in words}
    if len(rest) > 1:
        raise ValueError("experiment=paper compares one attack with one base: sweep source alone.")
    if first.settings.attack.name == first.settings.base:
        raise ValueError(f"base={first.settings.base} is the attack. Name another attack as base.")
    if len(planned) > 1 and any(len(each.settings.source) > 1 for each in planned):
        raise ValueError("experiment=paper compares from single sources, or from one ensemble.")
    if first.attack.fitted:
        name = first.settings.attack.name
        raise ValueError(f"attack={name} is fitted: experiment=paper needs a cost per image.")
    if first.settings.source_defence != NO_DEFENCE:
        raise ValueError("experiment=paper sets source_defence: leave it out.")
    for models_of in ((each.settings.targets, each.settings.source) for each in planned):
        targets, sources = ({*map(_network, names)} for names in models_of)
        if targets <= sources:
            raise ValueError("experiment=paper needs a target of another network than the source.")
    jobs = (_from_source(*pair, models) for pair in zip(words, planned, strict=True))
    return [job for alike in zip_longest(*jobs) for job in alike if job]


def _from_source(
    words: Sequence[str], planned: Planned, models: Iterable[str]
) -> Iterator[list[str]]:
    settings, source, cost = planned.settings, planned.settings.source_name, _cost(planned)
    attack, budget = settings.attack, settings.reference
    reference = [f"epsilon.grid=[{budget:g}]", f"epsilon.reference={budget}"]
    trainings = [name for name in models if source == _network(name) != name]
    base = [word for word in words if not word.lstrip("+~").startswith(("attack=", "attack."))]
    base += [f"attack={settings.base}", f"attack.norm={attack.norm}"]
    base += [f"attack.target_label={attack.target_label}"] * (attack.target_label is not None)
    base += [f"attack.gradients={cost}"] * bool(cost)
    questions = {"primary": [*reference, "controls=true", "diagnostics.tables=[filtered]"]}
    if len(settings.budgets) > 1:
        questions["budgets"] = ["defences=none"]
    for defence in settings.defences[-1:]:
        questions["known"] = [*reference, f"source_defence={defence}"]
    for training in [source, *trainings] if trainings else ():
        questions[f"from {training}"] = [*reference, "defences=none", f"source={training}"]
    for question, changed in questions.items():
        yield _changed(words, question, *changed)
        yield _changed(base, question, *changed)
    tuning = len(read_facts(find_preset(settings.beside))["tuning"]) if settings.beside else 0
    few = [*reference, "defences=none", f"n_images={min(tuning, settings.n_images or tuning)}"]
    cut = ("attack.gradients=", "attack.spend=")  # what they have set is stated instead
    plain = [word for word in words if not word.startswith(cut)]
    stated = ((key, attack.settings.get(key)) for key in ("steps", *COPIES))
    fixed = {key: value for key, value in stated if value is not None}
    for key, number in _settings(planned.attack.function) if tuning else ():
        typed = [f"attack.{name}={value}" for name, value in {**fixed, key: number}.items()]
        yield _changed(plain, f"{key}={number}", *few, *typed)


def _network(name: str) -> str:
    return ModelRef((name,)).architecture


def _settings(attack: Any) -> Iterator[tuple[str, float]]:
    """Yield each number of an attack at half and at twice its value, if the attack allows it."""
    parameters = signature(attack).parameters
    if getattr(getattr(attack, "func", attack), "of_object", False):
        return  # a library's object: its keywords change nothing
    for key, value in ((key, parameter.default) for key, parameter in parameters.items()):
        unused = key in _SWITCHES and not parameters[_SWITCHES[key]].default
        if type(value) not in (int, float) or key in BUDGETS or unused:
            continue
        stated = checked(partial(attack, **{key: value}), parameters).keywords[key]
        for number in (type(stated)(stated / 2), 2 * stated):  # a whole number stays one
            with suppress(ValueError):
                checked(partial(attack, **{key: number}), parameters)
                yield from [(key, number)] * (number not in (0, stated))


def _changed(words: Sequence[str], question: str, *changed: str) -> list[str]:
    """Return overrides of a job that answers a question, with some in place of others."""
    keys = [word.partition("=")[0] for word in changed]
    rest = (word for word in words if word.partition("=")[0].lstrip("+") not in keys)
    return [*rest, *changed, f"question='{question}'"]


def _cost(planned: Planned) -> float:
    """Return an attack's gradients per image at one budget, as stated or taken on ten images."""
    settings = planned.settings
    if (stated := settings.gradients(1)) is not None:
        return stated
    epsilon = settings.epsilon.model_copy(update={"grid": (settings.reference,)})
    few = {"n_images": 10, "targets": settings.source, "defences": (), "epsilon": epsilon}
    job = replace(planned, settings=settings.model_copy(update=few))
    with TemporaryDirectory() as cache:
        prepared = prepare_job(job, ModelPool(), Tracker(), Rows(Path(cache)))
        finished = finish_job(*prepared, None)
    assert finished is not None
    return cost_of(finished)
