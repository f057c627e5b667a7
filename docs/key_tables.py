"""Tables of the keys in a file of `conf/`, each with its default and what its comments say."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from catalogue import REPOSITORY, table
from yaml import MappingNode, Node, SequenceNode

HIDDEN = ("about", "hydra")
"""Statements of an attack, and Hydra's own keys."""


def keys(name: str) -> str:
    """Return what the comment at the head of a file says, and the table of its keys."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    file = _File(Path(name), text)
    head = f"{file.head}\n\n" if file.head else ""
    based = f"All other keys: as with `{file.base}`.\n\n" if file.base else ""
    return head + based + table(["key", "default", "meaning"], list(file.rows()))


def whole(name: str) -> str:
    """Return a file as a block of YAML."""
    return f"```yaml\n{(REPOSITORY / name).read_text(encoding='utf-8')}```"


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
        said = self._beside(key if block else value) or outer
        if block and said:
            yield [f"`{name}`", "", said]
        if nested:
            for inner, its in value.value:
                yield from self._key(inner, its, f"{name}.", "" if block else said)
        else:
            default = _shown(self._text(value))
            meaning = [*self._above(key), *([said] if said else [])]
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
