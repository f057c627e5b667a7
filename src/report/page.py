"""The report as one HTML page that works from disk, and its charts as single files."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from src.report.charts.theme import THEME, Drawn
from src.report.images import Album
from src.utils.files import WriteError, atomic_write, write_csv, write_text

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


@dataclass(frozen=True)
class Figure:
    """A chart with its title, its caption (denominators included) and the rows behind it.

    Its name, the stem of its files, is unique in the report: letters, digits and hyphens.
    """

    name: str
    title: str
    caption: str
    chart: Drawn
    data: pd.DataFrame

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification, described for readers who cannot see the chart."""
        with alt.theme.enable(THEME):
            spec = self.chart.to_dict(validate=False)  # tests validate it, which takes a second
        return {**spec, "description": f"{self.title}. {self.caption}"}


@dataclass(frozen=True)
class Section:
    """A part of the page, with an anchor that is unique; albums are by job or pair."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    albums: tuple[tuple[str, tuple[Album, ...]], ...] = ()


@dataclass(frozen=True)
class Report:
    """The content of a page, in its order.

    The answer is the finding in a sentence or two; alarms are (finding, usual causes), terms
    (heading, (term, description) pairs).
    """

    title: str
    answer: str
    alarms: tuple[tuple[str, str], ...] = ()
    sections: tuple[Section, ...] = ()
    terms: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()

    @property
    def figures(self) -> list[Figure]:
        """Every chart, in the order of the page."""
        return [figure for section in self.sections for figure in section.figures]


def write_page(report: Report, path: Path, cache: Path) -> None:
    """Write the report as one HTML file that loads no other; whole or not at all.

    The script that draws it, which takes a second to make, is kept in the folder `cache`.
    """
    environment = Environment(
        loader=PackageLoader("src.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script"] = _script

    def source(name: str) -> Markup:
        assert environment.loader is not None
        return Markup(environment.loader.get_source(environment, name)[0])

    page = environment.get_template("page.html").render(
        report=report,
        style=source("page.css"),
        embed=source("page.js"),
        vega=Markup(_vega(cache)) if report.figures else "",
    )
    write_text(path, page)


def save_figures(figures: Sequence[Figure], folder: Path) -> None:
    """Write every chart as NAME.png, NAME.svg, NAME.vl.json and its data as NAME.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        png = vl_convert.vegalite_to_png(figure.spec, vl_version=VEGA_LITE, scale=2)
        with atomic_write(folder / f"{figure.name}.png") as temporary:
            temporary.write_bytes(png)
        svg = vl_convert.vegalite_to_svg(figure.spec, vl_version=VEGA_LITE)
        write_text(folder / f"{figure.name}.svg", svg)
        write_text(folder / f"{figure.name}.vl.json", json.dumps(figure.spec))
        write_csv(folder / f"{figure.name}.csv", figure.data)


def _vega(cache: Path) -> str:
    """Return Vega, Vega-Lite and vega-embed as one script."""
    path = cache / f"vega-{VEGA_LITE}-{version('vl-convert-python')}.js"
    if path.exists():
        return path.read_text(encoding="utf-8")
    made = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    text = str(made).replace("</script", "<\\/script")
    with suppress(WriteError):  # else it is made each time
        write_text(path, text)
    return text


def _script(spec: dict[str, Any]) -> Markup:
    """Return a specification as JSON in which no name can end the script that holds it."""
    text = json.dumps(spec, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
