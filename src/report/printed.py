"""Choices, sizes and texts of printed charts: lengths are in 1/72 in, all text has one size."""

import base64
import io
import logging
import re
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Self

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from altair.typing import ChartType
from numpy.typing import NDArray
from PIL import Image

from ..analysis.ranking import falling_order
from ..artifacts.finished_job import FinishedJob
from ..artifacts.layout import TOP_FIVE
from ..artifacts.sweep_folders import Sweeps
from ..utils.model_names import NO_DEFENCE, renamed
from ..utils.refusals import choose, shortened
from .charts.theme import INK, LINE, MEAN, PALETTE, PRINT, paper_theme
from .images_text import images_text
from .page.html import VEGA_LITE
from .results import Results, open_results
from .view import View, view_of

log = logging.getLogger(__name__)

LETTER = 0.52 * PRINT
"""Mean width of a letter, in 1/72 in."""
BELOW = 41.0
"""Height of an axis with its title, and of the chart's title, in 1/72 in."""
VALUES = {
    "success": ("success_rate", "fooled"),
    "accuracy": ("robust_accuracy", "still correct"),
    "confidence": ("confidence", "confidence"),
    "true_confidence": ("true_confidence", "confidence in the true class"),
}
"""Columns and titles of what curves and matrices show, by the name that users type."""
WRONG = PALETTE[1]
"""Colour of the texts of a wrong class."""
Names = str | Sequence[str] | None
_TO = " \N{RIGHTWARDS ARROW} "
_AXES = ("attack", "source", "target")
_UNITS = {"in": 72.0, "cm": 72 / 2.54, "mm": 72 / 25.4, "pt": 72 / 72.27}  # pt: TeX points
_RIGHT, _OTHER = "#9aa5b1", "#e3b08f"


