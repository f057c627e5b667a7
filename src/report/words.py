"""Sentences on rankings, on the reach of attackers, and on changes, from rows of results.

They know no layout: terminal, page, tracker and captions show the same ones. A sentence starts with
a small letter and has no full stop; `sentences` adds both.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.intervals import FEWEST_IMAGES
from ..analysis.multiple_comparisons import FEWEST_FOR_WINNER, FEWEST_TESTED, LEVEL, images_for
from ..analysis.ranking import ALL_TARGETS, MEAN_OF
from ..analysis.trainings import FEWEST_TRAININGS
from ..analysis.transfer_rates import WHITE_BOX
from ..utils.model_names import ModelRef

COUNTED = {
    "all": "all images",
    "source_correct": "images that the source classifies correctly when clean",
    "target_correct": "images that the target classifies correctly when clean",
    "joint": "images that a source and a target both classify correctly when clean",
    "common": "images that a source, and a target behind all defences, classify correctly when "
    "clean",
}
"""The images that each protocol counts, in words."""
Answer = tuple[str, str, str]
"""The lead, the rest of the sentence, and the details: what is counted and how it is tested."""

_ROUNDING = 1e-9
_UNTESTED = f"not tested: that needs {FEWEST_TESTED} images"
_FLOOR = (
    f"the floor of {FEWEST_FOR_WINNER} images is fixed, not a power; below it, up to 10 % of "
    "rankings err if one of the ranked gains much on few images"
)
_SAME = "the same outcome on every image as"
_TIED = "not significantly weaker than the first (all pairs tested together, p >= 0.05)"
_COMPARED = "sources are compared on images that a target counts for every source"


def said(*pairs: tuple[str, Any]) -> list[str]:
    """Return the texts that hold, of pairs of a text and whether it holds; empty texts do not."""
    return [text for text, holds in pairs if text and holds]


def sentences(texts: Iterable[str]) -> list[str]:
    """Give texts a capital letter and a full stop."""
    return [f"{text[:1].upper()}{text[1:]}." for text in texts]


def share(row: Any, name: str) -> str:
    """Return a share of a row in percent, with its interval if there is one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if pd.isna(low) else f" [{100 * low:z.1f}, {100 * high:z.1f}]"
    return f"{row[name]:.1%}{ends}"


def is_tied(ranked: pd.DataFrame) -> bool:
    """Return whether tests cannot tell some row of a ranking from the first."""
    return bool(ranked["p"].notna().any() and ranked["undecided"].sum() > 1)


def verdict(ranked: pd.DataFrame, of: str, listed: bool = True) -> list[str]:
    """Say what the tests of a ranking decide, and what a lead depends on; empty for a single row.

    Tied rows are listed by the column `of`, or have the mark `=`.
    """
    if len(ranked) < 2:
        return []
    first, tied = ranked.iloc[0], is_tied(ranked)
    same = _listed(ranked.loc[_is_same(ranked), of].tolist())
    tie = f"{_TIED}: {_listed(_others_alike(ranked, of))}" if listed else f"= {_TIED}"
    lead = "on average" if first["depends_on"] else "decided:"
    ahead = f"{lead} the first is ahead of all others (all pairs tested together, p < 0.05)"
    text = _UNTESTED if ranked["p"].isna().all() else tie if tied else ahead
    few = text == ahead and too_few(first)
    return said((text, not few), (f"{_SAME} the first: {same}", same)) + _caveats(first)


def standing(ranked: pd.DataFrame, of: str = "attack") -> str:
    """Say what tests decide on the first row of a ranking, and what its lead depends on."""
    lead = " ".join(_lead(ranked, of)).strip().removesuffix(",")
    first = ranked.iloc[0]
    return "; ".join([lead, *said((dependence(first["depends_on"]), not too_few(first)))])


def dependence(targets: str) -> str:
    """Say that a lead depends on targets, those in the column `depends_on`; empty without any."""
    either = targets.replace(", ", " or without ")
    return f"without target {either}, the lead is not significant" * bool(targets)


