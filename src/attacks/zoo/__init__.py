"""Published attacks, each next to the class it is made of.

The first word of a file's name is the attacks' category.
"""

from dataclasses import is_dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def offered() -> dict[str, Any]:
    """Return all attacks and the classes they are made of, by name: what `src.attacks` offers."""
    values: dict[str, Any] = {}
    for module in iter_modules(__path__, f"{__name__}."):
        values |= vars(import_module(module.name))
    return {
        name: value
        for name, value in values.items()
        if (is_dataclass(value) or hasattr(value, "about"))
        and value.__module__.startswith(__name__)
        and not name.startswith("_")
    }
