"""Tables of the keys in a file of `conf/`, each with its default and what its comments say."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from catalogue import REPOSITORY, said, table
from yaml import MappingNode, Node, SequenceNode

HIDDEN = ("about", "hydra")
"""Statements of an attack, and Hydra's own keys."""


GROUPS = (
    *("epsilon", "dataset", "attack", "model", "panel", "trainer", "training"),
    *("diagnostics", "plan", "report", "tracking", "experiment", "hydra/launcher"),
)
WHOLE = ("panel", "experiment")
"""Groups whose files choose values of other keys: their rows only say what they are."""
MANY = {"attack": ("bim", "saved", "none"), "model": ()}
"""Files that are shown of groups with tables of their own, besides files that others include."""
FIRST = {"_common": "all data sets", "_saved": "`attack=saved`", "bim": "most attacks, as `bim`"}
FIRST |= {"_small_network": "small networks", "_network_with_stem": "networks with a stem"}
"""What files are called that no word of a command names."""


def keys() -> str:
    """Return the table of all keys: first those of the primary config, then group by group."""
    main = REPOSITORY / "conf" / "config.yaml"
    chosen = {next(iter(each)): next(iter(each.values())) for each in _defaults(main)}
    rows = [["**a job**", "", ""], *_read(main).rows()]
    for group in GROUPS:
        files = sorted((REPOSITORY / "conf" / group).glob("*.yaml"), key=lambda file: file.stem)
        files = [file for file in files if _is_shown(group, file.stem)]
        files.sort(key=lambda file: (file.stem[0] != "_", file.stem != chosen.get(group)))
        for file in files:
            rows += _rows(group, file, file.stem == chosen.get(group))
    report = _read(REPOSITORY / "conf" / "report.yaml")
    rows += [["**`python -m src.report`**", "", "its other keys: as `report`"], *report.rows()]
    return table(["key", "default", "meaning"], rows)


def _rows(group: str, path: Path, is_default: bool) -> Iterator[list[str]]:
    """Yield a row that names the file, and those of its keys."""
    word = f"targets=panel/{path.stem}" if group == "panel" else f"{group}={path.stem}"
    name = f"**{FIRST.get(path.stem) or f'`{word}`'}**"
    if group in WHOLE:
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
        own = stated.get("epsilon", {}).get("reference") if group == "experiment" else None
        budget = f" Reference budget: {own}/255." if own else ""
        keys = f"[Its keys](../conf/{group}/{path.name})"
        yield [name, "", f"{said(group, path.stem)}{budget} {keys}"]
        return
    file = _read(path)
    parts = ["The default." if is_default else "", file.head]
    parts += [f"All other keys: as with `{file.base}`."] if file.base else []
    yield [name, "", " ".join(part for part in parts if part)]
    yield from file.rows()


def _is_shown(group: str, name: str) -> bool:
    return group not in MANY or name in MANY[group] or name[0] == "_"


def _read(path: Path) -> "_File":
    return _File(path.relative_to(REPOSITORY), path.read_text(encoding="utf-8"))


def _defaults(path: Path) -> list[dict[str, str]]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"]
    return [each for each in found if isinstance(each, dict)]


def _shown(value: str) -> str:
    """Return a default in Markdown, an address as a link."""
    return f"[{value.split('/')[2]}]({value})" if "://" in value else f"`{value}`"


class _File:
    """A file of `conf/`: its text, and its keys with their places in the text."""

    def __init__(self, path: Path, text: str) -> None:
        self.lines = text.splitlines()
        self.pairs = yaml.compose(text).value
        self.first = next(i for i, line in enumerate(self.lines) if not line.startswith("#"))
        head = [line.removeprefix("# ") for line in self.lines[: self.first]]
        self.head = " ".join(line for line in head if not line.startswith("@package"))
        group = ".".join(path.parts[1:-1])
        self.prefix = "" if "@package _global_" in head or not group else f"{group}."
        self.prefix = "model.NAME." if group == "model" else self.prefix
        named = {key.value: value for key, value in self.pairs}
        others = named["defaults"].value if "defaults" in named else []
        bases = [each.value for each in others if isinstance(each.value, str)]
        self.base = "".join(f"{'/'.join(path.parts[1:-1])}={name}" for name in bases[:1] if group)

    def rows(self) -> Iterator[list[str]]:
        """Yield a row per key: its name on the command line, its default, its meaning."""
        for key, value in self.pairs:
            if key.value == "defaults":
                for choice in value.value:
                    yield from self._choice(choice)
            elif key.value not in HIDDEN:
                yield from self._key(key, value, self.prefix, "")

    def _choice(self, choice: Node) -> Iterator[list[str]]:
        """Yield the row of a group whose file can be chosen."""
        if isinstance(choice, MappingNode):
            ((key, value),) = choice.value
            group = key.value.removeprefix("override /")
            if isinstance(value, yaml.ScalarNode) and not key.value.startswith("override hydra"):
                yield [
                    f"`{group}`",
                    f"`{value.value}`",
                    self._beside(value) or f"a file of `conf/{group}/`",
                ]

    def _key(self, key: Node, value: Node, prefix: str, outer: str) -> Iterator[list[str]]:
        """Yield the row of a key, or those of the keys in it."""
        name = prefix + key.value
        nested = isinstance(value, MappingNode) and value.value
        block = nested and not value.flow_style
        beside = self._beside(key if block else value) or outer
        if block and beside:
            yield [f"`{name}`", "", beside]
        if nested:
            for inner, its in value.value:
                yield from self._key(inner, its, f"{name}.", "" if block else beside)
        else:
            default = _shown(self._text(value))
            meaning = [*self._above(key), *([beside] if beside else [])]
            yield [f"`{name}`", default, "<br>".join(meaning)]

    def _beside(self, node: Node) -> str:
        """Return the comment behind a node."""
        rest = self.lines[node.end_mark.line][node.end_mark.column :]
        found = re.match(r":?\s*# (.*)", rest)
        return found[1] if found else ""

    def _above(self, node: Node) -> list[str]:
        """Return the comments in the lines above a key."""
        line = last = node.start_mark.line
        while line > self.first and self.lines[line - 1].lstrip().startswith("#"):
            line -= 1
        return [each.strip().removeprefix("# ") for each in self.lines[line:last]]

    def _text(self, value: Node) -> str:
        """Return a value as the file has it."""
        start, end = value.start_mark, value.end_mark
        assert not isinstance(value, SequenceNode) or value.flow_style
        return self.lines[start.line][start.column : end.column]