def too_few(first: Any) -> str:
    """Say that the images of a ranking are too few to name a winner; empty if they are enough."""
    few = first["images"] < FEWEST_FOR_WINNER
    return f"{first['images']:g} images are too few to name a winner" * bool(few)


def _caveats(first: Any) -> list[str]:
    few = too_few(first)
    return said((f"{few}: {_FLOOR}", few), (dependence(first["depends_on"]), not few))


def needed(ranked: pd.DataFrame) -> str:
    """Say how many images decide between the first two rows, if there are too few and none does."""
    first = ranked.iloc[0]
    if len(ranked) < 2 or not too_few(first) or not abs(ranked["difference"].iloc[1]) > _ROUNDING:
        return ""
    second = ranked.iloc[1]
    count = images_for(abs(second["difference"]), second["discordance"], len(ranked))
    text = f"to decide between the first two takes about {max(count, FEWEST_FOR_WINNER):,} images"
    return text * bool(second["undecided"])


def unranked(rows: pd.DataFrame, of: str) -> list[str]:
    """Say what the unranked rows of a ranking lack."""
    rows = rows[rows["rank"].isna()]
    if len(rows) and of == "source":
        return [f"sources are not ranked: that needs {rows['lacks'].iloc[0]}"]
    return [f"not ranked: {row[of]}, which lacks {row['lacks']}" for _, row in rows.iterrows()]


def on_target(ranked: pd.DataFrame) -> str:
    """Say how the sources of a ranking on one target compare."""
    first, tied = ranked.iloc[0], _others_alike(ranked, "source")
    (compared, *_) = said(
        (_UNTESTED, ranked["p"].isna().all()),
        ("cannot be told apart", len(tied) == len(ranked) - 1),
        (f"{too_few(first)} (fixed floor: {FEWEST_FOR_WINNER})", too_few(first)),
        (f"{first['source']} is ahead" + f", except of {', '.join(tied)}" * bool(tied), True),
    )
    levels = ", ".join(ranked["source"] + ranked["mean"].map(" {:.1%}".format))
    return f"on {first['target']} ({first['images']:g} images): {levels}: {compared}"


def ranking_heading(rows: pd.DataFrame, of: str) -> str:
    """Say what a ranking of attacks or sources compares, and where."""
    first, other = rows.iloc[0], "source" if of == "attack" else "attack"
    target = first.get("target", ALL_TARGETS)
    place = "other models" if target == ALL_TARGETS else target
    does = "target class reached" if first["targeted"] else "fooled"
    name = first[other] if first[f"{other}s"] > 1 else f"{other}: {first[other]}"
    named = "Attacks" if of == "attack" else "Sources, these trainings,"
    success = f"{named} by mean success ({does})"
    return f"{success} on {place}, eps = {first['eps_255']:g}/255, {name}"


def ranking_notes(rows: pd.DataFrame, of: str, most: int = 0) -> list[str]:
    """Return the notes on a ranking of which the first rows are `shown`; 0: all, tied ones by name.

    If there is no ranking of sources over all targets, they are those on single targets.
    """
    targets = rows.get("target", pd.Series("", rows.index))
    whole = rows[targets.isin(targets.head(1))]
    ranked, lacking = whole.dropna(subset="rank"), unranked(whole, of)
    if ranked.empty:
        others = rows.drop(whole.index).groupby(targets, sort=False)
        single = [on_target(name) for _, name in others]
        tested = said(("all pairs on a target tested together, p < 0.05", single))
        return [*single, *lacking, *tested]
    images, least = ranked[["images", "detectable"]].iloc[0]
    left = said((f"{of}s.csv has {len(ranked) - most} more", 0 < most < len(ranked)))
    decided, *alone = verdict(ranked, of, listed=not most) or [""]
    detected = f"{images:g} images detect differences of {100 * least:.1f} points or more"
    return said(
        ("; ".join([*left, *filter(None, [decided])]), True),
        *((text, True) for text in alone),
        (f"{detected} with a power of 80 %", 0 < least < 1),
        (needed(ranked), True),
        *((text, True) for text in lacking),
        (_COMPARED, of == "source"),
    )


