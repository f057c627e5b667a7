"""Printed charts of one source and target: groups by confidence, single images, and profiles."""

import base64
import io
import logging
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from altair.typing import ChartType
from numpy.typing import NDArray
from PIL import Image

from ..analysis.confidence import by_initial_confidence, confidence_profiles
from ..artifacts.jobs import FinishedJob
from ..artifacts.layout import TOP_FIVE
from ..utils.model_names import NO_DEFENCE, renamed
from ..utils.refusals import shortened
from . import charts
from .charts.theme import PALETTE, SHADES, inline, paper_theme
from .page.html import VEGA_LITE
from .printed import LETTER, LINE, Figure, heading_of, over, printed, styled

log = logging.getLogger(__name__)

FEWEST, FEWEST_IN_BIN = 9, 3
"""Fewest images for curves by initial confidence, and in a group of a fixed width."""
_TEXT, _RIGHT, _OTHER = "#16191d", "#9aa5b1", "#e3b08f"


@dataclass(frozen=True)
class Pair:
    """A source and a target, and the jobs of the chosen attacks, best rank first."""

    figure: Figure
    jobs: Sequence[FinishedJob]
    target: str

    def heading(self, image: int | None = None) -> str:
        """Return the drawn attack, source and target, and an image with its true class."""
        attacks, source = [job.attack for job in self.jobs], self.jobs[0].record.source
        if image is None:
            rows = pd.DataFrame({"attack": attacks, "source": source, "target": self.target})
            return self.figure.heading(rows)
        named = partial(renamed, names=self.figure.names)
        made = "attacks" if len(attacks) > 1 else f"attack {named(attacks[0])}"
        made += f", made on {named(source)}, classified by {named(self.target)}"
        label = self.predictions(self.jobs[0], image)["label"].iloc[0]
        return f"Image {image} ({self.class_name(label)}): {made}"

    def predictions(self, job: FinishedJob, number: int) -> pd.DataFrame:
        """Return the target's predictions of an image by budget, and whether they are `right`."""
        rows = job.predictions[job.predictions["target"] == self.target]
        rows = rows[rows["defence"] == NO_DEFENCE]  # others are of a source behind a defence
        if number not in (known := rows["index"].unique()):
            raise ValueError(f"image {number}: choose one of the {len(known)} in images.csv.")
        rows = rows[rows["index"] == number].sort_values("eps_255")
        return rows.assign(right=rows["predicted"] == rows["label"], value=rows["confidence"])

    def number(self, image: int | str) -> int:
        """Return an image's number; it may be named by its file, with or without folders."""
        if str(image).isdecimal():
            return int(image)
        files = self.jobs[0].image_files
        found = [number for number, file in files.items() if _is_file(file, str(image))]
        if len(found) == 1:
            return found[0]
        if not any(files.values()):
            raise ValueError(f"image {image}: these images have no files. Name one by its number.")
        way = f"choose from {shortened([files[its] for its in found])}" if found else "no such file"
        raise ValueError(f"image {image}: {way}. The files and numbers are in images.csv.")

    def class_name(self, number: float) -> str:
        """Return the name of a class; a model that abstains has none."""
        return self.jobs[0].record.class_names[int(number)] if number >= 0 else "none"


def _is_file(file: str, name: str) -> bool:
    """Return True if one of two paths ends with the other."""
    return f"/{file}".endswith(f"/{name}") or f"/{name}".endswith(f"/{file}")


