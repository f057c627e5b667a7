"""Jobs of `experiment=paper`: an attack, its base at equal cost, and what reviewers ask."""

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from ..config.errors import REFUSALS, explain
from ..config.fields import find_preset
from ..config.sections import PROGRAM_KEYWORDS
from ..report.beside import NEAR, cost_of
from ..tracking import Tracker
from ..utils.model_names import NO_DEFENCE, ModelRef
from .check_job import checked
from .job import finish_job, prepare_job
from .models import ModelPool
from .stages import Planned

_SWITCHES = {"warm_up_scale": "warm_up_steps", "start_radius": "random_start"}
"""Settings that have no effect while another one is off."""
Plan = Callable[[Sequence[str]], Planned]
"""Function that checks the job of some overrides."""


def paper_jobs(
    words: Sequence[Sequence[str]], plan: Plan, models: Callable[[], Iterable[str]]
) -> list[list[str]]:
    """Return the overrides of the jobs of a paper, the same question from each source in turn.

    Args:
        words: Overrides of the attack's job from each source.
        plan: Checks a job.
        models: Returns the names of models, among which are trainings of the sources.

    Raises:
        ValueError: A job is invalid; more than the source changes; the attack is its base or
            fitted; its source has a defence; no target is another network than the source; or the
            base cannot be used, or not at the cost of the attack.
    """
    planned = [plan(line) for line in words]
    settings, attack = [job.settings for job in planned], planned[0].attack
    swept = {tuple(word for word in line if not word.startswith("source=")) for line in words}
    base, defence = settings[0].base, settings[0].source_defence
    ensemble = len(settings) > 1 and any(len(job.source) > 1 for job in settings)
    alone = [{*map(_network, job.targets)} <= {*map(_network, job.source)} for job in settings]
    is_fitted = attack.is_fitted
    reasons = {
        "experiment=paper compares one attack with one base: sweep source alone.": len(swept) > 1,
        f"base={base} is the attack. Name another attack as base.": attack.name == base,
        "experiment=paper compares from single sources, or from one ensemble.": ensemble,
        f"attack={attack.name} is fitted: experiment=paper needs a cost per image.": is_fitted,
        "experiment=paper sets source_defence: leave it out.": defence != NO_DEFENCE,
        "experiment=paper needs a target of another network than the source.": any(alone),
    }
    for text in (text for text, holds in reasons.items() if holds):
        raise ValueError(text)
    jobs = (_from_source(*pair, plan, models()) for pair in zip(words, planned, strict=True))
    return [job for alike in zip_longest(*jobs) for job in alike if job]


def _from_source(
    words: Sequence[str], planned: Planned, plan: Plan, models: Iterable[str]
) -> Iterator[list[str]]:
    settings, budget = planned.settings, planned.settings.reference
    reference = [f"epsilon.grid=[{budget}]", f"epsilon.reference={budget}"]
    undefended = [*reference, "defences=none"]
    tuning = len(read_facts(find_preset(settings.beside))["tuning"]) if settings.beside else 0
    few = [*undefended, f"n_images={min(tuning, settings.n_images or tuning)}"]
    if tuning:
        yield _changed(words, "stated", *few)
    questions = {"primary": [*reference, "controls=true", "diagnostics.tables=[filtered]"]}
    if len(settings.budgets) > 1:
        questions["budgets"] = ["defences=none"]
    for defence in settings.defences[-1:]:
        questions["known"] = [*reference, f"source_defence={defence}"]
    trainings = [name for name in models if settings.source_name == _network(name) != name]
    for training in [settings.source_name, *trainings] if trainings else ():
        questions[f"from {training}"] = [*undefended, f"source={training}"]
    base = _base(words, planned, plan)
    for question, changed in questions.items():
        yield _changed(words, question, *changed)
        yield _changed(base, question, *changed)
    # The steps that this key has set are stated instead.
    plain = [word for word in words if not word.startswith("attack.gradients=")]
    keys = settings.attack.settings
    fixed = {key: keys[key] for key in ("steps",) if keys.get(key) is not None}
    for key, number, stated in _changes(planned.attack.function) if tuning else ():
        typed = (f"attack.{name}={value}" for name, value in {**fixed, key: number}.items())
        yield _changed(plain, f"{key}={number} (stated: {stated})", *few, *typed)


def _base(words: Sequence[str], planned: Planned, plan: Plan) -> list[str]:
    """Return the overrides of the base's job at the attack's cost; name `base` if it is refused."""
    attack, name, cost = planned.settings.attack, str(planned.settings.base), _cost(planned)
    base = [word for word in words if not word.lstrip("+~").startswith(("attack=", "attack."))]
    base += [f"attack={name}", f"attack.norm={attack.norm}"]
    base += [f"attack.target_label={attack.target_label}"] * (attack.target_label is not None)
    try:
        if abs(_cost(plan(base)) - cost) > NEAR * cost > 0:
            base.append(f"attack.gradients={cost}")
            plan(base)
    except REFUSALS as error:
        text = explain(error).replace(f"attack={name}", name)
        raise ValueError(f"base={name}: {text}") from error
    return base


def _network(name: str) -> str:
    return ModelRef((name,)).architecture


def _changes(attack: Any) -> Iterator[tuple[str, float, float]]:
    """Yield each number of an attack at half and twice its stated value, if the attack allows it.

    A setting that has no effect is left out.
    """
    parameters = signature(attack).parameters
    inert = getattr(getattr(attack, "func", attack), "of_object", False)  # keywords of an object
    values = {key: face.default for key, face in [*parameters.items()][4:]}  # those after `eps`
    for key in (key for key in values if key not in (*PROGRAM_KEYWORDS, *BUDGETS)):
        unused = inert or not values.get(_SWITCHES.get(key, ""), True)
        if type(values[key]) not in (int, float) or unused:
            continue
        stated = checked(partial(attack, **{key: values[key]}), parameters).keywords[key]
        for number in sorted({type(stated)(stated / 2), 2 * stated}):  # a whole number stays one
            with suppress(ValueError):
                checked(partial(attack, **{key: number}), parameters)
                yield from [(key, number, stated)] * (number not in (0, stated))


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
        finished = finish_job(*prepare_job(job, ModelPool(), Tracker(), Rows(Path(cache))), None)
    assert finished is not None
    return cost_of(finished)
