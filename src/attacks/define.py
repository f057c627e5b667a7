"""The decorator `attack`, which turns a paper's settings for `ascend` into a function."""

import re
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from inspect import Parameter, Signature, getdoc, signature
from typing import Any, Protocol

from pydantic import ValidationError
from torch import Tensor

from ..utils.about import About
from ..utils.call_target import call_target
from ..utils.package import canonical_name
from ..utils.refusals import first_line
from .loop import ascend
from .projection import Budgets
from .settings import Settings
from .source import Model
from .training_images import NO_TRAINING_IMAGES, TrainingImages

Count = Callable[[Any], float]
"""Function of an object with an attack's settings and the numbers of `budgets` and `members`."""


class Attack(Protocol):
    """A published attack; `help()` and `inspect.signature` show its keywords and defaults.

    Attributes:
        about: Statements of the attack.
        counts: Functions that compute `gradients` and `forwards`, see `About`, as far as they are
            no constants.
    """

    __name__: str
    about: About
    counts: Mapping[str, Count]

    def __call__(
        self, model: Model, images: Tensor, labels: Tensor, eps: Budgets, *_: Any, **settings: Any
    ) -> Tensor:
        """Return adversarial images; see `ascend`. `*_` lets type checkers take any keywords."""


ALL_BUT_NORM = tuple(name for name in signature(Settings).parameters if name != "norm")
"""Settings that mean nothing to an attack without gradients of the images."""


