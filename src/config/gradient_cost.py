"""Steps of an attack that make it take a number of gradients per image."""

from bisect import bisect_left
from collections.abc import Container
from contextlib import suppress
from inspect import signature
from typing import Any

from ..utils.refusals import first_line
from .attack_settings import AttackSettings, attack_label, computed_count, described, function_of
from .settings import Settings

TOLERANCE = 0.05
"""Largest difference between the cost and `attack.gradients`, as a share of the latter."""


def at_cost(settings: Settings, typed: Container[str] = ()) -> Settings:
    """Return a job's settings with the number of steps for `attack.gradients`.

    Args:
        settings: The job's settings.
        typed: Keys of the attack that the user has typed, of which `steps` must be none. A number
            in a file is replaced.

    Raises:
        ValueError: The attack's cost is fixed or not stated, or no number comes near enough.
    """
    attack = settings.attack
    if attack.cost is None:
        return settings
    if "steps" in typed:
        raise ValueError(
            f"attack.gradients={attack.cost:.10g} sets attack.steps. Leave one of them out."
        )
    changed = _set_steps(attack, attack.cost, len(settings.source), settings.source_draws)
    return Settings(**dict(settings) | {"attack": changed})


def _set_steps(attack: AttackSettings, cost: float, members: int, draws: int) -> AttackSettings:
    """Return an attack's settings with the number of steps of a cost."""
    wanted = f"attack.gradients={cost:.10g}: attack={attack.name}"
    lowest = _lowest(attack, wanted)

    def cost_of(number: int) -> float:
        numbers = {"budgets": 1, "members": members}
        count = computed_count(attack.settings | {"steps": number}, numbers)
        return float(count) * members * draws

    try:
        numbers = range(lowest, lowest + int(cost) + 2)  # a step has at least one gradient
        place = bisect_left(numbers, cost, key=cost_of)
        near = {number: cost_of(number) for number in numbers[max(0, place - 1) : place + 1]}
    except Exception as error:  # a user's count may raise anything
        raise ValueError(f"{wanted} has no computable cost. {first_line(error)}") from error
    number = min(near, key=lambda value: abs(near[value] - cost))
    if abs(near[number] - cost) > TOLERANCE * cost:
        nearest = " or ".join(f"{taken:.10g} (attack.steps={n})" for n, taken in near.items())
        raise ValueError(f"{wanted} cannot take so many per image. The nearest: {nearest}.")
    changed = attack.settings | {"steps": number}
    first = [f"{cost:.10g} gradient{'s' * (cost != 1)}"]
    label = attack_label(attack.name, {k: v for k, v in changed.items() if k != "steps"}, first)
    return attack.model_copy(update={"settings": changed, "label": label, "cost": None})


def _lowest(attack: AttackSettings, wanted: str) -> int:
    """Return the smallest number of steps that an attack takes; 99 if it takes none below."""
    if attack.about.category == "library":
        raise ValueError(f"{wanted} does not state its cost. Set its steps by its keys.")
    function: Any = function_of(attack.settings)
    parameters = signature(function).parameters
    if "training_images" in parameters:
        raise ValueError(f"{wanted} is fitted, so its cost is not one per image.")
    if "steps" not in parameters:
        raise ValueError(f"{wanted} has a fixed number of steps.")
    if "gradients" not in getattr(function, "counts", {}):
        raise ValueError(f"{wanted} has no rule for its cost. @attack gives it one.")
    for number in range(100):
        with suppress(ValueError):  # one that no number mends is raised with the first cost
            described({**attack.settings, "steps": number})
            break
    return number
