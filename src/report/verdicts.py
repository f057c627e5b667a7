"""Sentences on a ranking: what its tests decide, and what more images would decide."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.multiple_comparisons import FEWEST_FOR_WINNER, FEWEST_TESTED, images_for

_ROUNDING = 1e-9
COUNTED = {
    "all": "all images",
    "source_correct": "images that the source classifies correctly when clean",
    "target_correct": "images that the target classifies correctly when clean",
    "joint": "images that a source and a target both classify correctly when clean",
    "common": "images that a source, and a target behind all defences, classify correctly when "
    "clean",
}
"""The images that each protocol counts, in words."""
DIFFERENCES = ("difference", "difference_low", "difference_high")
"""Columns with the difference from the first, or from a chosen attack, and its interval."""


@dataclass(frozen=True)
class Label:
    """A text for people; it has no methods of `str`, so that nothing reads its parts."""

    _text: str

    def __str__(self) -> str:
        return self._text


def ranking_label(ranked: Any, goal: bool = True) -> Label:
    """Return the heading of a ranking from a row with the columns of `RankingGroup`.

    With `goal=False` the heading does not say whether the attacks are targeted.
    """
    words = {
        "targeted" if ranked["targeted"] else "untargeted": goal,
        "of ensembles": ranked["ensemble"],
        "behind a defence": ranked["source_defended"],
    }
    return Label(" ".join(word for word, holds in words.items() if holds))


def share(row: Any, name: str) -> str:
    """Return a share of a row in percent, with its interval if there is one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if pd.isna(low) else f" [{100 * low:z.1f}, {100 * high:z.1f}]"
    return f"{row[name]:.1%}{ends}"


def verdict(ranked: pd.DataFrame) -> list[str]:
    """Say what the tests of a ranking decide and what a lead needs; empty for a single row."""
    first = ranked.iloc[0]
    if len(ranked) < 2:
        return []
    if ranked["p"].isna().all():
        return [f"not tested: that needs {FEWEST_TESTED} images"]
    if ranked["undecided"].sum() > 1:
        return ["= not significantly weaker than the first (all pairs tested together, p >= 0.05)"]
    if few := too_few(first):
        return [few]
    together = "(all pairs tested together, p < 0.05)"
    lead = "on average" if first["depends_on"] else "decided:"
    lines = [f"{lead} the first is ahead of all others {together}", dependence(ranked)]
    return list(filter(None, lines))


def on_target(ranked: pd.DataFrame) -> str:
    """Say how the sources of a ranking on one target compare, for the terminal and the page."""
    first, others = ranked.iloc[0], ranked.iloc[1:]
    tied = others.loc[others["undecided"].astype(bool), "source"]
    compared = (
        f"not tested: that needs {FEWEST_TESTED} images"
        if ranked["p"].isna().all()
        else "cannot be told apart"
        if len(tied) == len(others)
        else too_few(first)
        or f"{first['source']} is ahead" + f", except of {', '.join(tied)}" * bool(len(tied))
    )
    levels = ", ".join(ranked["source"] + ranked["mean"].map(" {:.1%}".format))
    return f"on {first['target']} ({first['images']:g} images): {levels}: {compared}"


def unranked(rows: pd.DataFrame, of: str) -> list[str]:
    """Say what the unranked rows of a ranking lack."""
    rows = rows[rows["rank"].isna()]
    if len(rows) and of == "source":
        return [f"sources are not ranked: that needs {rows['lacks'].iloc[0]}"]
    return [f"not ranked: {row[of]}, which lacks {row['lacks']}" for _, row in rows.iterrows()]


def resolution(ranked: pd.DataFrame) -> list[str]:
    """Describe which differences one ranking can detect, and what few images cannot tell."""
    first, lines = ranked.iloc[0], []
    if 0 < first["detectable"] < 1:
        points = f"{100 * first['detectable']:.1f}"
        lines.append(f"{first['images']:g} images detect differences of {points} points or more")
    if too_few(first):
        lines.append(needed(ranked))
    return list(filter(None, lines))


def dependence(ranked: pd.DataFrame) -> str:
    """Say which targets a decided lead depends on; may be empty."""
    targets = ranked["depends_on"].iloc[0].replace(", ", " or without ")
    return targets and f"without target {targets}, no lead is significant"


def too_few(first: pd.Series) -> str:
    """Say that the images of a ranking are too few to name a winner; empty if they are enough."""
    few = first["images"] < FEWEST_FOR_WINNER
    return f"{first['images']:g} images are too few to name a winner" * bool(few)


def needed(ranked: pd.DataFrame) -> str:
    """Say how many images would decide between the first two rows; empty if they do not differ."""
    if len(ranked) < 2 or not abs(ranked["difference"].iloc[1]) > _ROUNDING:
        return ""
    second = ranked.iloc[1]
    count = images_for(abs(second["difference"]), second["discordance"], len(ranked))
    count = max(count, FEWEST_FOR_WINNER)
    return f"to decide between the first two takes about {count:,} images"


def rank_sentence(table: pd.DataFrame, attack: str) -> str:
    """State the rank and the mean of an attack in a ranking."""
    ranked = table.dropna(subset="rank")
    row = ranked[ranked["attack"] == attack].iloc[0]
    ends = "" if np.isnan(row["low"]) else f" [{row['low']:.1%}, {row['high']:.1%}]"
    return (
        f"rank {row['rank']:.0f} of {len(ranked)}: mean success {row['mean']:.1%}{ends} on "
        f"{row['images']:g} {row['storage']} images"
    )


def neighbours(table: pd.DataFrame, attack: str, *named: str) -> Iterator[tuple[str, ...]]:
    """Yield the first of a ranking, an attack, its neighbours, and the named attacks.

    A row has rank, attack, gradients per image, mean, and the difference from the attack with its
    interval and p.
    """
    ranked = table.dropna(subset="rank").reset_index(drop=True)
    at = int(ranked.index[ranked["attack"] == attack][0])
    also = ranked.index[ranked["attack"].isin(named)]
    for place in sorted({0, at - 1, at, at + 1, *also} & {*ranked.index}):
        its = ranked.iloc[place]
        points = [_points(its[key]) for key in DIFFERENCES if not np.isnan(its[key])]
        ends = f" [{', '.join(points[1:])}], p = {its['p']:.2g}" if points[1:] else ""
        cost = "" if np.isnan(its["gradients"]) else f"{its['gradients']:g}"
        difference = "".join(points[:1]) + ends
        yield f"{its['rank']:.0f}", its["attack"], cost, f"{its['mean']:.1%}", difference


def alike_sentence(table: pd.DataFrame, attack: str) -> str:
    """Name the attacks that an attack cannot be told apart from."""
    ranked = table.dropna(subset="rank")
    alike = ranked.loc[ranked["undecided"].astype(bool) & (ranked["attack"] != attack), "attack"]
    if len(alike):
        return f"cannot be told apart from: {', '.join(alike)}"
    return f"{attack} differs from every other attack (paired tests of it against each, p < 0.05)"


def _points(difference: float) -> str:
    """Return a difference in points; without a sign where it rounds to 0."""
    points = round(100 * difference, 1)
    return f"{points:+.1f}" if points else "0.0"
