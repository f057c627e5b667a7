"""Overrides of a command, each parsed once, by Hydra's parser."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    Override,
    QuotedString,
)
from hydra.errors import OverrideParseException

from ..utils.package import command
from ..utils.refusals import quoted
from .hydra_internals import value_tokens

TEXTS = (
    *("source", "targets", "model", "defences", "source_defence", "defence"),
    *("folder", "out", "tracking.name"),
    *("dataset.images", "model.*.weights", "*.experiment", "*.uri", "*.directory", "*.dir"),
    *("*.root", "*.csv", "*.folder", "*.file", "*.path", "*.clean", "*.labels", "*.fit_images"),
)
"""Keys whose values are paths or names, also if they look like numbers."""
BUDGETS = ("budget", "budgets", "eps", "epsilon")
"""Keys that users may take for that of the budgets."""
SET_BUDGETS = "Set budgets, in units of 1/255, with 'epsilon.grid=[8]'."
REPLACED = {
    "cache_dir": "cache.dir",
    "store.images_mb": "cache.images_mb",
    "store.total_gb": "cache.total_gb",
    "plan=true": "plan=only",
    **dict.fromkeys(
        ("plan.tflops", "plan_tflops"), "a job on that machine, after which its plans have hours"
    ),
    "max_hours": "plan.max_hours",
    "dataset.n_images": "n_images",
    "dataset=saved": "attack=saved, which brings the images of its set",
    "tracking.name=none": "tracking=none",
    "tracking.name=mlflow": "tracking=mlflow",
    "tracking.system_metrics": "a monitor of your machine, such as nvidia-smi dmon",
    "report.related": f"--no-related of {command('table')} and {command('sources')}, or "
    "related=False from Python",
    "diagnostics=sources": f"diagnostics=full; {command('sources')} needs predictions only",
    "attack.fit_first_label": "attack.fit_images=FOLDER, with a folder of images per class",
    **dict.fromkeys(
        ("training.noise", "training.keep_epochs"),
        "model.NAME.weights=FILE, weights that you trained with your own program",
    ),
    **dict.fromkeys(
        ("report.figures", "figures"),
        f"{command('figure')} KIND --out FILE.svg; --help lists the kinds",
    ),
    "report beside": f"{command('table')} FOLDER --beside PRESET",
}
"""Keys and options of earlier versions, and what to type instead."""
NUMBERS = {"INT", "FLOAT", "BOOL"}
OPENING = {"COMMA", "BRACKET_OPEN", "POPEN"}
CLOSING = {"COMMA", "BRACKET_CLOSE", "PCLOSE"}
HOLDS_TEXTS = {"BRACKET_OPEN", "choice", "glob", "shuffle", "sort", "str", "tag"}
"""Brackets and Hydra's functions whose elements may be texts; those of `range` are numbers."""
_parser = OverridesParser.create()