def groups(pair: Pair, count: int, bins: float | None) -> ChartType:
    """Draw accuracy and confidence over the budget, in groups by initial confidence.

    There are `count` equal groups, or groups of `bins` points with at least three images.
    """
    if count < 1 or (bins is not None and not 0 < bins <= 100):
        raise ValueError("groups must be at least 1, and bins above 0 and at most 100 points.")
    edges = count if bins is None else (np.arange(bins, 100 - 1e-9, bins) / 100).round(9).tolist()
    job, record = pair.jobs[0], pair.jobs[0].record
    args = (job.predictions, record.source, [pair.target], record.protocol, edges)
    if (rows := by_initial_confidence(*args)).empty or rows.groupby("eps_255")["n"].sum()[
        0
    ] < FEWEST:
        raise ValueError(f"Curves by initial confidence need {FEWEST} counted images.")
    clean = rows.groupby("group")["n"].transform("first")
    fewest, sizes = 1 if bins is None else FEWEST_IN_BIN, clean[rows["eps_255"] == 0]
    total, left = sizes.sum(), sizes[sizes < fewest].sum()
    if left == total:
        raise ValueError(f"bins={bins:g}: no bin has {FEWEST_IN_BIN} images. Choose wider ones.")
    left_out = f"Not drawn: {left} of {total} images, in bins of fewer than {FEWEST_IN_BIN}."
    if left:
        log.warning(left_out)
    rows = rows.assign(clean=clean)[clean >= fewest]
    spans = rows[["lowest", "highest", "clean"]].to_numpy()
    rows["label"] = [_span(low, high, n, bins is not None) for low, high, n in spans]
    labels = list(dict.fromkeys(rows["label"]))  # the most confident first
    pair.figure.check(labels)
    last = len(SHADES) - 1
    channels = np.array([[*bytes.fromhex(shade[1:])] for shade in SHADES]).T
    places = np.linspace(last, 0, len(labels))
    mixed = [[round(np.interp(at, range(last + 1), its)) for its in channels] for at in places]
    rows = styled(rows, labels, [f"#{bytes(colour).hex()}" for colour in mixed])
    titles = ("still correct", "confidence")
    heading = heading_of(pair.figure, pair.heading(), left_out * bool(left))

    def draw(width: float, height: float) -> Any:
        panels = [
            over(rows.assign(value=rows[column]), height, title, names=title == titles[1])
            for column, title in zip(("robust_accuracy", "confidence"), titles, strict=True)
        ]
        both = (panel.properties(width=width) for panel in panels)
        return alt.hconcat(*both, spacing=8).properties(title=heading)

    return _sized(draw, pair.figure, 2)


def _span(low: float, high: float, images: float, fixed: bool) -> str:
    """Name a group by its edges, or else by its confidences, rounded down to percents.

    They have a decimal if the group begins above 95 %.
    """
    per = 1000 if fixed else 10 if low > 0.95 else 1
    ends = "\N{EN DASH}".join(f"{np.floor(100 * per * end + 1e-6) / per:g}" for end in (low, high))
    return f"{ends} % ({images:.0f})"


def image(pair: Pair, number: int) -> ChartType:
    """Draw an image's confidence over the budget, and its likeliest classes at two budgets.

    There is a line per attack, with a cross where the class is wrong. The classes are those of the
    clean image, and those at the smallest budget at which the first attack makes the class wrong,
    or else at the one with the lowest confidence.
    """
    parts = [pair.predictions(job, number) for job in pair.jobs]
    labels = [renamed(job.attack, pair.figure.names) for job in pair.jobs]
    pair.figure.check(labels)
    named = [part.assign(label=label) for part, label in zip(parts, labels, strict=True)]
    rows = pd.concat(named)
    rows, attacked = styled(rows, pair.figure.order(rows)), parts[0][parts[0]["eps_255"] > 0]
    wrong = attacked[~attacked["right"]]
    turn = wrong.iloc[0] if len(wrong) else attacked.sort_values("confidence").iloc[0]
    shown = {"clean": parts[0].iloc[0]}
    when = f"{'wrong' if len(wrong) else 'lowest'} at {turn['eps_255']:g}/255"
    shown[f"{labels[0]}: {when}"] = turn
    key = "Cross: wrong class. Bars: likeliest classes, the true one grey."
    heading = heading_of(pair.figure, pair.heading(number), key)

    def draw(width: float, height: float) -> Any:
        curve = over(rows, height, "confidence").properties(width=0.55 * width)
        bars = [
            _bars(_classes(pair, row), title, 0.45 * width, (height - 14) / 10)
            for title, row in shown.items()
        ]
        both = alt.hconcat(curve, alt.vconcat(*bars, spacing=3), spacing=8)
        return both.properties(title=heading)

    return _sized(draw, pair.figure, 1)