def ranking_legend(protocol: str) -> list[str]:
    """Explain the marks of the page's ranking, and say which levels are not tested."""
    counts = protocol.replace("_", " ")
    return [
        "=: not told apart from the first. Lines: 95 % intervals, of the mean (attacks) or of the "
        "difference to the first, dotted (sources).",
        f"Tests are of images fooled, counted by {counts}; attacks are tested over all targets.",
    ]


def counted(row: pd.Series, total: int) -> list[str]:
    """Say which of the images a ranked row counts, and how its mean weighs targets and sources."""
    weights = said(
        (f"weighs the {row['targets']:g} targets equally", row["targets"] > 1),
        ("leaves out white boxes", row.get("sources", 1) > 1),
    )
    part = f"the {row['images']:g} of {total} " * (row["protocol"] != "all")
    union = ", in at least one pair; each pair has its own count" * bool(part and weights)
    images = f"counted: {part}{COUNTED[row['protocol']]}{union}"
    return said((images, True), (f"the mean {' and '.join(weights)}", weights))


def answer(ranked: pd.DataFrame, of: str, where: str, details: Sequence[str]) -> Answer:
    """State which of several attacks or sources is first, by how much, and if tests decide it."""
    first, few, equal = ranked.iloc[0], too_few(ranked.iloc[0]), _are_equal(ranked)
    reaches = " (target class reached)" * bool(first["targeted"])
    levels = [f"{name} {100 * mean:.1f} %" for name, mean in ranked[[of, "mean"]].to_numpy()]
    lead = " ".join(_lead(ranked, of)).strip()
    by = said((_listed(levels), few), (_ahead(ranked, of), not (few or equal)))
    tests = said(*((text.removeprefix(f"{few}: "), True) for text in verdict(ranked, of)))
    tests += said((needed(ranked), True))
    return lead, ": ".join([where + reaches, *by]), " ".join(sentences([*details, *tests]))


def _lead(ranked: pd.DataFrame, of: str) -> tuple[str, str]:
    """Return the first of a ranking and what the tests say of it; only the latter if none leads."""
    first, few = ranked.iloc[0], too_few(ranked.iloc[0])
    text, *_ = said(
        (few, True),
        (f"and {len(ranked) - 1} more have equal outcomes", _is_same(ranked)[1:].all()),
        (f"and {len(ranked) - 1} more are equal on average", _are_equal(ranked)),
        ("leads, undecided,", is_tied(ranked)),
        ("leads on average", first["depends_on"]),
        ("transfers best", True),
    )
    return "" if few else first[of], text


def _is_same(ranked: pd.DataFrame) -> "pd.Series[bool]":
    """Return which rows have the outcomes of the one that they are compared with, on all images."""
    return ranked["discordance"] < _ROUNDING


def _are_equal(ranked: pd.DataFrame) -> bool:
    return bool(np.ptp(ranked["mean"]) < _ROUNDING)


def apart_answer(ranked: Mapping[str, pd.DataFrame], where: str, again: str) -> Answer:
    """State which attack is first in each of two sweeps that cannot be compared.

    `ranked` has the ranking of each sweep by its name, `again` says what makes them comparable.
    """
    leads = {name: _lead_or_level(rows) for name, rows in ranked.items()}
    tests = {
        name: "; ".join(verdict(rows, "attack")).removeprefix("decided: ")
        for name, rows in ranked.items()
        if len(rows) > 1
    }
    one, two = leads
    (name, does), (other, did) = leads.values()
    lead = f"{name} {does} in {one}" + (
        f" and in {two}"
        if (name, does) == (other, did)
        else f", {other} in {two}"
        if does == did and other
        else f"; {other} {did}".rstrip() + f" in {two}"
    )
    same = len(tests) > len({*tests.values()})
    texts = said(
        (f"in both: {next(iter(tests.values()), '')}", same),
        *((f"in {name}: {text}", not same) for name, text in tests.items()),
        (f"no number is a mean over {one} and {two}, or a difference between them", True),
        (again, True),
    )
    rest = f"{where}; {one} and {two} cannot be compared"
    return lead.strip(), rest, " ".join(sentences(texts))