@dataclass(frozen=True)
class Command:
    """Overrides of a command, and the names in them, including those of all jobs of a sweep.

    Attributes:
        overrides: The overrides in their order.
        sources: Names in `source`.
        models: Names in `source`, `targets` and keys such as `model.vgg16.weights`.
        defences: Names in `defences`, `source_defence` and keys such as `defence.jpeg.quality`.
        experiments: Names in `experiment`.
        folders: Folders in `hydra.searchpath`.
    """

    overrides: tuple[Override, ...]
    sources: tuple[str, ...]
    models: tuple[str, ...]
    defences: tuple[str, ...]
    experiments: tuple[str, ...]
    folders: tuple[str, ...]

    @classmethod
    def parse(cls, words: Sequence[str]) -> "Command":
        """Parse the overrides of a command.

        Raises:
            OverrideParseException: A word is no override.
            ValueError: A key or option is from an earlier version.
        """
        overrides = tuple(map(parse, words))
        names: defaultdict[str, list[str]] = defaultdict(list)
        for override in overrides:
            refuse_replaced(override.key_or_group, override.value())
            group, *parts = override.key_or_group.split(".")
            names[override.key_or_group] += flat(override.value())
            names[f"{group}."] += parts[:1]
        return cls(
            overrides,
            sources=tuple(names["source"]),
            models=(*names["source"], *names["targets"], *names["model."]),
            defences=(*names["defences"], *names["source_defence"], *names["defence."]),
            experiments=tuple(names["experiment"]),
            folders=tuple(path.removeprefix("file://") for path in names["hydra.searchpath"]),
        )

    @property
    def words(self) -> list[str]:
        """The overrides as text."""
        return [str(override.input_line) for override in self.overrides]

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys and groups that the overrides set."""
        return tuple(override.key_or_group for override in self.overrides)

    def check(self, folder: Path) -> None:
        """Refuse repeated overrides of attack or source, and options without a file in `folder`."""
        for key in ("attack", "source"):
            again = [its for its in self.overrides if its.get_key_element() == key]
            if len(again) > 1:
                values = dict.fromkeys(override.get_value_string() for override in again)
                word = shlex.quote(f"{key}={','.join(values)}")
                raise ValueError(
                    f"{key} is set more than once. To run one job for each value, type -m {word}"
                )
        for override in self.overrides:
            group = override.key_or_group
            if override.is_delete() or group in ("model", "defence"):
                continue
            if (folder / group).is_dir() and override.get_key_element()[0] == "+":
                word = shlex.quote(f"{group}={override.get_value_string()}")
                raise ValueError(f"{override.input_line}: an option takes no +. Type {word}")
            if group == "experiment":
                continue
            option = is_option(override.value())
            base = any(name.startswith("_") for name in flat(override.value()))
            if (folder / group).is_dir() and (base or not option):
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


def refuse_replaced(key: str, value: Any) -> None:
    """Refuse a key or option of an earlier version."""
    for name in (key, *(f"{key}={'true' if item is True else item}" for item in _items(value))):
        if name in REPLACED:
            raise ValueError(f"{name} is replaced by {REPLACED[name]}.")


@cache
def parse(word: str) -> Override:
    """Parse an override; numbers stay text if its key is one of `TEXTS`."""
    if word.encode(errors="ignore").decode() != word:
        raise ValueError(f"{word}: it is not valid UTF-8. Rename the file or folder.")
    (override,) = _parser.parse_overrides([word])
    if not override.key_or_group:
        raise OverrideParseException(word, "it has no key")
    return _with_texts(override)


def parse_for(loader: ConfigLoader, words: Sequence[str]) -> list[Override]:
    """Parse overrides; `loader` lists the files that a sweep with `glob(...)` runs through."""
    return [replace(parse(word), config_loader=loader) for word in words]


def _with_texts(override: Override) -> Override:
    """Quote the numbers in an override of a path or name, which Hydra reads as other text.

    For example, it reads `2024_01` as 202401, and `1e5` as 100000.0.
    """
    if override.value_type is None or not any(fnmatchcase(override.key_or_group, k) for k in TEXTS):
        return override
    value = override.get_value_string()
    texts = "".join(_texts(value))
    if texts == value:
        return override
    return _parser.parse_override(str(override.input_line).removesuffix(value) + texts)


def _texts(value: str) -> Iterator[str]:
    """Yield the tokens of an override's value; numbers that are whole elements are quoted."""
    tokens = [token for token in value_tokens(value) if token[0] != "WS"]
    names = ["COMMA", *(name for name, _, _ in tokens), "COMMA"]
    around: list[str] = []  # open brackets and functions
    end, is_text = 0, False
    for index, (name, start, stop) in enumerate(tokens):
        before, after = names[index], names[index + 2]
        if name.endswith("CLOSE"):
            around.pop()
        elif name == "POPEN":
            _, function, function_end = tokens[index - 1]
            around.append(value[function:function_end])
        elif name.endswith("_OPEN"):
            around.append(name)
        alone = before in OPENING and after in CLOSING
        yield value[end:start]
        text = value[start:stop]
        is_text = name in NUMBERS and alone and HOLDS_TEXTS.issuperset(around)
        yield quoted(text) if is_text else text
        end = stop
    yield "" if is_text else value[end:]  # Hydra allows no space after a quoted value


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
