"""Attacks made of `ascend` and the settings of a paper, with keywords and documentation."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial, wraps
from inspect import Parameter, Signature, getdoc, signature
from typing import Any, Protocol

from pydantic import ValidationError
from torch import Tensor

from src.attacks.fitted import State, fit
from src.attacks.loop import ascend
from src.attacks.projection import Budgets
from src.attacks.settings import Settings
from src.attacks.source import Model
from src.utils.refusals import first_line


class Attack(Protocol):
    """A published attack; `help()` and `inspect.signature` tell its own keywords and defaults."""

    __name__: str

    def __call__(
        self, model: Model, images: Tensor, labels: Tensor, eps: Budgets, **settings: Any
    ) -> Tensor:
        """Return adversarial images; see `ascend`."""


ALL_BUT_NORM = tuple(name for name in signature(Settings).parameters if name != "norm")
"""Settings without a meaning for an attack that takes no gradients of the images."""


def published(
    fixed: Collection[str] = (), **defaults: Any
) -> Callable[[Callable[[], None]], Attack]:
    """Make an attack of the name and the docstring of a function: `ascend` with other defaults.

    Args:
        fixed: Settings that are no keywords.
        **defaults: Values of settings that differ from the defaults of `Settings`. One that is a
            class is made with keywords of the attack, whose docstring gets that of the class; a
            class of transforms is called `transform`, and comes before those in `transforms`.
    """
    parts = {name: value for name, value in defaults.items() if isinstance(value, type)}
    values = {name: value for name, value in defaults.items() if name not in parts}
    face, known = _make_signature(parts, {*fixed, *parts.keys() - {"transform"}}, values)

    def decorate(description: Callable[[], None]) -> Attack:
        @wraps(description, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        def attack(*arguments: Any, **keywords: Any) -> Tensor:
            try:
                bound = face.bind(*arguments, **keywords).arguments
                states = bound.pop("states", None) or {}
                values = {name: bound.pop(name, default) for name, default in known.items()}
                settings = _make_settings(parts, values, states)
            except TypeError as error:
                raise TypeError(f"{description.__name__}: {error}") from error
            except ValidationError as error:
                raise ValueError(first_line(error)) from error
            return ascend(**bound, settings=settings)

        function: Any = attack
        function.__signature__ = face
        function.__doc__ = "\n\n".join(map(str, map(getdoc, (description, *parts.values()))))
        _make_settings(parts, {**known}, {})  # wrong defaults fail here
        if fitted := [part for part in parts.values() if hasattr(part, "fit")]:
            function.fitted, function.fit = fitted[0], partial(fit, fitted[0])
        return function

    return decorate


def _make_signature(
    parts: Mapping[str, Callable[..., Any]], fixed: Collection[str], defaults: dict[str, Any]
) -> tuple[Signature, dict[str, Any]]:
    """Return an attack's signature, and the defaults of all settings, the `fixed` ones included."""
    special = {key: value for part in parts.values() for key, value in _parameters(part)}
    parameters = {**special, **dict(_parameters(Settings))}
    if unknown := sorted({*fixed, *defaults} - parameters.keys()):
        raise TypeError(f"{', '.join(unknown)}: no such settings")
    known = {name: parameter.default for name, parameter in parameters.items()} | defaults
    main = [parameter for name, parameter in _parameters(ascend) if name != "settings"]
    keywords = [
        parameters[name].replace(kind=Parameter.KEYWORD_ONLY, default=known[name])
        for name in dict.fromkeys((*special, *defaults, *known))
        if name not in fixed
    ]
    if any(hasattr(part, "fit") for part in parts.values()):
        main.append(Parameter("states", Parameter.KEYWORD_ONLY, default=None))
    return Signature([*main[:4], *keywords, *main[4:]], return_annotation=Tensor), known


def _parameters(function: Callable[..., Any]) -> Iterable[tuple[str, Parameter]]:
    return signature(function).parameters.items()


def _make_settings(
    parts: Mapping[str, Callable[..., Any]],
    values: dict[str, Any],
    states: Mapping[float, State],
) -> Settings:
    for name, kind in parts.items():
        part = kind(**{key: values.pop(key) for key, _ in _parameters(kind)})
        part = part.bind(states) if hasattr(part, "fit") else part
        if name == "transform":
            values["transforms"] = (part, *(values["transforms"] or ()))
        else:
            values[name] = part
    return Settings(**values)