@dataclass(frozen=True)
class Figure:
    """A printed chart: its rows, the chosen attacks, sources and targets (empty: all), and size.

    Attributes:
        width: Width in 1/72 in; `height` likewise.
        names: Printed names of attacks and models, by their own names.
        value: One of `VALUES`.
    """

    results: Results
    view: View
    width: float
    height: float
    names: Mapping[str, str] = field(default_factory=dict)
    attack: Sequence[str] = ()
    source: Sequence[str] = ()
    target: Sequence[str] = ()
    value: str = "success"

    @classmethod
    def of(
        cls,
        folder: Sweeps | Results,
        *more: Sweeps,
        attack: Names = None,
        source: Names = None,
        target: Names = None,
        eps_255: float | None = None,
        protocol: str | None = None,
        value: str = "success",
        width: str = "3.3in",
        height: str = "2in",
        names: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the rows of sweeps, the chosen names, budget, protocol and value, and the size.

        Raises:
            ValueError: The jobs have only clean images, or no job has a chosen value.
        """
        results = open_results(folder, *more)
        if not results.attacked:
            raise ValueError("These jobs have only clean images; a chart needs an attack.")
        view = view_of(results)
        options = {**view.options, "eps_255": view.options["eps"], "value": [*VALUES]}
        axes: dict[str, Any] = {"attack": attack, "source": source, "target": target}
        axes = {key: [x] if isinstance(x, str) else [*(x or ())] for key, x in axes.items()}
        eps = view.choice.eps if eps_255 is None else eps_255
        protocol = protocol or view.choice.protocol
        chosen = {**axes, "eps_255": [eps], "protocol": [protocol], "value": [value]}
        for key, values in chosen.items():
            for name in values:
                choose(key, name, options[key])
        view = replace(view, choice=replace(view.choice, eps=eps, protocol=protocol))
        size = to_points("width", width), to_points("height", height)
        return cls(results, view, *size, names or {}, **axes, value=value)

    def single(self, *axes: str) -> Self:
        """Return the figure; raise a `ValueError` if several of an axis are chosen."""
        for axis in axes:
            if len(getattr(self, axis)) > 1:
                raise ValueError(f"This figure shows one {axis}: choose one with {axis}.")
        return self

    def chosen(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows for the chosen attacks, protocol and defence."""
        choice = self.view.choice
        rows = rows[rows["attack"].isin(self.attack)] if self.attack else rows
        return rows[(rows["defence"] == choice.defence) & (rows["protocol"] == choice.protocol)]

    @property
    def ranked(self) -> pd.DataFrame:
        """The rows of the ranking at the chosen budget, best first."""
        rows = self.view.ranking
        rows = self.of_first(rows[rows["eps_255"] == self.view.choice.eps])
        order = falling_order(rows["mean"].to_numpy(float), rows["attack"].to_numpy(str))
        return self.labelled(rows.iloc[order])

    def of_first(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of rankings for the chosen sources or else their mean.

        If there are several rankings (one per norm, for example) and no chosen attacks, only the
        first is used.
        """
        rows = rows[(rows["defence"] == self.view.choice.defence) & (rows["of"] == rows["source"])]
        rows = self.of_sources(rows.dropna(subset="mean").assign(target=""))
        if self.attack:
            return rows[rows["attack"].isin(self.attack)]
        return rows[rows["part"] == rows["part"].min()]

    def of_sources(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of the chosen sources, or else of their mean, or else the only source."""
        return rows[rows["source"].isin(self.source or [self.view.choice.source or MEAN])]

    def labelled(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add `label`, the printed names that tell rows apart; raise if none or too many."""
        if rows.empty:
            raise ValueError(
                "Nothing to draw: with these names no image counts on other models. Choose others."
            )
        axes = [axis for axis in _AXES if rows[axis].nunique() > 1]
        names = pd.DataFrame({axis: self.printed_names(rows[axis]) for axis in axes or ["attack"]})
        separator = ", "
        if axes[-2:] == ["source", "target"]:
            separator, names["target"] = ": ", names.pop("source") + _TO + names["target"]
        rows = rows.assign(label=names.agg(separator.join, axis=1))
        self.check(rows["label"].unique())
        attacks = self.attack or self.view.options["attack"]
        if left := [name for name in attacks if name not in {*rows["attack"]}]:
            not_drawn = ", ".join(f"{name} (another ranking, or none)" for name in left)
            log.warning(f"Not drawn: {not_drawn}. Choose with attack or source.")
        return rows

    def heading(self, rows: pd.DataFrame, eps: float | None = None) -> str:
        """Name the place of rows, see `place`, and how many of their images are for tuning."""
        jobs = [job for job in self.results.jobs if job.attack in {*rows["attack"]}]
        return ", ".join(filter(None, [self.place(rows, eps), images_text(jobs)]))

    def place(self, rows: pd.DataFrame, eps: float | None = None) -> str:
        """Name the rows' attack, source and target, or `attacks` and so on, and a budget."""
        attack, source, target = (
            f"{axis}s" if rows[axis].nunique() > 1 else renamed(rows[axis].iloc[0], self.names)
            for axis in _AXES
        )
        text = f"{attack}: {source}{_TO}{target or 'other models'}"
        return text if eps is None else f"{text} at {eps:g}/255"

    def order(self, rows: pd.DataFrame) -> list[str]:
        """Return the labels in the order of their colours; attacks by rank, as on the page."""
        options = self.view.options
        names = [[renamed(axis, self.names) for axis in options[axis]] for axis in _AXES[::2]]
        order = next((axis for axis in names if rows["label"].isin(axis).all()), rows["label"])
        return list(dict.fromkeys(order))

    def title(self, rows: pd.DataFrame, fooled: str = "fooled") -> str:
        """Name what is shown of the rows; success is `fooled`, unless all attacks are targeted."""
        table = self.view.rows
        aimed = table.loc[table["attack"].isin(rows["attack"]), "targeted"].all()
        success = "target class reached" if aimed else fooled
        return success if self.value == "success" else VALUES[self.value][1]

    def printed_names(self, column: pd.Series) -> pd.Series:
        """Return the printed names of a column; raise a `ValueError` if two are alike."""
        names = column.map(lambda name: renamed(name, self.names))
        if names.nunique() < column.nunique():
            same = column.groupby(names).nunique().idxmax()
            raise ValueError(f"names: {same!r} is the printed name of several.")
        return names

    def check(self, names: Collection[str], key: str = "") -> None:
        """Raise a `ValueError` if the names do not fit below each other or into half the width.

        `key` is a text below the title.
        """
        lines = len(names) + ceil(len(key) * LETTER / self.width)
        if (need := lines * LINE + BELOW) > self.height:
            raise ValueError(
                f"{len(names)} names need a height of {ceil(need / 7.2) / 10:g}in. Set it, or "
                "choose fewer with attack, source and target."
            )
        longest = max(names, key=len)
        if len(longest) * LETTER > self.width / 2:
            raise ValueError(
                f"The name {longest!r} is too long: shorten it with names, or increase width."
            )

    def titled(self, *texts: str) -> list[str]:
        """Return the lines of a title that is as wide as the figure; each text begins a line."""
        return [line for text in texts for line in textwrap.wrap(text, int(self.width / LETTER))]

    def printed(self, chart: Any, *texts: str, right: float = 0) -> ChartType:
        """Give a chart a title and the figure's size, including the axes and the room at its right.

        Each of the texts begins a line of the title.
        """
        fit: Any = alt.AutoSizeParams(type="fit", contains="padding")
        size = {"width": self.width, "height": self.height, "autosize": fit}
        return on_paper(chart.properties(**size, title=self.titled(*texts)), right)

    def panels(self, draw: Callable[[float, float], Any], columns: int, *texts: str) -> ChartType:
        """Print a chart of panels; `draw` takes a panel's width and height."""
        width, height = self.width / columns, self.height - 30
        for _ in range(3):  # text keeps its size, so that a chart shows how much its axes take
            chart = on_paper(draw(width, height).properties(title=self.titled(*texts)))
            svg = vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=VEGA_LITE)
            real = [float(size) for size in re.findall(r' (?:width|height)="([\d.]+)"', svg)[:2]]
            width += (self.width - real[0]) / columns
            height += self.height - real[1]
        return chart


def to_points(key: str, text: str) -> float:
    """Convert the length of a keyword, such as 3.3in, to units of 1/72 in."""
    match = re.fullmatch(rf"(\d+\.?\d*|\.\d+) *({'|'.join(_UNITS)})", text)
    if not match or float(match[1]) == 0:
        raise ValueError(f"{key}={text}: write a number and in, cm, mm or pt, such as 3.3in.")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Pair(Figure):
    """A chart of one source and one target, and the jobs of the attacks, best rank first.

    Keywords:
        attack: Attack; None: the first in the ranking, or all if several are drawn.
        source: Source; None: that of the pair that the first attack fools most often.
        target: Target; None: that of the pair that the first attack fools most often.
    """

    jobs: Sequence[FinishedJob] = ()

    @classmethod
    def of(cls, *folders: Any, **chosen: Any) -> Self:
        """Return the first pair of `View.pairs` with the chosen names, and its jobs by rank."""
        figure = Figure.of(*folders, **chosen).single("source", "target")
        pairs = figure.view.pairs
        for place, axis in enumerate(_AXES):
            pairs = [pair for pair in pairs if pair[place] in (getattr(figure, axis) or pair)]
        if not pairs:
            raise ValueError("No job has this attack with this source and target.")
        _, source, target = pairs[0]
        attacks = dict.fromkeys(attack for attack, *pair in pairs if pair == [source, target])
        first = [row[0].job for row in figure.results.attacked]
        jobs = {(job.attack, job.record.source): job for job in first}
        made = [jobs[attack, source] for attack in attacks]
        return cls(**{**vars(figure), "source": [source], "target": [target], "jobs": made})

    @property
    def alone(self) -> Self:
        """The pair with its first attack; several chosen ones raise a `ValueError`."""
        return replace(self.single("attack"), jobs=self.jobs[:1])

    def name(self, image: int | None = None) -> str:
        """Name the drawn attack, source and target, and an image with its true class."""
        attacks, (source,), (target,) = [job.attack for job in self.jobs], self.source, self.target
        rows = pd.DataFrame({"attack": attacks, "source": source, "target": target})
        if image is None:
            return self.heading(rows)
        label = self.predictions(self.jobs[0], image)["label"].iloc[0]
        return f"Image {image} ({self.class_name(label)}), {self.place(rows)}"

    def predictions(self, job: FinishedJob, number: int) -> pd.DataFrame:
        """Return the target's predictions of an image by budget, and whether they are `right`."""
        rows = job.predictions[job.predictions["target"] == self.target[0]]
        rows = rows[rows["defence"] == NO_DEFENCE]  # others are of a source behind a defence
        if number not in (numbers := rows["index"].unique()):
            raise ValueError(f"image {number}: choose one of the {len(numbers)} in images.csv.")
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
        way = f"choose from {shortened([files[at] for at in found])}" if found else "no such file"
        raise ValueError(f"image {image}: {way}. The files and numbers are in images.csv.")

    def class_name(self, number: float) -> str:
        """Return the name of a class; a model that abstains has none."""
        return self.jobs[0].record.class_names[int(number)] if number >= 0 else "none"

    def classes(self, row: pd.Series) -> pd.DataFrame:
        """Return the five likeliest classes; if they are not stored, the predicted and true one."""
        shares = {row["predicted"]: row["confidence"], row["label"]: row["true_confidence"]}
        if TOP_FIVE in (job := self.jobs[0]).tables:
            top = job.table(TOP_FIVE)
            top = top[(top["target"] == self.target[0]) & (top["defence"] == NO_DEFENCE)]
            top = top[(top["index"] == row["index"]) & (top["eps_255"] == row["eps_255"])]
            for classes, values in top[["top5_classes", "top5_confidences"]].to_numpy():
                shares = dict(zip(classes, values, strict=True))
        table = pd.DataFrame({"number": list(shares), "value": list(shares.values())})
        table["text"] = [f"{self.class_name(one)} {100 * p:.0f} %" for one, p in shares.items()]
        table["colour"] = np.where(table["number"] == row["label"], _RIGHT, _OTHER)
        return table.assign(rank=range(len(table)))

    def cells(
        self, number: int, pictures: Mapping[float, NDArray[np.uint8]]
    ) -> list[dict[str, str]]:
        """Return addresses and texts of an image's pictures: clean, last perturbation, budgets."""
        rows = self.predictions(self.jobs[0], number).set_index("eps_255").to_dict("index")
        change = [*pictures.values()][-1].astype(np.int16) - pictures[0.0]
        factor = 127 / max(1, np.abs(change).max())
        noise = np.clip(128 + factor * change, 0, 255).astype(np.uint8)
        cells = []
        for eps, picture in pictures.items():
            right, share = rows[eps]["right"], f"{100 * rows[eps]['confidence']:.0f} %"
            name = "wrong: " * (not right) + self.class_name(rows[eps]["predicted"])
            cell = {"url": _address(picture), "head": f"{eps:g}/255" if eps else "clean"}
            cells.append(cell | {"name": name, "share": share, "colour": INK if right else WRONG})
        enhanced = f"\N{MULTIPLICATION SIGN} {factor:.0f}"
        cell = {"url": _address(noise), "head": "change", "name": enhanced, "share": ""}
        return [cells[0], cell | {"colour": INK}, *cells[1:]]

    def pictures(self, number: int, budgets: Sequence[float]) -> dict[float, NDArray[np.uint8]]:
        """Return an image by budget: clean (0), then these budgets, or else all stored ones.

        Raises:
            ValueError: The job has no picture of the image, or none at one of the budgets.
        """
        job = self.jobs[0]
        pictures = job.pictures.get(number, {})
        if not (stored := sorted(eps for eps in pictures if eps)):
            numbers = [str(index) for index, of in sorted(job.pictures.items()) if len(of) > 1]
            ways = [f"choose from {', '.join(numbers)}"] * bool(numbers)
            if job.record.config["dataset"]["name"] == "images":
                ways += ["call transfer with fewer images, of which it stores more"]
            else:
                ways += [f"run the job with report.images=[{number}]"]
            raise ValueError(f"image {number} has no picture: {', or '.join(ways)}.")
        if unknown := [eps for eps in budgets if eps not in stored]:
            names = ", ".join(f"{eps:g}" for eps in stored)
            raise ValueError(f"eps={unknown[0]:g}: image {number} has pictures at {names}.")
        return {eps: pictures[eps] for eps in (0.0, *(budgets or stored))}


def _is_file(file: str, name: str) -> bool:
    """Return True if one of two paths ends with the other."""
    return f"/{file}".endswith(f"/{name}") or f"/{name}".endswith(f"/{file}")


def _address(picture: NDArray[np.uint8]) -> str:
    """Return a picture as a data address; a small one is enlarged without smoothing."""
    times = max(1, 256 // max(picture.shape[1:]))
    levels = np.moveaxis(picture, 0, -1).repeat(times, 0).repeat(times, 1)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def on_paper(chart: Any, right: float = 0) -> ChartType:
    """Give a chart that has its size a background, room around it, and the printed theme."""
    pads = {"left": 3, "top": 3, "bottom": 3, "right": 3 + right}
    return chart.properties(background="white", padding=pads).configure(**paper_theme())


def writer(path: Path) -> Callable[[dict[str, Any]], bytes]:
    """Return the function that renders a specification, chosen by the file's suffix."""
    writers: dict[str, Callable[[dict[str, Any]], bytes]] = {
        ".pdf": partial(vl_convert.vegalite_to_pdf, vl_version=VEGA_LITE),
        ".png": partial(vl_convert.vegalite_to_png, vl_version=VEGA_LITE, ppi=600),
        ".svg": _svg,
    }
    if path.suffix not in writers:
        raise ValueError(f"out={path}: must end in .pdf, .svg or .png.")
    return writers[path.suffix]


def _svg(spec: dict[str, Any]) -> bytes:
    """Render an SVG with lengths in points: without a unit they would be pixels of 1/96 in."""
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE)
    return re.sub(r'\b(width|height)="([\d.]+)"', r'\1="\2pt"', svg, count=2).encode()
