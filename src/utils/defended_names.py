"""Names of targets with their defences."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

PLAIN = "none"
"""Name that stands for no defence."""
ABSTAINED = -1
"""Predicted class if a defence abstains."""


class Evaluated(NamedTuple):
    """Target that images are evaluated on: a model and its defence.

    >>> str(Evaluated("resnet50", "jpeg")), str(Evaluated("resnet50"))
    ('resnet50@jpeg', 'resnet50')
    """

    target: str
    defence: str = PLAIN

    def __str__(self) -> str:
        return self.target if self.defence == PLAIN else f"{self.target}@{self.defence}"


def behind_each(targets: Iterable[str], defences: Iterable[str]) -> tuple[Evaluated, ...]:
    """Return the targets without a defence, then each target behind each defence."""
    every = dict.fromkeys((PLAIN, *defences))
    return tuple(Evaluated(target, defence) for defence in every for target in targets)


def split_source(source: str) -> Evaluated:
    """Split the name of a source, as in records and rows, into its model and its defence.

    >>> tuple(split_source("resnet50@jpeg")), tuple(split_source("a+b"))
    (('resnet50', 'jpeg'), ('a+b', 'none'))
    """
    model, _, defence = source.partition("@")
    return Evaluated(model, defence or PLAIN)


def renamed(name: str, names: Mapping[str, str]) -> str:
    """Return a name with its parts replaced: members of an ensemble, defence, words of a label.

    >>> renamed("a+b", {"b": "B"}), renamed("mi steps=5", {"mi": "MI"})
    ('a+B', 'MI steps=5')
    """
    return names.get(name) or "".join(names.get(part, part) for part in parts_of(name))


def parts_of(name: str) -> list[str]:
    """Split a name into members of an ensemble, defence and words of a label, with their signs.

    >>> parts_of("a+b@jpeg")
    ['a', '+', 'b', '@', 'jpeg']
    """
    return re.split(r"([+@ ])", name)