def _lead_or_level(ranked: pd.DataFrame) -> tuple[str, str]:
    """Return what leads a ranking of attacks, or what the only attack reaches."""
    if len(ranked) > 1:
        return _lead(ranked, "attack")
    if ranked.empty:
        return "", "nothing is ranked"
    row = ranked.iloc[0]
    return row["attack"], f"{_fools(row)} {100 * row['mean']:.1f} % of images"


def source_answer(
    row: pd.Series, sources: pd.DataFrame, where: str, details: Sequence[str]
) -> Answer:
    """State which source of the only attack is first, or what the attack reaches."""
    alone = not row["source"].startswith(MEAN_OF)
    groups = (rows for _, rows in sources.groupby("target", sort=False) if not alone)
    first = next(groups, sources[:0])
    ranked, attack = first.dropna(subset="rank"), row["attack"]
    if len(ranked) > 1 and ranked["images"].max() >= FEWEST_IMAGES:
        compared = f"{_COMPARED}: {ranked['images'].iloc[0]:g}"
        where = f" as a source of {attack}{where}"
        return answer(ranked, "source", where, [*details, compared])
    source, texts = f" from {row['source']}" * alone, [*details, *unranked(first, "source")]
    fools = f"{source}{where} {_fools(row)} {100 * row['mean']:.1f} % of images"
    return attack, fools, " ".join(sentences(texts))


def pair_answer(row: pd.Series, where: str) -> Answer:
    """State what an attack reaches on one pair."""
    if row["n"] < FEWEST_IMAGES:
        least = f"That needs {FEWEST_IMAGES} counted images."
        return "Too few images for a rate", where, least
    white = " (white box)" * (row["relation"] == WHITE_BOX)
    counts = f"{row['success']:g} of {row['n']:g} images"
    fools = f" from {row['source']}{where} {_fools(row)} {row['target']}{white} on {counts}"
    return row["attack"], fools, f"Counted: {COUNTED[row['protocol']]}."


def _fools(row: pd.Series) -> str:
    return "reaches its target class on" if row["targeted"] else "fools"


def _others_alike(ranked: pd.DataFrame, of: str) -> list[str]:
    """Return the names of the rows that cannot be told from the first."""
    others = ranked.iloc[1:]
    return others.loc[others["undecided"].astype(bool), of].tolist()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


def _ahead(ranked: pd.DataFrame, of: str) -> str:
    """Say by how many points the first is ahead of two others, or of the next of many."""
    points = [f"{abs(100 * difference):.1f}" for difference in ranked["difference"].iloc[1:]]
    next_, *names = ranked[of].iloc[1:]
    start = f"{points[0]} point{'s' * (points[0] != '1.0')} ahead of "
    if len(names) > 1:
        return f"{start}the next, {next_}"
    return start + next_ + "".join(f", {points[1]} ahead of {name}" for name in names)


def rank_sentence(table: pd.DataFrame, attack: str) -> str:
    """State the rank and the mean of an attack among stored attacks."""
    ranked = table.dropna(subset="rank")
    row = ranked[ranked["attack"] == attack].iloc[0]
    ends = "" if np.isnan(row["low"]) else f" [{row['low']:.1%}, {row['high']:.1%}]"
    rank = f"rank {row['rank']:.0f} of {len(ranked)}: " * (not too_few(row))
    return (
        f"{rank}mean success {row['mean']:.1%}{ends} on {row['images']:g} {row['storage']} images"
    )


