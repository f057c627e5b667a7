"""Check and call the `_target_` of a config section."""

from collections.abc import Mapping
from inspect import signature
from pkgutil import resolve_name
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from .package import importable_name, rename_targets
from .refusals import first_line


def check_target(who: str, settings: Mapping[str, Any]) -> None:
    """Refuse a `_target_` that cannot be imported, or that does not accept the section's keys."""
    target = str(settings.get("_target_"))
    keys = {str(key): value for key, value in settings.items() if not str(key).startswith("_")}
    try:
        signature(resolve_name(importable_name(target))).bind_partial(**keys)
    except ValueError:
        return  # it has no signature
    except Exception as error:  # a user's module may raise anything
        raise ValueError(f"{who}: {target} cannot be called: {first_line(error)}.") from error


def call_target(settings: Mapping[str, Any]) -> Any:
    """Call `_target_` with the section's other keys, recursively; any failure is a ValueError."""
    target = settings.get("_target_")
    try:
        return instantiate(rename_targets(dict(settings), importable_name), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ValueError):
            raise ValueError(first_line(cause)) from error
        if cause is None or isinstance(cause, ImportError):
            raise ValueError(f"_target_ {target} cannot be found.") from error
        reason = f"{type(cause).__name__}: {first_line(cause)}"
        raise ValueError(f"{target} failed with {reason}") from error
