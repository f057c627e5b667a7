"""Overrides of a command, each parsed once, by Hydra's parser."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf

from ..utils.refusals import quoted

TEXTS = (
    *("source", "targets", "defences", "source_defence", "folder", "out", "tracking.name"),
    *("dataset.images", "model.*.weights", "*.experiment", "*.uri", "*.directory", "*.dir"),
    *("*.root", "*.csv", "*.folder", "*.file", "*.path", "*.clean", "*.labels", "*.fit_images"),
)
"""Keys whose values are paths or names, also if they look like numbers."""
BUDGETS = ("budget", "budgets", "eps", "epsilon")
"""Keys that users may take for that of the budgets."""
NAMED = {"model": ("source", "targets"), "defence": ("defences", "source_defence")}
"""Groups whose files are named by values, and the keys of these values."""
SET_BUDGETS = "Set budgets, in units of 1/255, with 'epsilon.grid=[8]'."
_parser = OverridesParser.create()


@dataclass(frozen=True)
class Command:
    """Overrides of a command, in their order."""

    overrides: tuple[Override, ...]

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Command":
        """Parse the overrides of a command.

        Raises:
            OverrideParseException: A word is no override.
        """
        return cls(tuple(map(parse, words)))

    @classmethod
    def of(cls, hydra: Any) -> "Command":
        """Return the overrides of a job or command from Hydra's section of its config."""
        words: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)  # as typed
        return cls.parse(words)

    @property
    def words(self) -> list[str]:
        """The overrides as text."""
        return [str(override.input_line) for override in self.overrides]

    @property
    def sources(self) -> list[str]:
        """Names in `source`, including those of all jobs of a sweep."""
        named = [override for override in self.overrides if override.key_or_group == "source"]
        return [name for override in named for name in flat(override.value())]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys and groups that the overrides set."""
        return tuple(override.key_or_group for override in self.overrides)

    def check(self, folder: Path) -> None:
        """Refuse repeated overrides of attack or source, and options without a file in `folder`."""
        for key in ("attack", "source"):
            again = [override for override in self.overrides if override.get_key_element() == key]
            if len(again) > 1:
                values = dict.fromkeys(override.get_value_string() for override in again)
                word = shlex.quote(f"{key}={','.join(values)}")
                raise ValueError(
                    f"{key} is set more than once. To run one job for each value, type -m {word}"
                )
        for override in self.overrides:
            group, value = override.key_or_group, override.value()
            if override.is_delete() or not (folder / group).is_dir():
                continue
            if group in NAMED:
                way = f"name each {group} in {' or '.join(NAMED[group])}."
                raise ValueError(f"{override.input_line}: {way}")
            if override.get_key_element()[0] == "+":
                word = shlex.quote(f"{group}={override.get_value_string()}")
                raise ValueError(f"{override.input_line}: an option takes no +. Type {word}")
            base = any(name.startswith("_") for name in flat(value))
            if group != "experiment" and (base or not is_option(value)):
                stems = sorted(path.stem for path in (folder / group).glob("[!_]*.yaml"))
                way = f"To set a key, type {group}.KEY=VALUE."
                raise ValueError(
                    f"{override.input_line} is not an option of {group}: {', '.join(stems)}. "
                    f"{SET_BUDGETS if group in BUDGETS else way}"
                )

    def refuse_sweeps(self) -> None:
        """Refuse several values of a key, which are several jobs, in a command without `-m`."""
        for override in filter(Override.is_sweep_override, self.overrides):
            raise ValueError(
                f"{override.input_line}: add -m to run one job for each of these values. "
                "A list for one job, such as an ensemble, has brackets: [A,B]."
            )


@cache
def parse(word: str) -> Override:
    """Parse an override; a number stays text if its key is one of `TEXTS`.

    Hydra reads `2024_01` as 202401, and `1e5` as 100000.0.
    """
    if word.encode(errors="ignore").decode() != word:
        raise ValueError(f"{word}: it is not valid UTF-8. Rename the file or folder.")
    (override,) = _parser.parse_overrides([word])
    key, value = override.key_or_group, override.value()
    if not key:
        raise OverrideParseException(word, "it has no key")
    if not any(fnmatchcase(key, text) for text in TEXTS):
        return override
    if isinstance(value, int | float):
        text = override.get_value_string()
        return _parser.parse_override(word.removesuffix(text) + quoted(text.strip()))
    if numbers := [item for item in _items(value) if isinstance(item, int | float)]:
        example = '"2024",a' if override.is_sweep_override() else '["2024","a"]'
        way = f"Quote it, as in '{key}={example}'."
        raise ValueError(f"{word}: {numbers[0]} is a number, not a name. {way}")
    return override


def _items(value: Any) -> Iterator[Any]:
    """Yield the single values in an override's value: of all jobs, and of all lists."""
    if isinstance(value, ChoiceSweep | list):
        for item in value.list if isinstance(value, ChoiceSweep) else value:
            yield from _items(item)
    else:
        yield value.text if isinstance(value, QuotedString) else value


def flat(value: Any) -> list[str]:
    """Return the names in an override's value, or in a value of a YAML file."""
    return [str(item) for item in _items(value) if item is not None]


def is_option(value: Any) -> bool:
    """Return True if an override's value names a file of a group, for each job of a sweep."""
    items = value.list if isinstance(value, ChoiceSweep) else [value]
    return all(isinstance(item, str | QuotedString | Glob) for item in items)
