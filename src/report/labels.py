"""Labels for people: texts that no code takes apart, made from keys where they are shown."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Label:
    """A text for people; it has no methods of `str`, so that nothing reads its parts."""

    _text: str

    def __str__(self) -> str:
        return self._text


def ranking_label(ranked: pd.Series, goal: bool = True) -> Label:
    """Return the heading of a ranking from a row with the columns of `RankingGroup`.

    With `goal=False` the heading does not say whether the attacks are targeted.
    """
    words = {
        "targeted" if ranked["targeted"] else "untargeted": goal,
        "of ensembles": ranked["ensemble"],
        "behind a defence": ranked["source_defended"],
    }
    return Label(" ".join(word for word, holds in words.items() if holds))
