"""Targets and the defences before them."""

from collections.abc import Iterable
from typing import NamedTuple

PLAIN = "none"
"""Name of no defence."""
ABSTAINED = -1
"""Predicted class where a defence abstains."""


class Evaluated(NamedTuple):
    """A target that images are evaluated on: a model, and the defence before it.

    >>> str(Evaluated("resnet50", "jpeg")), str(Evaluated("resnet50"))
    ('resnet50@jpeg', 'resnet50')
    """

    target: str
    defence: str = PLAIN

    def __str__(self) -> str:
        return self.target if self.defence == PLAIN else f"{self.target}@{self.defence}"


def behind_each(targets: Iterable[str], defences: Iterable[str]) -> tuple[Evaluated, ...]:
    """Return targets as they are, then each behind every defence."""
    every = dict.fromkeys((PLAIN, *defences))
    return tuple(Evaluated(target, defence) for defence in every for target in targets)


def split_source(source: str) -> Evaluated:
    """Return the model and the defence of a source; one text names both in records and rows.

    >>> tuple(split_source("resnet50@jpeg")), tuple(split_source("a+b"))
    (('resnet50', 'jpeg'), ('a+b', 'none'))
    """
    model, _, defence = source.partition("@")
    return Evaluated(model, defence or PLAIN)