def attack(fixed: Collection[str] = (), **words: Any) -> Callable[[Callable[[], None]], Attack]:
    """Turn a function's name and docstring into an attack: `ascend` with other defaults.

    Args:
        fixed: Settings that are not keywords of the attack. With an objective, `loss` is fixed
            too, unless the objective has a field of that name.
        **words: Fields of `About` that docstring and module do not state, and settings that differ
            from the defaults of `Settings`. `gradients` and `forwards` may be a `Count`. A setting
            may be a class: its fields become keywords of the attack, and its docstring is appended
            to the attack's. A class of transforms is called `transform` and precedes those in
            `transforms`. A class with a method `bind` gets `training_images`, and returns the part.
    """
    stated = {name: words.pop(name) for name in About.model_fields if name in words}
    counts = {name: stated.pop(name) for name, value in [*stated.items()] if callable(value)}
    parts = {name: value for name, value in words.items() if isinstance(value, type)}
    values = {name: value for name, value in words.items() if name not in parts}
    special = dict[str, Parameter]()
    for part in parts.values():
        special |= signature(part).parameters
    hidden = {*fixed, *parts.keys() - {"transform"}}
    hidden |= {"loss"} - special.keys() if "objective" in parts else set()
    if "steps" in fixed or "update" in words or not words.get("normalised", True):
        hidden.add("step_rule")
    fitted = next((part for part in parts.values() if hasattr(part, "bind")), None)
    if computed := "gradients" not in {*stated, *counts}:
        counts["gradients"] = _default_count(words, special)
    if fitted:
        special["training_images"] = Parameter(
            "training_images",
            Parameter.KEYWORD_ONLY,
            default=None,
            annotation=TrainingImages | None,
        )
    face, accepted = _make_signature(special, hidden, values)

    def settings_of(keywords: dict[str, Any]) -> Settings:
        """Take the settings out of keywords."""
        made = {name: keywords.pop(name, default) for name, default in accepted.items()}
        training_images = made.pop("training_images", None) or NO_TRAINING_IMAGES
        try:
            return _make_settings(parts, made, training_images)
        except ValidationError as error:
            raise ValueError(first_line(error)) from error

    def decorate(description: Callable[[], None]) -> Attack:
        @wraps(description, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        def made(*arguments: Any, **keywords: Any) -> Tensor:
            try:
                bound = face.bind(*arguments, **keywords).arguments
                settings = settings_of(bound)
            except TypeError as error:
                raise TypeError(f"{description.__name__}: {error}") from error
            return ascend(**bound, settings=settings)

        function: Any = made
        function.__signature__ = face
        function.__doc__ = "\n\n".join(map(str, map(getdoc, (description, *parts.values()))))
        function.about = About(**_describe(function, words) | stated)
        function.counts, function.all_budgets, function.check = counts, True, settings_of
        function.described = lambda section: settings_of({**call_target(section).keywords})
        function.copies_multiply = computed
        settings_of({})  # wrong defaults fail here
        if fitted:
            function.fitted, function.as_built = fitted, getattr(fitted, "as_built", False)
        return function

    return decorate


def _default_count(keywords: Collection[str], special: Collection[str]) -> Count:
    """Return the number of gradients of an attack that states none.

    All budgets share the first gradient, unless the attack starts at random. After a warm-up they
    share another one, unless the attack looks ahead. `copies` stands for those of all transforms,
    which multiply the number even where it does not appear.
    """
    if "warm_up_steps" in keywords:
        once = 0 if "random_start" in keywords else 2 - ("lookahead" in keywords)
        return lambda n: n.restarts * (once + n.budgets * (n.warm_up_steps + n.steps - once))
    if "random_start" in keywords:
        return lambda n: n.budgets * n.steps * n.restarts
    if "transform" in keywords and "copies" in special:
        return lambda n: n.copies * (1 + n.budgets * (n.steps - 1))
    return lambda n: 1 + n.budgets * (n.steps - 1)


def _describe(function: Any, keywords: Collection[str]) -> dict[str, Any]:
    """Return the fields of `About` that docstring, module and settings imply.

    `does` is the docstring's first line up to a colon, `category` the module's first word. `Name:`
    and `Reference:` begin lines of the docstring.
    """
    place = re.search(r"^src\.attacks\.zoo\.([a-z]+)", canonical_name(function.__module__))
    reference = function.__doc__.partition("Reference: ")[2].partition("\n\n")[0]
    paper = re.search(r"(?<=arXiv )[\d.]+\d|https?://\S+(?<![,.])", reference)
    year = re.search(r"(?<=\()\d{4}(?=\))", reference)
    name = re.search(r"(?<=Name: ).*?(?=\.$)", function.__doc__, re.MULTILINE)
    return {
        "category": place[1] if place else "own",
        "name": name[0] if name else "",
        "does": re.split(r": |\.?\n|\.$", function.__doc__)[0],
        "paper": paper[0] if paper else "",
        "year": int(year[0]) if year else None,
        "needs": "layers" if "objective" in keywords else (),
        "mixes": not place,  # an own part may use the pool
    }


def _make_signature(
    special: Mapping[str, Parameter], fixed: Collection[str], defaults: dict[str, Any]
) -> tuple[Signature, dict[str, Any]]:
    """Return an attack's signature, and the defaults of all settings, including `fixed` ones."""
    parameters = {**special, **signature(Settings).parameters}
    if unknown := sorted({*fixed, *defaults} - parameters.keys()):
        raise TypeError(f"{', '.join(unknown)}: no such settings")
    settings = {name: parameter.default for name, parameter in parameters.items()} | defaults
    main = [each for each in signature(ascend).parameters.values() if each.name != "settings"]
    keywords = [
        parameters[name].replace(kind=Parameter.KEYWORD_ONLY, default=settings[name])
        for name in dict.fromkeys((*special, *defaults, *settings))
        if name not in fixed
    ]
    return Signature([*main[:4], *keywords, *main[4:]], return_annotation=Tensor), settings


def _make_settings(
    parts: Mapping[str, Callable[..., Any]],
    values: dict[str, Any],
    training_images: TrainingImages,
) -> Settings:
    for name, part_class in parts.items():
        part = part_class(**{key: values.pop(key) for key in signature(part_class).parameters})
        part = part.bind(training_images) if hasattr(part, "bind") else part
        if name == "transform":
            values["transforms"] = (part, *(values["transforms"] or ()))
        else:
            values[name] = part
    return Settings(**values)
