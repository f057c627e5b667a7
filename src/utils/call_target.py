"""Check and call the `_target_` of a config section."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from .hydra_versions import ANY, allow
from .package import importable_name, rename_targets, resolve, values_in
from .refusals import first_line


def check_target(who: str, settings: Mapping[str, Any]) -> None:
    """Refuse a `_target_` that cannot be imported, or that does not accept the section's keys."""
    target = str(settings.get("_target_"))
    keys = {str(key): value for key, value in settings.items() if not str(key).startswith("_")}
    try:
        signature(resolve(target)).bind_partial(**keys)
    except ValueError:
        return  # it has no signature
    except Exception as error:  # a user's module may raise anything
        raise ValueError(f"{who}: {target} cannot be called: {first_line(error)}.") from error


def call_target(settings: Mapping[str, Any]) -> Any:
    """Call `_target_` with the section's other keys, recursively.

    Raises:
        ValueError: The call failed; its `__cause__` is the error of the callable or of its import.
    """
    target = settings.get("_target_")
    section = rename_targets({**settings, "_convert_": "all"}, importable_name)
    called = [each for each in values_in(section) if isinstance(each, dict) and "_target_" in each]
    names = [str(each["_target_"]) for each in called]
    try:
        with allow(names):  # but not what Hydra refuses in any config, such as os.system
            for name in names:
                instantiate({"_target_": name, "_partial_": True})
        with allow(ANY):  # what they return is callable, too, and no list knows its class
            return instantiate(section)
    except (Exception, SystemExit) as error:
        # Hydra 1.3 raises its own error from the callable's, 1.4 the callable's.
        cause = (error.__cause__ if isinstance(error, InstantiationException) else None) or error
        reason = first_line(cause)
        if isinstance(cause, ImportError):
            reason = f"_target_ {target} cannot be found. {' '.join(str(cause).split())}"
        elif not isinstance(cause, ValueError | InstantiationException):
            reason = f"{target} failed with {type(cause).__name__}: {reason}"
        raise ValueError(reason) from cause