def alike_sentences(table: pd.DataFrame, attack: str) -> list[str]:
    """Name the stored attacks that an attack cannot be told apart from, and what a lead needs."""
    ranked = table.dropna(subset="rank")
    others, first = ranked[ranked["attack"] != attack], ranked.iloc[0]
    same = others.loc[_is_same(others), "attack"]
    tested = others["p"].notna()
    alike = others.loc[others["undecided"].astype(bool) & tested, "attack"]
    tests = "paired tests of it against each, p < 0.05"
    texts = said(
        (f"{_SAME} {', '.join(same)}", len(same)),
        (f"cannot be told apart from: {', '.join(alike)}", len(alike)),
        (f"{attack} differs from every other attack ({tests})", tested.all() and not len(alike)),
        (f"differences are not tested: that needs {FEWEST_TESTED} images", not tested.any()),
    )
    return texts + _caveats(first)


def absent_sentence(table: pd.DataFrame, named: Mapping[str, str]) -> str:
    """Name the attacks that were asked for, by their titles, and are not ranked; may be empty."""
    absent = {*named.values()} - {*table.dropna(subset="rank")["attack"].map(named)}
    return f"not ranked here: {', '.join(sorted(absent))}" * bool(absent)


def reach_sentence(rows: pd.DataFrame, sources: int, targeted: bool, place: str) -> str:
    """Say what all candidates of `tries` fool, and the fewest that fool 95 % as many images."""
    last, few = rows.iloc[-1], fewest_tries(rows)
    numbers = {"candidate": last["q"], "source": sources}
    counts = (f"{number} {name}{'s' * bool(number > 1)}" for name, number in numbers.items())
    reached = "reaches the target class on" if targeted else "fools"
    return (
        f"With {' from '.join(counts)} an attacker {reached} {share(last, 'fooled')} of the "
        f"{last['images']} images of {place}"
        + f"; with {few['q']}, {few['fooled']:.1%}" * bool(few["q"] < last["q"])
        + "."
    )


def stranger_answer(rows: pd.DataFrame, total: int, model: str, eps: float) -> Answer:
    """Say what share of the images that a model classifies correctly all tries fool, and few."""
    last, few = rows.iloc[-1], fewest_tries(rows)
    levels = [f"{100 * row['fooled']:.0f} %" for row in (last, few)]
    fewest = f", and {levels[1]} with {few['q']}" * (levels[0] != levels[1])
    rest = (
        f" of the images that {model} classifies correctly, with {tries_text(last['q'])} at "
        f"{eps:g}/255{fewest}"
    )
    fooled, images = round(last["fooled"] * last["images"]), last["images"]
    details = (
        f"{share(last, 'fooled')}: {fooled} of the {images} images, of {total}, that it classifies "
        f"correctly when clean. All rates fooled count these {images}. The stranger knows public "
        "models, not this one. A try is one attack from one of them. More tries may fool more: a "
        "lower bound."
    )
    return f"A stranger fools {levels[0]}", rest, details


def fewest_tries(rows: pd.DataFrame) -> pd.Series:
    """Return the first row of `tries` that fools 95 % as many images as all candidates."""
    row: pd.Series = rows[rows["fooled"] > 0.95 * rows["fooled"].iloc[-1] - _ROUNDING].iloc[0]
    return row


def tries_text(number: int) -> str:
    """Return a number of tries in words."""
    return "1 try" if number == 1 else f"{number:,} tries"


def defence_notes(
    pairing: Mapping[str, Any], defence: str, clean: Sequence[float], idle: str, aware: bool
) -> list[str]:
    """Say what a defence stops of what tries fool, its test, and its limits.

    `aware` says whether some tries are from a source behind it.
    """
    sign = 1 if pairing["change"] >= 0 else -1
    fewer = f"{abs(100 * pairing['change']):.1f} points {'fewer' if sign > 0 else 'more'}"
    low, high = sorted(100 * sign * end for end in (pairing["low"], pairing["high"]))
    p = "p < 0.001" if pairing["p"] < 0.001 else f"p = {pairing['p']:.2g}"
    ends = f"[{low:z.1f}, {high:z.1f}]".replace("-", "\N{MINUS SIGN}")
    levels = [f"{100 * level:.1f}" for level in clean]
    same = "stays" if levels[0] == levels[1] else f"goes from {levels[0]} % to"
    return [
        f"With {tries_text(pairing['tries'])}, {defence} stops {pairing['stopped']} of the "
        f"{pairing['fooled']}, and adds {pairing['added'] or 'none'}: {fewer} fooled {ends}, {p} "
        f"(McNemar, {pairing['images']} images). Clean accuracy {same} {levels[1]} %.",
        *said(
            (f"The stranger does not know of {defence}; one who does is stronger.", not aware),
            (f"On these images, {idle} (alarm), so on others it may gain less.", idle),
        ),
    ]


