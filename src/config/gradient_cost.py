"""Settings of an attack that make it take a number of gradients per image."""

from bisect import bisect_left
from collections.abc import Container, Mapping
from contextlib import suppress
from inspect import signature
from typing import Any

from ..utils.refusals import first_line
from .attack_settings import AttackSettings, attack_label, computed_count, described, function_of
from .settings import Settings

TOLERANCE = 0.05
"""Largest difference between the cost and `attack.gradients`, as a share of the latter."""
COPIES = ("copies", "samples", "neighbours", "inner_steps", "masks", "points", "admixed")
"""Settings that `attack.spend=copies` changes; an attack has at most one of them."""
_STEPS = 10
"""Steps of an attack that spends its gradients on copies."""
REPEATED = ("copies", "samples", "neighbours", "inner_steps", "scales", "admixed")
"""Copies that each step takes; masks and points are taken once."""


def at_cost(settings: Settings, typed: Container[str] = ()) -> Settings:
    """Return a job's settings with the number of steps, or copies, for `attack.gradients`.

    Args:
        settings: The job's settings.
        typed: Keys of the attack that the user has typed, of which the number must be none. A
            number in a file is replaced.

    Raises:
        ValueError: The attack's cost is fixed or not stated, or no number comes near enough.
    """
    attack = settings.attack
    if attack.cost is None:
        if attack.spend is not None:
            raise ValueError(f"attack.spend={attack.spend} needs attack.gradients.")
        return settings
    changed = _set_number(attack, attack.cost, len(settings.source), settings.source_draws, typed)
    return Settings(**dict(settings) | {"attack": changed})


def at_equal_cost(attack: AttackSettings, cost: float, spend: str) -> dict[str, Any]:
    """Return the settings with which an attack is compared at equal cost, from one source.

    Args:
        attack: The attack at its own settings.
        cost: Gradients per image.
        spend: `steps`: as many steps as come near, with the fewest copies. `copies`: ten steps, one
            below 20 gradients, of as many copies as come near. Steps are max(eps / 10, eps / steps)
            long.

    Raises:
        ValueError: The attack has no copies, or as for `at_cost`.
    """
    copies = [key for key in REPEATED if key in attack.settings]
    if spend == "copies" and not copies:
        raise ValueError(f"attack={attack.name} has no copies.")
    fewest = {key: max(1, _lowest(attack.settings, key)) for key in copies}
    fixed = fewest if spend == "steps" else {"steps": 1 if cost < 2 * _STEPS else _STEPS}
    update = {"settings": attack.settings | fixed, "spend": spend}
    found = _set_number(attack.model_copy(update=update), cost, 1, 1, ()).settings
    chosen = {key: found[key] for key in ("steps", *copies)}
    if "relative_step_size" in found:
        chosen["relative_step_size"] = max(1 / _STEPS, 1 / found["steps"])
    return chosen


def _set_number(
    attack: AttackSettings, cost: float, members: int, draws: int, typed: Container[str]
) -> AttackSettings:
    """Return an attack's settings with the number of steps, or copies, of a cost."""
    wanted = f"attack.gradients={cost:.10g}: attack={attack.name}"
    key, lowest = _key_to_set(attack, wanted)
    if key in typed:
        raise ValueError(f"attack.gradients={cost:.10g} sets attack.{key}. Leave one of them out.")

    def cost_of(number: int) -> float:
        numbers = {"budgets": 1, "members": members}
        count = computed_count(attack.settings | {key: number}, numbers)
        return float(count) * members * draws

    try:
        numbers = range(lowest, lowest + int(cost) + 2)  # a step or copy has at least one gradient
        place = bisect_left(numbers, cost, key=cost_of)
        near = {number: cost_of(number) for number in numbers[max(0, place - 1) : place + 1]}
    except Exception as error:  # a user's count may raise anything
        raise ValueError(f"{wanted} has no computable cost. {first_line(error)}") from error
    number = min(near, key=lambda value: abs(near[value] - cost))
    if abs(near[number] - cost) > TOLERANCE * cost:
        nearest = " or ".join(f"{taken:.10g} (attack.{key}={n})" for n, taken in near.items())
        raise ValueError(f"{wanted} cannot take so many per image. The nearest: {nearest}.")
    changed = attack.settings | {key: number}
    first = [f"{cost:.10g} gradient{'s' * (cost != 1)}"]
    first += ["spend=copies"] * (attack.spend == "copies")
    label = attack_label(attack.name, {k: v for k, v in changed.items() if k != key}, first)
    update = {"settings": changed, "label": label, "cost": None, "spend": None}
    return attack.model_copy(update=update)


def _key_to_set(attack: AttackSettings, wanted: str) -> tuple[str, int]:
    """Return the setting that decides the cost, and its smallest value."""
    if attack.about.category == "library":
        raise ValueError(f"{wanted} does not state its cost. Set its steps by its keys.")
    function: Any = function_of(attack.settings)
    parameters = signature(function).parameters
    if "training_images" in parameters:
        raise ValueError(f"{wanted} is fitted, so its cost is not one per image.")
    keys = COPIES if attack.spend == "copies" else ("steps",)
    key = next((key for key in keys if key in parameters), None)
    if key is None:
        ways = {"copies": "has no copies. Use steps."}
        raise ValueError(f"{wanted} {ways.get(str(attack.spend), 'has a fixed number of steps.')}")
    if "gradients" not in getattr(function, "counts", {}):
        raise ValueError(f"{wanted} has no rule for its cost. @attack gives it one.")
    return key, _lowest(attack.settings, key)


def _lowest(settings: Mapping[str, Any], key: str) -> int:
    """Return the smallest number that an attack takes for a setting; 99 if it takes none below."""
    for number in range(100):
        with suppress(ValueError):  # one that no number mends is raised with the first cost
            described({**settings, key: number})
            break
    return number
