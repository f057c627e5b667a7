"""Jobs of `experiment=paper`: an attack, its base at equal cost, and what reviewers ask."""

from collections.abc import Iterable, Iterator, Sequence
from inspect import Parameter, signature
from typing import Any

from pydantic import TypeAdapter

from .attack_settings import function_of
from .command import BUDGETS
from .gradient_cost import accepts
from .settings import Settings

AWARE = "jpeg"
"""The defence of the targets, which one attacker knows."""
_SWITCHED = ("warm_up_scale", "start_radius", "restarts")


def paper_jobs(
    words: Sequence[str], settings: Settings, cost: float, tuning: int, models: Iterable[str]
) -> Iterator[list[str]]:
    """Yield the overrides of the jobs of one source.

    Args:
        words: Overrides of the attack's job from this source.
        settings: Settings of this job.
        cost: The attack's gradients per image at one budget.
        tuning: Number of images for tuning; 0: the settings are not varied.
        models: Names of all models; `SOURCE_seed1` is another training of SOURCE.
    """
    reference, grid = settings.reference, settings.epsilon.grid
    plain = [word for word in words if not word.lstrip("+~").startswith(("attack=", "attack."))]
    base = [*plain, f"attack={settings.base}", *[f"attack.gradients={cost:g}"] * bool(cost)]
    at_one = [f"epsilon.grid=[{reference:g}]", f"epsilon.reference={reference:g}"]
    behind = f"defences=[none,{AWARE}]"
    every = ",".join(f"{eps:g}" for eps in grid)
    seeds = [its for its in models if its.startswith(f"{settings.source_name}_seed")]
    for extra in (
        [*at_one, "controls=true", behind, "diagnostics.tables=[filtered]"],
        *[[f"epsilon.grid=[{every}]", f"epsilon.reference={grid[-1]:g}"]] * (len(grid) > 1),
        [*at_one, behind, f"source_defence={AWARE}"],
        *([*at_one, f"source={its}"] for its in seeds),
    ):
        yield _changed(words, extra)
        yield _changed(base, extra)
    for change in changes(settings) if tuning else ():
        yield _changed(words, [*at_one, f"n_images={tuning}", change])


def changes(settings: Settings) -> Iterator[str]:
    """Yield overrides that set each number of an attack to half and to twice its value.

    Left out are 0, numbers in lists, values outside the domain that the attack's function states,
    and settings that another one of the attack would have to switch on.
    """
    attack = settings.attack.settings
    for key, parameter in signature(function_of(attack)).parameters.items():
        value: Any = attack.get(key, None if key in _SWITCHED else parameter.default)
        if type(value) not in (int, float) or not value or key in BUDGETS:
            continue
        stated = parameter.annotation in (Parameter.empty, str(parameter.annotation))
        domain = TypeAdapter[Any](type(value) if stated else parameter.annotation)
        for number in (value // 2 if isinstance(value, int) else value / 2, 2 * value):
            if number and accepts(domain, number):
                yield f"attack.{key}={number}"


def _changed(words: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return overrides with `extra` in place of those of the same keys."""
    keys = {word.partition("=")[0].lstrip("+") for word in extra}
    return [*(its for its in words if its.partition("=")[0].lstrip("+") not in keys), *extra]
