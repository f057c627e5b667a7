"""Write the report as one HTML page that works from disk."""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from altair.typing import ChartType
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ...utils.files import WriteError, write_text
from ...utils.package import PACKAGE, command
from ..charts.theme import page_theme
from ..grid import Grid

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
COLOURS = 7
"""Number of colours: of the best-ranked attacks at the reference budget."""
ENOUGH = 39
"""Fewest images for a comparison; intervals of rates are then at most 30 points wide."""
TOO_FEW = f"below {ENOUGH} images, the interval of a share can be wider than 30 points"
OF_ATTACK = {"attack": "attack"}
"""Keys of a figure whose rows are those of the chosen attack."""
OF_PAIR = {"attack": "attack", "source": "pair_source"}
"""Keys of a figure whose rows are those of the chosen attack and of the pair's source."""
_SCRIPT = "window.vegaEmbed = vegaEmbed;"


@dataclass(frozen=True)
class PageFigure:
    """A chart with its title, its caption (including denominators) and its data.

    Attributes:
        name: A name, unique in the report.
        chart: The chart; it draws the named data `rows`.
        data: All rows.
        keys: Columns that select rows, with the key of the selection that each follows.
        part: The part of the page that shows it: `why` or `data`.
    """

    name: str
    title: str
    caption: str
    chart: ChartType
    data: pd.DataFrame
    keys: Mapping[str, str] = field(default_factory=dict)
    part: str = "why"

    def specification(self) -> dict[str, Any]:
        """Return the Vega-Lite specification without rows."""
        spec = self.chart.to_dict(validate=False)  # validation takes a second: tests do it
        return {**spec, "description": f"{self.title}. {self.caption}"}

    def content(self) -> dict[str, Any]:
        """Return what the script draws: Vega specification, keys, and rows as columns."""
        rows = self.data.astype(object).where(self.data.notna(), None)
        rows = rows.map(lambda value: float(f"{value:.5g}") if isinstance(value, float) else value)
        return {
            **{key: getattr(self, key) for key in ("name", "title", "caption", "part", "keys")},
            "spec": vega_of(self.specification()),
            "columns": json.loads(rows.to_json(orient="split", index=False)),
        }


@dataclass(frozen=True)
class Report:
    """The content of a page.

    Attributes:
        title, answer: The title, and the answer at the reference budget: lead, rest and details.
        alarms: Findings with their usual causes.
        figures: All charts.
        page: Data for the script, and for the parts that need no script.
        blocks: Deflated data by name, which the script unpacks when it needs them.
        terms: (term, description) pairs by heading.
        rankings: The first ranking of each group, for readers without scripts.
        sweeps: Reports by letter, of sweeps that cannot be compared, and what `differs`.
    """

    title: str
    answer: Sequence[str]
    alarms: tuple[tuple[str, str], ...] = ()
    figures: Sequence[PageFigure] = ()
    page: Mapping[str, Any] = field(default_factory=dict)
    blocks: Mapping[str, bytes] = field(default_factory=dict)
    terms: Mapping[str, Iterable[tuple[str, str]]] = field(default_factory=dict)
    rankings: Sequence[Grid] = ()
    sweeps: Mapping[str, "Report"] = field(default_factory=dict)
    differs: Grid | None = None


def write_page(report: Report, path: Path, cache: Path) -> None:
    """Write the report as one HTML file; the drawing script is cached in the folder `cache`."""
    environment = Environment(
        loader=PackageLoader(f"{PACKAGE}.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    parts = {letter: _data(part) for letter, part in report.sweeps.items()}
    page = {**report.page, "sweeps": [*parts.values()]} if parts else _data(report)
    data = {"page": as_json(page), "vega": _vega(cache).encode()}
    blocks = {name: zlib.compress(raw) for name, raw in data.items()} | {**report.blocks}
    for letter, part in report.sweeps.items():
        blocks |= {f"{letter}-{name}": block for name, block in part.blocks.items()}
    packed = {name: Markup(base64.b64encode(raw).decode()) for name, raw in blocks.items()}
    template = environment.get_template("page.html")
    write_text(path, template.render(report=report, blocks=packed, command=command))


def as_json(data: Any) -> bytes:
    """Return data as compact JSON."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _data(report: Report) -> dict[str, Any]:
    return {**report.page, "figures": [figure.content() for figure in report.figures]}


def vega_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Compile a Vega-Lite specification with the theme of the page, which then needs Vega alone.

    A single chart takes the width of its place on the page, axes included.
    """
    fit = {} if "concat" in spec else {"autosize": {"type": "fit-x", "contains": "padding"}}
    themed = {**spec, **fit, "config": page_theme()}
    compiled: dict[str, Any] = vl_convert.vegalite_to_vega(themed, vl_version=VEGA_LITE)
    return compiled


def _vega(cache: Path) -> str:
    """Return Vega as one script."""
    path = cache / f"vega-{VEGA_LITE}-{version('vl-convert-python')}.js"
    if path.exists():
        return path.read_text(encoding="utf-8")
    text = str(vl_convert.javascript_bundle(_SCRIPT, vl_version=VEGA_LITE))
    with suppress(WriteError):  # without a cached file, the script is built each time
        write_text(path, text)
    return text
