"""Jobs of `experiment=paper`: an attack, its base at equal cost, and what reviewers ask."""

from collections.abc import Iterator, Sequence
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
from ..config.resolvers import CONF
from ..report.beside import cost_of
from ..tracking import Tracker
from .check_job import checked
from .job import finish_job, prepare_job
from .models import ModelPool
from .stages import Planned

_SWITCHES = {"warm_up_scale": "warm_up_steps", "start_radius": "random_start"}
"""Settings that have no effect while another one is off."""


def paper_jobs(words: Sequence[Sequence[str]], planned: Sequence[Planned]) -> list[list[str]]:
    """Return the overrides of the jobs of a paper, those of the first comparison first.

    Args:
        words: Overrides of the attack's job from each source.
        planned: These jobs, checked.

    Raises:
        ValueError: There are several attacks or reference budgets, or the attack is its base.
    """
    first = planned[0].settings
    if len({(plan.settings.attack.label, plan.settings.reference) for plan in planned}) > 1:
        raise ValueError("experiment=paper compares one attack at one reference budget.")
    if first.attack.name == first.base:
        raise ValueError(f"base={first.base} is the attack. Name another attack as base.")
    jobs = (_from_source(*pair) for pair in zip(words, planned, strict=True))
    return [job for alike in zip_longest(*jobs) for job in alike if job]


def _from_source(words: Sequence[str], planned: Planned) -> Iterator[list[str]]:
    settings, source, cost = planned.settings, planned.settings.source_name, _cost(planned)
    reference = [
        f"epsilon.grid=[{settings.reference:g}]",
        f"epsilon.reference={settings.reference}",
    ]
    trainings = [path.stem for path in (CONF / "model").glob(f"{source}_seed*.yaml")]
    plain = [word for word in words if not word.startswith(("attack=", "attack.", "+attack."))]
    base = [*plain, f"attack={settings.base}", *[f"attack.gradients={cost}"] * bool(cost)]
    questions = {
        "primary": [*reference, "controls=true", "diagnostics.tables=[filtered]"],
        "budgets": ["defences=none"],
    }
    for defence in settings.defences[-1:]:
        questions["known"] = [*reference, f"source_defence={defence}"]
    for training in [source, *trainings] if trainings else ():
        questions[f"from {training}"] = [*reference, "defences=none", f"source={training}"]
    for question, changed in questions.items():
        yield _changed(words, question, *changed)
        yield _changed(base, question, *changed)
    tuning = len(read_facts(find_preset(settings.beside))["tuning"]) if settings.beside else 0
    few = [*reference, "defences=none", f"n_images={min(tuning, settings.n_images or tuning)}"]
    for change in _settings(planned.attack.function) if tuning else ():
        yield _changed(words, change, *few, f"attack.{change}")


def _settings(attack: Any) -> Iterator[str]:
    """Yield each number of an attack at half and at twice its value, if the attack allows it."""
    parameters = signature(attack).parameters
    for key, value in ((key, parameter.default) for key, parameter in parameters.items()):
        unused = key in _SWITCHES and not parameters[_SWITCHES[key]].default
        if type(value) not in (int, float) or key in BUDGETS or unused:
            continue
        for number in (value // 2 if isinstance(value, int) else value / 2, 2 * value):
            with suppress(ValueError):
                checked(partial(attack, **{key: number}), parameters)
                yield from [f"{key}={number}"] * (number not in (0, value))


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
