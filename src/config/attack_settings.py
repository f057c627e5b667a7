"""Settings for the source of adversarial images: an attack with its label, or a saved set."""

import json
from collections.abc import Iterable, Mapping
from inspect import signature
from math import prod
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ..utils.about import About, Norm, inherits_statements
from ..utils.package import resolve
from .fields import Name, Place, check_units
from .sections import Section, TargetLabelRule

_PARTS = ("estimator", "objective", "update")
_STARTS, _RUNS = ("random_start", "warm_up_steps"), ("warm_up_steps", "restarts")


def function_of(settings: Mapping[str, Any]) -> Any:
    """Return the function that an attack's settings name; for a clone, the one in its `root`."""
    function = resolve(str(settings["_target_"]))
    return function.in_root(settings.get("root")) if hasattr(function, "in_root") else function


def attack_label(name: str, settings: Mapping[str, Any], first: Iterable[str] = ()) -> str:
    """Return an attack's label: its name plus the settings that differ from the defaults.

    Without defaults, all settings are listed, after the texts `first`. Settings that are objects
    are left out. The label of a function from Python is just its name.

    >>> attack_label("bim", {"_target_": "src.attacks.bim", "steps": 20, "norm": "linf"})
    'bim (steps=20)'
    """
    if "_target_" not in settings:  # a function passed to `transfer`; the name is from there
        return name
    defaults = {"norm": "linf"} | _defaults(settings)
    parts = [*first]
    for key, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value)
        if key != "_target_" and value != defaults.get(key) and "_target_" not in text:
            parts.append(f"{key}={text}")
    return f"{name} ({', '.join(parts)})" if parts else name


def takes(settings: Mapping[str, Any], key: str) -> bool:
    """Return False if an attack's function does not accept the keyword."""
    try:
        signature(function_of(settings)).bind_partial(**{key: None})
    except Exception as error:  # other errors are refused when the function is built
        return not isinstance(error, TypeError)
    return True


def computed_count(settings: Mapping[str, Any], numbers: Mapping[str, int]) -> Any:
    """Return the number of gradients that an attack's function counts.

    Args:
        settings: Keys of the attack's file; for others, the function's defaults count.
        numbers: Numbers that are no settings, such as that of the `budgets`.

    Raises:
        ValueError: A setting is invalid, or may change the count in a way that it does not cover:
            other parts than the attack's own, more copies, restarts, or other starts.
    """
    function, defaults = function_of(settings), _defaults(settings)
    count = function.counts["gradients"]
    other = [key for key in settings if settings[key] != defaults.get(key, settings[key])]
    covered = getattr(getattr(count, "__code__", None), "co_names", ())
    for key in other:
        switched = key in _STARTS and bool(settings[key]) != bool(defaults[key])
        if switched or key in _PARTS or (key in _RUNS and key not in covered):
            raise ValueError(f"attack.{key} may change the count.")
    fewer = {key: value for key, value in settings.items() if key != "transforms"}
    made, expected = (described(each).transforms for each in (settings, fewer))
    copies, own_copies = (prod(transform.copies for transform in each) for each in (made, expected))
    added = made[len(made) - len(settings.get("transforms") or ()) :]
    multiplied = function.copies_multiply
    if any(hasattr(each, "adapt") for each in added) if multiplied else copies != own_copies:
        raise ValueError("attack.transforms may multiply the count.")
    factor = copies if multiplied and "copies" not in covered else 1
    numbers = {**numbers, "copies": copies} if multiplied else numbers
    return factor * count(SimpleNamespace(**{**defaults, **settings, **numbers}))


def described(settings: Mapping[str, Any]) -> Any:
    """Return the settings of the loop that an attack's settings describe, with their objects."""
    section = {key: value for key, value in settings.items() if key != "target_label"}
    return function_of(settings).described({**section, "_partial_": True})


def _defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of an attack's function as plain data; empty without a signature."""
    try:
        parameters = signature(function_of(settings)).parameters
    except Exception:  # a user's module may raise anything; refused when the function is built
        return {}
    values = {name: parameter.default for name, parameter in parameters.items()}
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))  # tuples become lists
    return plain


def stated_about(settings: Mapping[str, Any]) -> Any:
    """Return `about` of an attack's function, if it has one of its own."""
    try:
        function = function_of(settings)
        return {} if inherits_statements(function) else function.about
    except Exception:  # as above
        return {}


class SavedOrigin(Section):
    """Facts that are missing in the files of a set from another program."""

    source: Name = "unknown"
    attack: Name = "unknown"
    norm: Norm = "linf"
    targeted: bool = False
    dataset: Name = "unknown"


class SavedSettings(Section):
    """Saved set of adversarial images; the keys of `conf/attack/saved.yaml`."""

    path: Place
    clean: Place | None = None
    labels: Place | None = None
    eps_255: Annotated[float, Field(gt=0, le=255)] | None = None
    origin: SavedOrigin = SavedOrigin()

    @field_validator("eps_255")
    @classmethod
    def _in_levels(cls, value: float | None) -> float | None:
        check_units([value or 0], 0.1)  # an L2 budget may be below 1
        return value


class AttackSettings(Section):
    """Settings of an attack or of a saved set.

    Attributes:
        about: Statements of the attack or its file.
        kind: `crafted` by an attack on the source, `saved` in files, or `none`.
        label: Name in runs, tables and headings, see `attack_label`.
        settings: All keys of the attack's file, resolved.
        cost: Gradients per image that `settings` do not give yet, see `at_cost`.
        source: Model that a saved set was crafted on, according to its files.
    """

    kind: Literal["crafted", "saved", "none"] = "crafted"
    name: Name
    label: str
    norm: Norm = "linf"
    target_label: TargetLabelRule | None = None
    about: About = About()
    settings: dict[str, Any] = Field(default_factory=dict)
    cost: Annotated[float, Field(gt=0, le=1e9)] | None = Field(
        default=None, alias="gradients", exclude=True
    )
    saved: SavedSettings | None = None
    source: str = ""

    def gradients(self, budgets: int, members: int) -> float | None:
        """Return the number of gradients per image and member of the source; None if unknown.

        Attacks of other libraries, saved sets, and functions without a count do not state it.
        """
        if not isinstance(self.about.gradients, str):
            return float(self.about.gradients)
        try:
            numbers = {"budgets": budgets, "members": members}
            return float(computed_count(self.settings, numbers))
        except Exception:  # there is no count, or a user's count raises an error
            return None
