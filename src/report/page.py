"""The report as one HTML page that works from disk, and its drawings as single files."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from src.files import write_text
from src.report.content import Drawing, Pair, Report, Section, Table
from src.report.ink import DARK_PAPER, dark_variables
from src.report.page_matrix import SCALE_STOPS, matrix_parts
from src.report.page_parts import (
    breakable,
    csv_of,
    download_parts,
    drawing_parts,
    pair_ids,
    table_parts,
)
from src.report.style import save_figure
from src.report.svg import fresh, standalone_svg

_TITLES = {
    "matrix": "Transfer matrix",
    "run": "What was run",
    "pairs": "Pair by pair",
    "missing": "What was not computed",
    "methods": "How the numbers are defined",
    "downloads": "Data in this page",
}
_RESERVED = {*_TITLES, "main", "theme", "previous", "next", "place", "page-data"}
_PREFIXES = ("pair-", "fig-", "svg-", "table-", "budget-", "pick-")
_FILE_STEM = re.compile(r"[A-Za-z0-9._-]+")
_ANCHOR = re.compile(r"[a-z0-9-]+")
_LONGEST_PICTURE = 120_000
_ALL_PICTURES = 2_300_000  # characters, so that a page of many pairs stays below 8 MB


def write_page(report: Report, path: Path) -> None:
    """Write the report as one HTML file that asks for nothing else; whole or not at all.

    Args:
        report: What to show. Equal reports give equal bytes.
        path: File to write.

    Raises:
        ValueError: Names or anchors in the report are not unique or hold other characters than
            they may, or a matrix lacks its standard budget.
    """
    write_text(path, page_of(report))


def save_drawings(
    report: Report, folder: Path, progress: Callable[[str], None] = lambda words: None
) -> list[Path]:
    """Write every drawing as PNG, SVG and CSV, and every table as CSV.

    Args:
        report: Where they are taken from.
        folder: Where NAME.png, NAME.svg and NAME.csv go; a drawing that could not be drawn has
            no pictures, one without data no CSV.
        progress: Told which figure of how many is being written.

    Returns:
        The files, in the order of the report.

    Raises:
        ValueError: Two names are equal, or one cannot be the name of a file.
    """
    _check(report)
    written: list[Path] = []
    total = sum(len(part.drawings) for part in _parts(report))
    numbers = count(1)
    for part in _parts(report):
        for drawing in part.drawings:
            progress(f"figure {next(numbers)} of {total}")
            written += _save_drawing(drawing, folder)
        for table in part.tables:
            data = table.frame if table.data is None else table.data
            written.append(_write(folder / f"{table.name}.csv", csv_of(data)))
    return written


def page_of(report: Report) -> str:
    """Return the page as text, see `write_page`."""
    _check(report)
    anchors = pair_ids(report.pairs)
    drawings = [drawing for part in _parts(report) for drawing in part.drawings]
    pictures = sum(drawing.picture for drawing in drawings)
    most = min(_LONGEST_PICTURE, _ALL_PICTURES // max(pictures, 1))
    drawn = {drawing.name: drawing_parts(drawing, most) for drawing in drawings}
    matrices = [matrix_parts(matrix, anchors) for matrix in report.matrices]
    environment = Environment(
        loader=PackageLoader("src.report"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["breakable"] = breakable
    script = _source(environment, "page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    ramp = f".ramp {{ background: linear-gradient(to right, {SCALE_STOPS}); }}"
    inks = dark_variables(part["svg"] for part in drawn.values() if part["svg"])
    pairs = [_pair_parts(pair, anchors, drawn) for pair in report.pairs]
    return environment.get_template("page.html").render(
        report=report,
        titles=_TITLES,
        contents=_contents(report),
        matrices=matrices,
        before=[_section_parts(section, drawn) for section in report.before],
        pairs=pairs,
        after=[_section_parts(section, drawn) for section in report.after],
        downloads=[download_parts(download) for download in report.downloads],
        style=_source(environment, "page.css") + Markup(ramp),
        dark=_source(environment, "dark.css") + Markup(f"--paper:{DARK_PAPER};"),
        inks=Markup(inks),
        script=script,
        script_hash=f"sha256-{digest}",
        data={
            "matrices": [part["data"] for part in matrices],
            "pairs": [part["key"] for part in pairs],
        },
    )


def _pair_parts(
    pair: Pair, anchors: Mapping[tuple[str, str, str], str], drawn: Mapping[str, Any]
) -> dict[str, Any]:
    anchor = anchors[pair.attack, pair.source, pair.target]
    key = {"id": anchor, "attack": pair.attack, "source": pair.source, "target": pair.target}
    return {**_body_parts(pair, drawn), "pair": pair, "anchor": anchor, "key": key, "lead": True}


def _section_parts(section: Section, drawn: Mapping[str, Any]) -> dict[str, Any]:
    return {**_body_parts(section, drawn), "id": section.id, "title": section.title, "lead": False}


def _body_parts(part: Section | Pair, drawn: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "text": part.text,
        "drawings": [drawn[drawing.name] for drawing in part.drawings],
        "tables": [table_parts(table) for table in part.tables],
    }


def _contents(report: Report) -> list[tuple[str, str]]:
    """Return anchor and title of every part that the page has, in its order."""
    has = {
        "matrix": report.matrices,
        "run": report.facts,
        "pairs": report.pairs,
        "missing": report.missing,
        "methods": report.notes,
        "downloads": report.downloads,
    }
    own = {anchor: [(anchor, _TITLES[anchor])] if parts else [] for anchor, parts in has.items()}
    before, after = (
        [(section.id, section.title) for section in sections]
        for sections in (report.before, report.after)
    )
    first, last = own["matrix"] + own["run"], own["missing"] + own["methods"] + own["downloads"]
    return first + before + own["pairs"] + after + last


def _parts(report: Report) -> Iterator[Section | Pair]:
    """Yield everything that holds drawings and tables, in the order of the page."""
    yield from report.before
    yield from report.pairs
    yield from report.after


def _check(report: Report) -> None:
    names: set[str] = set()
    for part in _parts(report):
        items: tuple[Drawing | Table, ...] = (*part.drawings, *part.tables)
        for item in items:
            if not _FILE_STEM.fullmatch(item.name):
                raise ValueError(
                    f"the name '{item.name}' of a drawing or table may hold letters, digits, "
                    "'-', '_' and '.' only."
                )
            if item.name in names:
                raise ValueError(f"two drawings or tables are called '{item.name}'.")
            names.add(item.name)
    anchors: set[str] = set()
    for section in (*report.before, *report.after):
        if not _ANCHOR.fullmatch(section.id) or section.id.startswith(_PREFIXES):
            raise ValueError(
                f"the id '{section.id}' of a section may hold lower-case letters, digits and '-' "
                f"only, and not begin with {', '.join(_PREFIXES)}."
            )
        if section.id in anchors | _RESERVED:
            raise ValueError(f"the id '{section.id}' of a section is taken.")
        anchors.add(section.id)


def _save_drawing(drawing: Drawing, folder: Path) -> list[Path]:
    written = []
    if drawing.figure is not None:
        save_figure(fresh(drawing.figure), folder / f"{drawing.name}.png")
        written.append(folder / f"{drawing.name}.png")
        written.append(
            _write(folder / f"{drawing.name}.svg", standalone_svg(drawing.figure).decode())
        )
    if drawing.data is not None:
        written.append(_write(folder / f"{drawing.name}.csv", csv_of(drawing.data)))
    return written


def _write(path: Path, text: str) -> Path:
    write_text(path, text)
    return path


def _source(environment: Environment, name: str) -> Markup:
    """Return the text of a file beside the template as it is."""
    loader = environment.loader
    assert loader is not None
    return Markup(loader.get_source(environment, name)[0])
