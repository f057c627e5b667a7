"""Charts of sweeps or results at a printed size; each function is a kind of `src.figure`."""

import logging
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from inspect import Parameter, Signature, signature
from math import ceil, floor, nan
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from altair.typing import ChartType

from ..analysis import OWN, TRANSFER, WHITE_BOX
from ..analysis.confidence import by_initial_confidence, confidence_profiles
from ..analysis.outcomes import job_outcomes
from ..utils.model_names import ModelRef, renamed
from . import charts
from .charts.theme import DASHES, LINE, MEAN, PALETTE, SHADES, SHAPES, inline
from .images_text import images_text
from .printed import BELOW, LETTER, VALUES, Figure, Pair, on_paper, to_points
from .view import pairs_of
from .words import COUNTED

log = logging.getLogger(__name__)

FIGURES: dict[str, Callable[..., ChartType]] = {}
"""The functions by the name that users type."""
FEWEST, FEWEST_IN_BIN = 9, 3
"""Fewest images for curves by initial confidence, and in a group of a fixed width."""
_MOST_BANDS = 3
_SUCCESS = "other models fooled"
_DRAWN = ["eps_255", "value", "low", "high", "series", "label", "colour", "dash", "shape", "width"]
_DRAWN += ["right"]


def registered(keywords: str) -> Callable[[Callable[..., ChartType]], Callable[..., ChartType]]:
    """Make a function of a `Figure` or a `Pair` a figure of sweeps or results.

    `src.figure NAME` and `results.figure(NAME)` then draw it. The new function takes folders or
    results, these keywords of `Figure.of`, and the further ones of the function.
    """
    shared = ["folder", *keywords.split()]

    def register(draw: Callable[..., ChartType]) -> Callable[..., ChartType]:
        figure, *others = signature(draw).parameters.values()
        image = [key for key in others if key.default is Parameter.empty]
        options = [key.replace(kind=Parameter.KEYWORD_ONLY) for key in others if key not in image]

        @wraps(draw)
        def figure_of(*words: Any, **given: Any) -> ChartType:
            chosen = {name: given.pop(name) for name in shared if name in given}
            rows = figure.annotation.of(*words[len(image) :], **chosen)
            return draw(rows, *words[: len(image)], **given)

        of = signature(Figure.of).parameters
        keys = [*image, of["folder"], of["more"], *(of[name] for name in shared[1:]), *options]
        figure_of.__signature__ = Signature(keys, return_annotation=ChartType)  # type: ignore[attr-defined]
        FIGURES[draw.__name__.replace("_", "-")] = figure_of
        return figure_of

    return register


@registered("attack source target value width height names")
def curves(figure: Figure) -> ChartType:
    """Draw success, accuracy or confidence over the budget, a line per attack, source and target.

    If no attack is named, every attack has a line. If no source is named, the lines show the mean
    over sources; if no target is named, the mean on other models, as in the ranking, or white boxes
    if there are no other models. Up to three lines have 95 % bands. The result, the errors and
    further arguments are as for `matrix`.

    Keywords:
        attack: Attacks to draw; None: all.
        source: Sources to draw; None: their mean.
        target: Targets to draw; None: the mean on other models.
    """
    view, column = figure.view, VALUES[figure.value][0]
    transfers = view.rows["relation"] == TRANSFER
    if targets := figure.target or view.options["target"] * (not transfers.any()):
        of_pair = (view.rows["source"] != MEAN) | transfers
        rows = view.rows[view.rows["target"].isin(targets) & of_pair]
    else:
        ranked = figure.of_first(view.ranking)["attack"]
        rows = view.overall[view.overall["attack"].isin(ranked)].assign(target="")
    rows = figure.of_sources(figure.chosen(rows))
    ends = {"value": column, "low": f"{column}_low", "high": f"{column}_high"}
    rows = rows.assign(**{end: rows.get(name, nan) for end, name in ends.items()})
    rows = figure.labelled(rows.dropna(subset="value"))
    bands = rows["label"].nunique() <= _MOST_BANDS
    top = ceil(10 * rows[["value", "high"] if bands else ["value"]].max().max()) / 10 or 0.1
    title = figure.title(rows, "fooled" if targets else _SUCCESS)
    scale = alt.Scale(domain=[0, min(top, 1)])
    rows, heading = styled(rows, figure.order(rows)), figure.heading(rows)
    chart = _curves(rows, figure.height - BELOW, title, scale=scale, bands=bands)
    return figure.printed(chart, heading)