def rank_answer(table: pd.DataFrame, attack: str, base: str, eps: float) -> Answer:
    """State an attack's rank among stored attacks, beside its base or the first, and how sure."""
    ranked = table.dropna(subset="rank").set_index("attack")
    row: Any = ranked.loc[attack]
    others = ranked.drop(index=attack)
    alike = others["undecided"].astype(bool)
    ahead, tied = int((~alike & (others["mean"] > row["mean"])).sum()), int(alike.sum())
    place = f"{ordinal(int(row['rank']))} of {len(ranked)} attacks"
    lead = f"{attack} {'leads on average,' if row['depends_on'] else 'is'} {place}"
    if few := too_few(row).replace("name a winner", f"rank {attack}"):
        rest = f": it fools {100 * row['mean']:.1f} % at {eps:g}/255"
        return few, rest, " ".join(sentences([_FLOOR]))
    if others.empty:
        return lead, f" at {eps:g}/255", ""
    other: Any = others.loc[base] if base in others.index else others.iloc[0]
    place = "its base" if other.name == base else "the first" if other["rank"] == 1 else "the next"
    points, behind = 100 * other["difference"], len(others) - ahead - tied
    side = "behind" if points > 0 else "ahead of"
    rest, *_ = said(
        (f"{_SAME} {place}, {other.name}", other["discordance"] < _ROUNDING),
        (f"cannot be told apart from {place}, {other.name}", other["undecided"]),
        (f"{abs(points):.1f} points {side} {place}, {other.name}", True),
    )
    best, worst = (ordinal(number) for number in (ahead + 1, ahead + 1 + tied))
    details = (
        f"Tests place it {best}{f' to {worst}' * bool(tied)}: ahead {_are(ahead)}, not told apart "
        f"{_are(tied)}, behind {_are(behind)}."
    )
    details = " ".join([details, *sentences(said((dependence(row["depends_on"]), True)))])
    return lead, f" at {eps:g}/255: {rest}", details


def margins_sentence(rows: Sequence[Any], attack: str, at: str, aimed: bool = False) -> str:
    """Say what an attack is better or worse than, on what and at which cost.

    `at` says the budget. A single row has its points.
    """
    does = "reach the target class" if aimed else "fooled"
    texts = [
        f"{row['what']}{', ' * bool(row['what'])}{attack} {_side(row)} {row['than']}: "
        f"{row['mean']:.1%} and {row['other']:.1%} {does}"
        + f" ({dependence(row['depends_on'])})"
        * bool(row["depends_on"])
        for row in rows
    ]
    points = f", points: {rows[0]['text']}" * (len(rows) == 1)
    n = " to ".join(f"{x:g}" for x in sorted({row["images"] for row in rows}))
    costs = ", ".join(dict.fromkeys(costs_text(row["costs"]) for row in rows))
    sources = " or ".join(dict.fromkeys(row["source"] for row in rows))
    counts = f"n = {n} of the {rows[0]['of']}; from {sources}{at}; {costs} gradients per image"
    few = too_few(min(rows, key=lambda row: row["images"]))
    return f"{'; '.join(texts)}{points} ({counts})" + f"; {few}: {_FLOOR}" * bool(few)


def costs_text(costs: Sequence[float]) -> str:
    """Return the gradients per image of an attack and of what is beside it; NaN: not stated."""
    return " / ".join("unknown" if np.isnan(cost) else f"{cost:g}" for cost in costs)