def _classes(pair: Pair, row: pd.Series) -> pd.DataFrame:
    """Return the five likeliest classes; if they are not stored, the predicted and true one."""
    shares = {row["predicted"]: row["confidence"], row["label"]: row["true_confidence"]}
    if TOP_FIVE in (job := pair.jobs[0]).files:
        top = job.table(TOP_FIVE)
        top = top[(top["target"] == pair.target) & (top["defence"] == NO_DEFENCE)]
        top = top[(top["index"] == row["index"]) & (top["eps_255"] == row["eps_255"])]
        for classes, values in top[["top5_classes", "top5_confidences"]].to_numpy():
            shares = dict(zip(classes, values, strict=True))
    table = pd.DataFrame({"number": list(shares), "value": list(shares.values())})
    table["text"] = [f"{pair.class_name(one)} {100 * its:.0f} %" for one, its in shares.items()]
    table["colour"] = np.where(table["number"] == row["label"], _RIGHT, _OTHER)
    return table.assign(rank=range(len(table)))


def _bars(rows: pd.DataFrame, title: str, width: float, step: float) -> Any:
    """Draw classes as bars with their names; the true class is grey."""
    y = alt.Y("rank:O", axis=None, scale=alt.Scale(domain=list(range(5))))
    x = alt.X("value:Q", axis=None, scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(inline(rows)).encode(y=y)
    bars = base.mark_bar(height=step - 1).encode(x=x, color=alt.Color("colour:N", scale=None))
    names = base.mark_text(align="left", dx=2, limit=width, style="name", color=_TEXT)
    names = names.encode(x=alt.value(0), text="text:N")
    heading = alt.Title(title, fontSize=7, anchor="start", offset=1, fontWeight="normal")
    return alt.layer(bars, names).properties(width=width, height=5 * step, title=heading)


def strip(pair: Pair, number: int, budgets: Sequence[float], fit: bool) -> ChartType:
    """Draw an image as a row of pictures: clean, perturbation and budgets, with classes below.

    With `fit` the figure is as wide as the texts need; otherwise a width that they exceed raises.
    """
    job = pair.jobs[0]
    rows = pair.predictions(job, number).set_index("eps_255")
    pictures = _pictures(job, number, budgets)
    cells, clean = _picture_cells(pair, rows, pictures), pictures[0.0]
    words = [word for cell in cells for word in [*cell["name"].split(), cell["head"]]]
    need = len(cells) * (max(map(len, words)) * LETTER + 4)
    width = max(pair.figure.width, need) if fit else pair.figure.width
    if need > width:
        raise ValueError(
            f"{len(cells)} pictures need a width of {ceil(need / 7.2) / 10:g}in. Set it, or choose "
            "fewer budgets with eps."
        )
    side = width / len(cells) - 2
    folded = [textwrap.wrap(cell["name"], int((side - 2) / LETTER)) for cell in cells]
    lines = {"head": 1, "name": 2, "share": 2 + max(map(len, folded))}
    tall = side * clean.shape[1] / clean.shape[2]
    place = alt.X("place:O", axis=None, scale=alt.Scale(padding=0))
    base = alt.Chart().encode(x=place)
    layers: list[Any] = [
        base.mark_image(width=side, height=tall).encode(url="url:N", y=alt.value(tall / 2))
    ]
    wrapped: Any = {"lineBreak": "\n", "lineHeight": LINE}
    for name, line in lines.items():
        texts = base.mark_text(style="name", baseline="bottom", **wrapped).encode(
            text=f"{name}:N",
            y=alt.value(tall + (line + 0.3) * LINE),
            color=alt.Color("colour:N", scale=None),
        )
        layers.append(texts)
    data = pd.DataFrame(cells).assign(place=range(len(cells)), name=[*map("\n".join, folded)])
    figure = replace(pair.figure, width=width)
    chart = alt.layer(*layers, data=inline(data)).properties(
        width=width,
        height=tall + (lines["share"] + 0.6) * LINE,
        title=heading_of(figure, pair.heading(number)),
    )
    return chart.properties(background="white", padding=0).configure(**paper_theme())


def _pictures(
    job: FinishedJob, number: int, budgets: Sequence[float]
) -> dict[float, NDArray[np.uint8]]:
    """Return an image by budget: clean (0), then at the given budgets, or else at all stored ones.

    Raises:
        ValueError: The job has no picture of the image, or none at one of the budgets.
    """
    pictures = job.pictures.get(number, {})
    if not (stored := sorted(eps for eps in pictures if eps)):
        known = [str(index) for index, its in sorted(job.pictures.items()) if len(its) > 1]
        ways = [f"choose from {', '.join(known)}"] * bool(known)
        if job.record.config["dataset"]["name"] == "images":
            ways += ["call transfer with fewer images, of which it stores more"]
        else:
            ways += [f"run the job with report.images=[{number}]"]
        raise ValueError(f"image {number} has no picture: {', or '.join(ways)}.")
    if unknown := [eps for eps in budgets if eps not in stored]:
        names = ", ".join(f"{eps:g}" for eps in stored)
        raise ValueError(f"eps={unknown[0]:g}: image {number} has pictures at {names}.")
    return {eps: pictures[eps] for eps in (0.0, *(budgets or stored))}


def _picture_cells(
    pair: Pair, rows: pd.DataFrame, pictures: Mapping[float, NDArray[np.uint8]]
) -> list[dict[str, str]]:
    """Return the addresses and texts of the pictures: clean, the last perturbation, budgets.

    `rows` has the target's predictions of the image, with the budget as index.
    """
    clean, last = pictures[0.0], [*pictures.values()][-1]
    change = last.astype(np.int16) - clean
    factor = 127 / max(1, np.abs(change).max())
    noise = np.clip(128 + factor * change, 0, 255).astype(np.uint8)
    columns = [(0.0, clean, "clean"), (-1.0, noise, "change")]
    columns += [(eps, picture, f"{eps:g}/255") for eps, picture in pictures.items() if eps]
    cells = []
    for eps, picture, head in columns:
        enhanced = f"\N{MULTIPLICATION SIGN} {factor:.0f}"  # what stands below the perturbation
        cell = {"url": _address(picture), "head": head, "name": enhanced, "share": " "}
        cell["colour"] = _TEXT
        for _, its in rows[rows.index == eps].iterrows():
            cell["colour"] = _TEXT if its["right"] else PALETTE[1]
            name = pair.class_name(its["predicted"])
            cell |= {"name": name if its["right"] else f"wrong: {name}"}
            cell |= {"share": f"{100 * its['confidence']:.0f} %"}
        cells.append(cell)
    return cells


def _address(picture: NDArray[np.uint8]) -> str:
    """Return a picture as a data address; a small one is enlarged without smoothing."""
    times = max(1, 256 // max(picture.shape[1:]))
    levels = np.moveaxis(picture, 0, -1).repeat(times, 0).repeat(times, 1)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def profiles(pair: Pair) -> ChartType:
    """Draw the mean of the five highest probabilities on clean images, by initial confidence."""
    clean = pair.jobs[0].clean
    rows = confidence_profiles(clean[clean["target"] == pair.target])
    if rows.empty:
        raise ValueError(
            "profiles need stored likeliest classes of clean images with 57.5 % confidence or more."
        )
    heading = f"{renamed(pair.target, pair.figure.names)}, clean images"
    return printed(charts.profiles(inline(rows)), pair.figure, heading)


def _sized(draw: Callable[[float, float], Any], figure: Figure, columns: int) -> ChartType:
    """Give a chart of several panels the figure's size; `draw` takes a panel's width and height."""
    width, height, chart = figure.width / columns, figure.height - 30, alt.Chart()
    for _ in range(3):  # text keeps its size, so that a chart shows how much its axes take
        chart = draw(width, height).properties(background="white", padding=3)
        chart = chart.configure(**paper_theme())
        svg = vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=VEGA_LITE)
        real = [float(size) for size in re.findall(r' (?:width|height)="([\d.]+)"', svg)[:2]]
        width += (figure.width - real[0]) / columns
        height += figure.height - real[1]
    return chart