def styled(
    rows: pd.DataFrame, order: Sequence[str], colours: Sequence[str] = PALETTE
) -> pd.DataFrame:
    """Add colour, dash and marker of each label by its place, and what else `charts.curves` draws.

    The first seven places look as on the page. All of the first 343 differ.
    """
    places, count = rows["label"].map(list(order).index), len(DASHES)
    look: dict[str, list[Any]] = {
        "colour": [colours[place % len(colours)] for place in places],
        "dash": [DASHES[place % count] for place in places + places // count],
        "shape": [SHAPES[place % count] for place in places + places // count**2],
    }
    right = rows.get("right", True)
    return rows.assign(**look, width=1.1, series=rows["label"], right=right)


def _curves(rows: pd.DataFrame, height: float, title: str, **look: Any) -> Any:
    """Draw the `value` of `styled` rows over the budget."""
    data = inline(rows[[name for name in _DRAWN if name in rows]])
    tried = sorted({*rows["eps_255"]} - {0.0})
    return charts.curves(tried, height, rows=data, title=title, line=LINE, **look)


@registered("attack source eps_255 width height names")
def ranking(figure: Figure) -> ChartType:
    """Draw mean success, and intervals of the differences from the first.

    There is a row per attack by rank. Lines are the simultaneous 95 % intervals of the difference
    from the first, as in `rankings`, drawn from its mean, which is a vertical line. They do not
    reach it exactly where an attack is significantly weaker; the others share the colour of the
    first. Without tests they are the intervals of the means. The result, the errors and further
    arguments are as for `matrix`.

    Keywords:
        attack: Attacks to draw; None: all.
        source: Source; None: the mean over the sources.
    """
    rows = figure.ranked
    at = (rows["mean"] - rows["difference"]).fillna(rows["mean"])
    rows = rows.assign(at=at, start=at + rows["difference_low"], end=at + rows["difference_high"])
    unclear = rows["rank"].min() > 1 or at.round(9).nunique() > 1  # which is not in the first row
    first = "the first of its ranking" if unclear else "the first"
    key = f"Lines: simultaneous 95 % intervals of the difference from {first} (vertical line). "
    key += "Grey: significantly weaker; red: not."
    if rows["start"].isna().all():
        rows = rows.assign(at=nan, start=rows["low"], end=rows["high"], undecided=False)
        key = "Lines: 95 % intervals of means, not of differences."
    figure.check(rows["label"], key)
    chart = charts.ranking(rows, figure.title(rows, _SUCCESS))
    return figure.printed(chart, figure.heading(rows, figure.view.choice.eps), key)


@registered("attack source target eps_255 protocol value width height names")
def matrix(figure: Figure) -> ChartType:
    """Draw success, accuracy or confidence of one attack in percent, sources x targets.

    White boxes are grey.

    Keywords:
        folder: What `load_sweep` or `transfer` returned, or folders as for `table`.
        more: Further folders.
        attack: Label of the attack; None: the first in the ranking.
        source: Sources to draw; None: all.
        target: Targets to draw; None: all.
        eps_255: Budget in units of 1/255; None: the reference budget.
        protocol: Protocol; None: the job's protocol.
        value: What is drawn: success (the default), accuracy, confidence or true_confidence.
        width: Printed width, such as 3.3in (the default), 84mm or 240pt; the text is set in 7 pt.
        height: Printed height, by default 2in.
        names: Printed names of attacks and models, by their own names.

    Returns:
        An Altair chart: a notebook displays it, and `chart.save("matrix.pdf")` writes it.

    Raises:
        ValueError: As `load_sweep`; no job has this attack, budget, protocol or model; or the names
            do not fit.
    """
    choice, column = figure.view.choice, VALUES[figure.value][0]
    figure = replace(figure.single("attack"), attack=figure.attack or [choice.attack])
    rows = figure.chosen(pairs_of(figure.view.rows))
    rows = rows[rows["eps_255"] == choice.eps]
    for axis in ("source", "target"):
        rows = rows[rows[axis].isin(getattr(figure, axis) or rows[axis])]
        rows[axis] = figure.printed_names(rows[axis])
    sources, targets = (list(rows[axis].unique()) for axis in ("source", "target"))
    words = "mean over" if "confidence" in column else "share of"
    relations = {*rows["relation"]}
    spread = column == "success_rate" and bool(rows["success_rate_sd"].notna().any())
    key = f"Cells: {figure.title(rows)}, {words} {COUNTED[choice.protocol]}"
    key += "; grey: white box" * (WHITE_BOX in relations)
    key += "; orange frame: the source's network behind another defence" * (OWN in relations)
    key += "; \N{PLUS-MINUS SIGN}: standard deviation over the seeds, in points" * spread
    figure.check(sources, key)
    cell = (figure.width - max(map(len, sources)) * LETTER - 20) / len(targets)
    if cell < 2.5 * LETTER:
        raise ValueError(
            f"{len(targets)} targets do not fit: set width, or choose fewer with target."
        )
    turned = max(map(len, targets)) * LETTER > cell
    right = (figure.width / len(targets) - cell) / 2 * turned  # room for the last slanted name
    chart = charts.matrix(rows, column, angle=-40 * turned)
    return figure.printed(chart, figure.heading(rows, choice.eps), key, right=right)


@registered("attack source eps_255 width height names")
def cost(figure: Figure) -> ChartType:
    """Draw the mean success of `ranking` over gradients per image, one point per attack.

    Gradients are those of all budgets together. Arguments, result and errors are as for `ranking`.
    """
    rows, x = figure.ranked, "gradients"
    if lacking := ", ".join(rows.loc[~(rows[x] > 0), "label"]):
        raise ValueError(
            f"{lacking}: the gradients are unknown or 0, which has no place on a logarithmic axis. "
            "Choose others with attack."
        )
    start = rows[x].min() / 1.3
    room = (rows["label"].str.len() * LETTER + 34) / (figure.width - 45)  # of the axis, for a name
    end = (start * (rows[x] / start) ** (1 / (1 - room).clip(lower=0.3))).max()
    at = (np.log(rows[x] / start) / np.log(end / start)).sort_values()
    right = (at + room).loc[at.index].cummax()  # ends of names
    rows["column"] = (at > right.shift()).cumsum()  # of names one below another
    low = floor(20 * rows[["mean", "low"]].min().min()) / 20
    high = (floor(20 * rows[["mean", "high"]].max().max()) + 1) / 20
    step = LINE / (figure.height - BELOW) * (high - low)
    title = figure.title(rows, _SUCCESS)
    heading = figure.heading(rows, figure.view.choice.eps)
    rows = styled(rows, figure.order(rows))
    chart = charts.cost(rows, title, [start, end], [low, high], step)
    return figure.printed(chart, heading)


@registered("attack source target width height names")
def confidence_groups(pair: Pair, groups: int = 3, bins: float | None = None) -> ChartType:
    """Draw accuracy and confidence of one pair over the budget, by initial confidence.

    The images are those that the job's protocol counts and the target classifies correctly when
    clean. Groups of fewer than three images are not drawn. Without names the attack is the first in
    the ranking, and the pair is the one that it fools most often. The other keywords, the result
    and the errors are as for `matrix`.

    Keywords:
        groups: Number of groups of equal size, by default 3.
        bins: Width of fixed groups instead, in points of confidence, such as 5.
    """
    pair = pair.alone
    if groups < 1 or (bins is not None and not 0 < bins <= 100):
        raise ValueError("groups must be at least 1, and bins above 0 and at most 100 points.")
    edges = groups if bins is None else (np.arange(bins, 100 - 1e-9, bins) / 100).round(9).tolist()
    job, record = pair.jobs[0], pair.jobs[0].record
    targets = [*map(ModelRef.parse, pair.target)]
    result = job_outcomes(job.predictions, record.source, targets, record.protocol)
    rows = by_initial_confidence(result, edges)
    clean = rows.groupby("group")["n"].transform("first")
    fewest, sizes = 1 if bins is None else FEWEST_IN_BIN, clean[rows["eps_255"] == 0]
    total, left = sizes.sum(), sizes[sizes < fewest].sum()
    if total < FEWEST:
        raise ValueError(f"Curves by initial confidence need {FEWEST} counted images.")
    if left == total:
        raise ValueError(f"bins={bins:g}: no bin has {FEWEST_IN_BIN} images. Choose wider ones.")
    left_out = f"Not drawn: {left} of {total} images, in bins of fewer than {FEWEST_IN_BIN}."
    if left:
        log.warning(left_out)
    rows = rows.assign(clean=clean)[clean >= fewest]
    rows["label"] = rows["name"] + rows["clean"].map(" ({:.0f})".format)
    labels = list(dict.fromkeys(rows["label"]))  # the most confident first
    pair.check(labels)
    channels = np.array([[*bytes.fromhex(shade[1:])] for shade in SHADES]).T
    places, levels = np.linspace(len(SHADES) - 1, 0, len(labels)), range(len(SHADES))
    mixed = [[round(np.interp(at, levels, row)) for row in channels] for at in places]
    rows = styled(rows, labels, [f"#{bytes(colour).hex()}" for colour in mixed])

    def draw(width: float, height: float) -> Any:
        panels = (
            _curves(rows.assign(value=rows[column]), height, title, names=column == "confidence")
            for column, title in (VALUES["accuracy"], VALUES["confidence"])
        )
        return alt.hconcat(*(panel.properties(width=width) for panel in panels), spacing=8)

    return pair.panels(draw, 2, pair.name(), left_out * bool(left))


@registered("attack source target width height names")
def image(pair: Pair, number: int | str) -> ChartType:
    """Draw the confidence of one image over the budget, and its likeliest classes.

    There is a line per attack, with a cross where the class is wrong. The likeliest classes are
    those of the clean image, and at the smallest budget at which the first attack makes the class
    wrong, or else at the budget with the lowest confidence. A class that is already wrong when
    clean is called so. Keywords, result and errors are as for `confidence_groups`.

    Keywords:
        number: The image's number, or its file such as cat/17.jpg, as in images.csv.
    """
    index = pair.number(number)
    parts = [pair.predictions(job, index) for job in pair.jobs]
    labels = [renamed(job.attack, pair.names) for job in pair.jobs]
    pair.check(labels)
    rows = pd.concat([part.assign(label=text) for part, text in zip(parts, labels, strict=True)])
    rows, attacked = styled(rows, pair.order(rows)), parts[0][parts[0]["eps_255"] > 0]
    wrong = attacked[~attacked["right"]]
    turn = wrong.iloc[0] if len(wrong) else attacked.sort_values("confidence").iloc[0]
    clean, key = parts[0].iloc[0], "Cross: wrong class. Bars: likeliest classes, the true one grey."
    what = "wrong at " if len(wrong) else "lowest at "
    if not clean["right"]:
        what, key = "", f"{key} The class is already wrong when clean."
    images = {"clean": clean, f"{labels[0]}: {what}{turn['eps_255']:g}/255": turn}

    def draw(width: float, height: float) -> Any:
        curve = _curves(rows, height, "confidence").properties(width=0.55 * width)
        bars = [
            charts.classes(pair.classes(row), title, 0.45 * width, (height - 14) / 10)
            for title, row in images.items()
        ]
        return alt.hconcat(curve, alt.vconcat(*bars, spacing=3), spacing=8)

    return pair.panels(draw, 1, pair.name(index), key)


@registered("attack source target names")
def strip(
    pair: Pair, number: int | str, budgets: Sequence[float] = (), width: str | None = None
) -> ChartType:
    """Draw an image as a row of pictures: clean, perturbation and budgets, with classes below.

    The perturbation is that of the last budget. Without `width` the strip is as wide as its texts
    need, at least 3.3 in; the height follows from the width. Keywords, result and errors are as for
    `confidence_groups`.

    Keywords:
        number: The image's number, or its file such as cat/17.jpg, as in images.csv.
        budgets: Budgets in units of 1/255, by default all that are stored.
    """
    pair = pair.alone
    index = pair.number(number)
    pictures = pair.pictures(index, budgets)
    cells = pair.cells(index, pictures)
    words = [word for cell in cells for word in [*cell["name"].split(), cell["head"]]]
    need = len(cells) * (max(map(len, words)) * LETTER + 4)
    wide = to_points("width", width) if width else max(pair.width, need)
    if need > wide:
        raise ValueError(
            f"{len(cells)} pictures need a width of {ceil(need / 7.2) / 10:g}in. Set it, or choose "
            "fewer budgets with eps."
        )
    side = (wide - 6) / len(cells) - 2
    tall = side * pictures[0.0].shape[1] / pictures[0.0].shape[2]
    texts = [
        [cell["head"], *textwrap.wrap(cell["name"], int((side - 2) / LETTER)), cell["share"]]
        for cell in cells
    ]
    rows = pd.DataFrame(cells).assign(place=range(len(cells)), text=[*map("\n".join, texts)])
    chart = charts.strip(rows[["url", "place", "text", "colour"]], side, tall)
    heading = replace(pair, width=wide).titled(pair.name(index))
    return on_paper(chart.properties(width=wide - 6, title=heading))


@registered("attack source target width height names")
def profiles(pair: Pair) -> ChartType:
    """Draw a target's five highest probabilities on clean images, by initial confidence.

    Keywords, result and errors are as for `confidence_groups`.
    """
    clean = pair.jobs[0].clean
    rows = confidence_profiles(clean[clean["target"].isin(pair.target)])
    if rows.empty:
        raise ValueError(
            "profiles need stored likeliest classes of clean images with 57.5 % confidence or more."
        )
    heading = [f"{renamed(pair.target[0], pair.names)}, clean images", images_text(pair.jobs[:1])]
    return pair.printed(charts.profiles(inline(rows)), ", ".join(filter(None, heading)))
