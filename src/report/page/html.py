"""Write the report as one HTML page that works from disk, and its charts as files."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import pandas as pd
import vl_convert
from altair.typing import ChartType
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from src.report.charts.theme import THEME, Choice
from src.report.page.galleries import Pictures
from src.utils.files import WriteError, write_csv, write_text
from src.utils.package import PACKAGE

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])


@dataclass(frozen=True)
class Figure:
    """A chart with its title, its caption (including denominators) and its data.

    Attributes:
        name: Stem of its files, unique in the report: letters, digits and hyphens.
        size: Size on the page: `half` of the width, `fit` to the chart, or the `rest` of a row.
        choice: Initial values of the parameters that the page sets.
        keys: Columns of the largest table by which the page selects rows with the chosen values.
    """

    name: str
    title: str
    caption: str
    chart: ChartType
    data: pd.DataFrame
    size: str = "half"
    choice: Choice | None = None
    keys: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The Vega-Lite specification, with a description for readers who cannot see the chart."""
        with alt.theme.enable(THEME):
            spec = self.chart.to_dict(validate=False)  # validation takes a second: tests do it
        if self.choice:
            first = self.choice.params.items()
            params = [{"name": name, "value": value} for name, value in first]
            spec["params"] = [*spec.get("params", []), *params]
        return {**spec, "description": f"{self.title}. {self.caption}"}


@dataclass(frozen=True)
class Section:
    """A section of the page with a unique anchor (`id`) and optionally a shell command.

    The first row of `table` is its heading.
    """

    id: str
    title: str
    text: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    command: str = ""
    table: tuple[tuple[str, ...], ...] = ()


class Answer(NamedTuple):
    """The main finding: a few words, a sentence of at most three numbers, and details."""

    lead: str
    sentence: str
    details: str = ""


@dataclass(frozen=True)
class Report:
    """The content of a page, from top to bottom.

    `answers` are by budget, the reference budget first; `alarms` are (finding, usual causes);
    `menus` have (value, label) options; `pairs` are (attack, source, target) by rank; `terms` are
    (heading, (term, description) pairs).
    """

    title: str
    answers: Mapping[float, Answer]
    alarms: tuple[tuple[str, str], ...] = ()
    sections: tuple[Section, ...] = ()
    menus: Mapping[str, Sequence[tuple[Any, str]]] = field(default_factory=dict)
    choice: Choice = field(default_factory=Choice)
    pairs: Sequence[Sequence[str]] = ()
    pictures: Pictures = field(default_factory=Pictures)
    terms: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()

    @property
    def answer(self) -> Answer:
        """The answer that is shown first."""
        return next(iter(self.answers.values()))

    @property
    def figures(self) -> list[Figure]:
        """All charts, in the order of the page."""
        return [figure for section in self.sections for figure in section.figures]


def write_page(report: Report, path: Path, cache: Path) -> None:
    """Write the report as one HTML file; the drawing script is cached in the folder `cache`."""
    environment = Environment(
        loader=PackageLoader(f"{PACKAGE}.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    vega = Markup(_vega(cache)) if report.figures else ""
    page = environment.get_template("page.html")
    write_text(path, page.render(report=report, vega=vega, data=_data(report)))


def _data(report: Report) -> dict[str, Any]:
    """Return the data for the page's script: specifications, tables (stored once) and pictures."""
    tables: dict[str, Any] = {}
    specs = {}
    for figure in report.figures:
        datasets = figure.spec.get("datasets", {})
        tables |= datasets
        names = sorted(datasets, key=lambda name: -len(datasets[name]))
        specs[figure.name] = {**figure.spec, "datasets": names, "usermeta": figure.keys or None}
    pictures = {key: value for key, value in vars(report.pictures).items() if key[0] != "_"}
    shown = {"answers": report.answers, "choice": asdict(report.choice), "pairs": report.pairs}
    return {"specs": specs, "tables": tables, "pictures": pictures, **shown}


def save_figures(figures: Sequence[Figure], folder: Path) -> None:
    """Write each chart as NAME.svg and its data as NAME.csv; raise if `folder` is a link."""
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, not a folder: remove it to write figures.")
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        svg = vl_convert.vegalite_to_svg(figure.spec, vl_version=VEGA_LITE)
        write_text(folder / f"{figure.name}.svg", svg)
        write_csv(folder / f"{figure.name}.csv", figure.data)


def _vega(cache: Path) -> str:
    """Return Vega, Vega-Lite and vega-embed as one script."""
    path = cache / f"vega-{VEGA_LITE}-{version('vl-convert-python')}.js"
    if path.exists():
        return path.read_text(encoding="utf-8")
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    text = str(bundle).replace("</script", "<\\/script")
    with suppress(WriteError):  # without a cached file, the script is built each time
        write_text(path, text)
    return text
