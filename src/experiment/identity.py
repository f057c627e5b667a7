"""Which code the callables are that a config names."""

import inspect
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.utils import get_object

from src.utils.cache import sha256_of

_INSTALLED = {"site-packages", "dist-packages"}


def code_of(settings: Any) -> dict[str, str]:
    """Tell the code of every callable that a section of a config names as `_target_`.

    Args:
        settings: Plain data, of any depth.

    Returns:
        By name: of a file of the user's own its SHA-256, of an installed package its version.
        Callables of this package are left out; a change of theirs is a change of version.
    """
    found = {name: _code(name) for name in sorted(set(_targets(settings)))}
    return {name: code for name, code in found.items() if code is not None}


def _targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield str(value["_target_"])
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _targets(entry)


def _code(name: str) -> str | None:
    """Tell the code of a callable, and of the module that a config names it in."""
    target = get_object(name)
    target = getattr(target, "func", target)  # of a functools.partial
    parents = [name[: dot.start()] for dot in re.finditer(r"\.", name)]
    named = sys.modules[[parent for parent in parents if parent in sys.modules][-1]]
    modules = {named, inspect.getmodule(inspect.unwrap(target)) or named}
    codes = map(_code_of_module, modules)
    return ", ".join(sorted({code for code in codes if code is not None})) or None


def _code_of_module(module: ModuleType) -> str | None:
    package = module.__name__.partition(".")[0]
    if package == __name__.partition(".")[0]:
        return None
    file = Path(getattr(module, "__file__", None) or sysconfig.get_path("stdlib"))
    standard = file.is_relative_to(sysconfig.get_path("stdlib"))
    if standard or _INSTALLED & set(file.parts):
        version = getattr(sys.modules[package], "__version__", platform.python_version())
        return f"{package} {version}"
    return sha256_of(file)
