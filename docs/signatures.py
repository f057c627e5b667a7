"""Signatures and docstrings of attacks on the site, as `help()` shows them."""

import inspect
from typing import Any

import griffe

from src import attacks


class Published(griffe.Extension):
    """Give each attack of `src.attacks.family` its own keywords, their defaults and docstring."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace what the source states of a decorated function."""
        if "src.attacks.published.published" not in (
            each.callable_path for each in func.decorators
        ):
            return
        attack = getattr(attacks, func.name)
        parameters = inspect.signature(attack).parameters.values()
        func.parameters = griffe.Parameters(*map(_parameter, parameters))
        if func.docstring:
            func.docstring.value = inspect.getdoc(attack) or ""


def _parameter(live: inspect.Parameter) -> griffe.Parameter:
    default = getattr(live.default, "__name__", repr(live.default))
    kind = griffe.ParameterKind[live.kind.name.lower()]
    return griffe.Parameter(live.name, kind=kind, default=None if default == "_empty" else default)