def _side(row: Any) -> str:
    better = "better" if row["difference"] > 0 else "worse"
    return said(
        ("is not tested against", np.isnan(row["p"])),
        (f"has {_SAME}", row["discordance"] < _ROUNDING),
        ("cannot be told apart from", row["undecided"]),
        ("is beside", too_few(row)),
        (f"is {better}{' on average' * bool(row['depends_on'])} than", True),
    )[0]


def _are(number: int) -> str:
    return f"{'is' if number == 1 else 'are'} {number}"


def ordinal(number: int) -> str:
    """Return the name of a place.

    >>> [ordinal(place) for place in (1, 2, 3, 11, 22, 113)]
    ['1st', '2nd', '3rd', '11th', '22nd', '113th']
    """
    teen = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def classes_sentence(classes: pd.DataFrame, p: float, names: Sequence[str]) -> str:
    """Name the three classes most often fooled, if classes differ."""
    test = f"(p {'< 0.001' if p < 0.001 else f'= {p:.2g}'}, permutation test)"
    if p >= LEVEL:
        return f"Classes cannot be told apart {test}, so none is named."
    rows: list[Any] = classes.head(3).to_dict("records")
    most = (f"{names[row['label']]} {row['fooled']} / {row['n']}" for row in rows)
    return f"Classes most often fooled: {', '.join(most)} {test}."


def points(rows: pd.DataFrame, columns: Sequence[str], form: str) -> list[str]:
    """Format shares in percent, or differences in points, leaving out unknown intervals."""
    numbers, alone = (100 * rows[[*columns]]).to_numpy(), form.partition(" [")[0]
    forms = ["" if pd.isna(row[0]) else alone if pd.isna(row).any() else form for row in numbers]
    return [form.format(*row) for form, row in zip(forms, numbers, strict=True)]


def networks_notes(networks: pd.DataFrame) -> list[str]:
    """Say what the intervals of differences between networks are for, and where there are none."""
    few = networks["p"].isna().iloc[1:].any()
    return said(
        ("simultaneous 95 % intervals for new trainings and new images", networks["p"].any()),
        (f"no interval below {FEWEST_TRAININGS} trainings: these trainings alone", few),
    )


def cell_name(cell: Collection[Any]) -> str:
    """Return the name of a cell: attack, source, target and defence, or the last two.

    >>> cell_name(("mi", "vgg16", "resnet50", "jpeg", "linf", 8.0)), cell_name(("resnet50", "none"))
    ('mi from vgg16 on resnet50@jpeg', 'resnet50')
    """
    *job, target, defence = [*cell][:4]
    return " on ".join([*filter(None, [" from ".join(job)]), str(ModelRef.parse(target, defence))])


def direction(row: pd.Series) -> str:
    """Return `fell`, `rose`, or nothing if the interval of a change contains none."""
    return "fell" * bool(row["high"] < 0) + "rose" * bool(row["low"] > 0)


def change_sentence(row: pd.Series) -> str:
    """Say how the accuracy of a row of `compare` has changed, and which falls are not excluded."""
    text = f"falls up to {100 * row['largest_fall']:.1f} points cannot be excluded"
    if verdict_ := direction(row):
        size, *ends = (abs(100 * row[column]) for column in ("change", "low", "high"))
        text = f"{verdict_} by {size:z.1f} points [{min(ends):z.1f}, {max(ends):z.1f}]; {text}"
    mean = f"mean of {row['cells']} cell{'s' * bool(row['cells'] != 1)}"
    cell = row[["attack", "source", "target", "defence"]].dropna()
    return f"{row['measure']}, {mean if row['is_mean'] else cell_name(cell)}: {text}"


def gate_sentence(changes: pd.DataFrame, max_fall: float | None, passed: bool) -> str:
    """Say why the rows of `compare` pass, or do not."""
    worst = change_sentence(changes.iloc[changes["largest_fall"].argmax()])
    if max_fall is None:
        falls = f"Significant falls: {(changes['high'] < 0).sum()} of {len(changes)}."
        return f"{falls} Largest fall not excluded: {worst}."
    why = f"excluded in all {len(changes)} rows" if passed else f"not excluded: {worst}"
    return f"Falls above {max_fall:g} points are {why}."
