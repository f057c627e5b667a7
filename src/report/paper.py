"""Tables for papers, with chosen rows, columns and values, as LaTeX, Markdown or CSV."""

import html
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.io.formats.style import Styler
from pydantic import ValidationError

from ..analysis import CLEAN
from ..analysis.multiple_comparisons import FEWEST_TESTED
from ..artifacts.record import JobRecord
from ..artifacts.sweep_folders import Sweeps
from ..config.errors import refusal
from ..utils.files import no_formula
from ..utils.formats import span
from ..utils.model_names import renamed
from .audit import tries, tries_cells
from .cells import AVERAGE, DIFFERENCE, VALUES, TableSpec, cells_of, seeds_of, single_sources
from .published import add_published
from .results import Results, open_results

_LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
ESCAPES: dict[str, Callable[[Any], str]] = {
    "html": html.escape,
    "latex": lambda text: text.translate(_LATEX),
    "markdown": lambda text: re.sub(
        r"([\\`*{}\[\]<>|#]|(?<![^\W_])_|_(?![^\W_]))",  # Markdown keeps _ within a word
        r"\\\1",
        text,
    ),
}
"""Functions that escape names for each format."""
_SMALL = {"latex": r" {{\scriptsize [{}, {}]}}", "html": " <small>[{}, {}]</small>"}
_STYLES = {
    "best": "font-weight: bold",
    "undecided": "font-style: italic",
    "white": "color: #777777",
    "verdict": "color: #777777",
}
_MARKS = {"best": "**", "undecided": "*"}


def table(folder: Sweeps | Results, *more: Sweeps | Results, **options: Any) -> Styler | str:
    r"""Lay out a table for a paper, with a caption that explains its numbers and marks.

    A cell shows the value for one pair of source and target, or the mean over several pairs without
    white boxes. The best of the comparable attacks is bold. Attacks that are not significantly
    weaker are in italics, as tested in the report's ranking.

    Args:
        folder: Results of `load_sweep` or `transfer`, a folder that contains sweeps, or several
            folders by name, as in `{"day1": "outputs/DATE"}`.
        *more: Further folders.
        **options: These keywords:

            - `rows`: one or more of `attack`, `source` (both by default), `target` and `defence`;
              if there are several defences, rows or columns have `defence` in any case;
            - `columns`: one or more of the same axes; default: `target`;
            - `value`: `success` (default), `accuracy` (robust accuracy), `confidence`,
              `success_confidence` (over fooled images only), `conditional` (success on images that
              fool the source), `gradients` (per image) or `counts`
              (`1711 / 7448 = 22.97%`: still correct, or successes of targeted attacks); with
              `diagnostics=full` also `rms` (change in 1/255), `psnr` and `ssim`;
            - `eps_255`: budget in units of 1/255; default: each job's reference budget;
            - `protocol`: images to count; default: each job's protocol;
            - `average=False`: leave out the column with the mean over targets, each over the
              sources other than itself. It is there if the columns are sources or targets;
            - `white_boxes=False`: leave out white boxes instead of showing them in grey;
            - `intervals=True`: add the 95 % intervals of pairs and means in small print;
            - `clean=True`: add a first row with the accuracies on all clean images;
            - `published=True`: add a grey row below each attack with comparable published success
              rates, and a verdict on each;
            - `differences=True`: add a column of differences from the first attack in the ranking,
              in points, with simultaneous 95 % intervals;
            - `related=False`: leave out pairs of other networks with the same weights, architecture
              or family;
            - `tries=True`: another table, of some rows of `tries`; takes `eps_255`, `defence`,
              `protocol`, `names`, `wide`, `small` and `to`;
            - `defence`: show only targets behind this defence, such as `none`;
            - `names`: printed names of attacks, models and defences, by their own names;
            - `wide=True`: LaTeX: span both columns of the page;
            - `small=True`: LaTeX: use smaller type and less space between columns;
            - `to`: `latex` (needs booktabs and xcolor), `markdown` or `csv` (numbers without a
              caption); default: a pandas Styler, which a notebook displays.

    Raises:
        ValueError: As `load_sweep`; an argument is unknown or has an unknown value; or a cell would
            combine several attacks or several defences of sources.
    """
    try:
        spec = TableSpec(**options)
    except ValidationError as error:
        raise ValueError(refusal(error)) from error
    if spec.tries:
        return _of_tries(spec, folder, *more)
    results = open_results(folder, *more, related=spec.related)
    if not results.attacked:
        targets = " on targets that are unrelated to their sources" * (not spec.related)
        raise ValueError(f"A table needs jobs with an attack{targets}; there are none.")
    spec, pairs, body = cells_of(results, spec)
    published = list[str]()
    if spec.published:
        body, published = add_published(results, pairs, body, spec.keys)
    if spec.to == "csv":
        return _csv(_wide(body, spec), spec)
    layout = _lay_out(_wide(_with_texts(body, spec), spec), ESCAPES[spec.to or "html"])
    records = [result.job.record for row in results.attacked for result in row]
    caption = caption_of(records, pairs, body, spec)
    details = details_of(records, pairs, spec) + published
    return _rendered(layout, caption, details, spec)


def _of_tries(spec: TableSpec, folder: Sweeps | Results, *more: Sweeps | Results) -> Styler | str:
    """Lay out some rows of `tries`; CSV has all of them, as numbers."""
    chosen: Any = {"eps_255": spec.eps_255, "defence": spec.defence, "protocol": spec.protocol}
    chosen = {name: its for name, its in chosen.items() if its is not None}
    frame = tries(folder, *more, **chosen)
    for axis in ("attack", "source"):
        frame[axis] = [renamed(name, spec.names or {}) for name in frame[axis]]
    if spec.to == "csv":
        return frame.map(no_formula).to_csv(index=False, lineterminator="\n")
    cells, caption = tries_cells(frame, spec.protocol or "target_correct")
    css = np.full((len(cells), cells.shape[1] - 1), "", object)
    heads: list[tuple[str, ...]] = [(str(head),) for head in cells]
    new = np.ones(len(cells), bool)
    layout = _Layout(heads, cells.to_numpy(object), new, css, ESCAPES[spec.to or "html"])
    return _rendered(layout, caption, [], spec)


def _rendered(
    layout: "_Layout", caption: str, details: Sequence[str], spec: TableSpec
) -> Styler | str:
    """Return a table in the format `spec.to`."""
    if spec.to == "latex":
        return _latex(layout, caption, details, spec)
    caption += f" {'. '.join(details)}." * bool(details)
    return _markdown(layout, caption) if spec.to == "markdown" else _styler(layout, caption)


def _with_texts(body: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Add the cells' texts and styles."""
    form, texts, records = VALUES[spec.value].form, [], body.to_dict("records")
    for cell in records:
        signed = cell[spec.columns[0]] == DIFFERENCE
        cell_form = form.replace(":", ":+z") if signed else form
        text = _text(cell, cell_form, spec.intervals or signed, spec.to or "html")
        texts.append(f"{text} ({verdict})" if (verdict := cell.get("verdict")) else text)
    css = ["; ".join(css for key, css in _STYLES.items() if cell.get(key)) for cell in records]
    return body.assign(text=texts, css=css)


def _wide(cells: pd.DataFrame, spec: TableSpec) -> pd.DataFrame:
    """Pivot the cells: for each column of `cells`, a block of rows and columns of the table.

    Names keep the order of their first cells.
    """
    for axis in spec.keys:
        new = cells[axis].map(lambda name: renamed(name, spec.names or {}))
        if new.nunique() < cells[axis].nunique():
            raise ValueError("names: two rows or columns would get the same new name.")
        cells = cells.assign(**{axis: pd.Categorical(new, new.unique())})
    axes: dict[str, Any] = {"index": [*spec.rows], "columns": [*spec.columns]}
    wide = cells.pivot(**axes)
    return wide if spec.white_boxes else cells[~cells["white"]].pivot(**axes).reindex_like(wide)


def _csv(wide: pd.DataFrame, spec: TableSpec) -> str:
    """Return the table's numbers as CSV.

    Further columns have the ends of the intervals, the standard deviation over the seeds, the value
    for each seed, and whether the number is `partial`.
    """
    escape, seeds = no_formula, ["sd", *seeds_of(wide)]
    frame = wide.index.to_frame(index=False).astype(object).map(escape)
    for place in _places(wide):
        ends = ["value", *(("low", "high") if spec.intervals or place[0] == DIFFERENCE else ())]
        ends += [end for end in seeds if wide[(end, *place)].notna().any()]
        if "verdict" in wide and wide[("verdict", *place)].fillna("").ne("").any():
            ends.append("verdict")
        ends += ["partial"] * bool(wide[("partial", *place)].eq(True).any())
        for end in ends:
            names = [*place, "" if end == "value" else end]
            numbers, head = wide[(end, *place)].to_numpy(), escape(" ".join(filter(None, names)))
            frame.insert(frame.shape[1], head, numbers, allow_duplicates=True)  # such as `source`
    return frame.to_csv(index=False, lineterminator="\n")


class _Layout(NamedTuple):
    """Texts of a table; a row's name is empty if it repeats the name above it.

    Attributes:
        heads: Names above the R columns of row names and the C columns of cells.
        texts: Names of rows and texts of cells, shape (rows, R + C).
        new: Whether the first name of a row is new, shape (rows,).
        css: Styles of the cells, shape (rows, C).
        escape: Function that escapes the format's special characters.
    """

    heads: Sequence[tuple[str, ...]]
    texts: NDArray[np.object_]
    new: NDArray[np.bool_]
    css: NDArray[np.object_]
    escape: Callable[[Any], str]


def _lay_out(wide: pd.DataFrame, escape: Callable[[Any], str]) -> _Layout:
    names, places = wide.index.to_frame(index=False).astype(object), _places(wide)
    new = names.ne(names.shift()).cummax(axis=1)  # this name, or one left of it, differs
    heads = [(name, *[""] * (len(places[0]) - 1)) for name in names] + places
    heads = [tuple(map(escape, head)) for head in heads]
    texts = [names.map(escape).where(new, "").to_numpy(), wide["text"].to_numpy()]
    css = wide["css"].fillna("").to_numpy()
    return _Layout(heads, np.hstack(texts), new.iloc[:, 0].to_numpy(), css, escape)


def _markdown(layout: _Layout, caption: str) -> str:
    heads = [" ".join(filter(None, head)) for head in layout.heads]
    texts = pd.DataFrame(layout.texts).fillna("\N{EN DASH}").to_numpy()
    lines = [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *texts)]
    return "\n".join([*lines, "", layout.escape(caption), ""])


def _styler(layout: _Layout, caption: str, none: str = "&ndash;") -> Styler:
    several = len(layout.heads[0]) > 1
    header = (
        pd.MultiIndex.from_tuples(layout.heads) if several else [head[0] for head in layout.heads]
    )
    frame = pd.DataFrame(layout.texts, columns=header).fillna(none)
    css = pd.DataFrame("", frame.index, header)
    css.iloc[:, -layout.css.shape[1] :] = layout.css
    styler = frame.style.apply(lambda _: css, axis=None).hide(axis="index")
    return styler.set_caption(layout.escape(caption))


def _latex(layout: _Layout, caption: str, details: Sequence[str], spec: TableSpec) -> str:
    """Return LaTeX with the details as comments; `wide` spans both columns, `small` uses 8 pt."""
    names = layout.texts.shape[1] - layout.css.shape[1]
    latex = _styler(layout, caption, "--").to_latex(
        hrules=True,
        convert_css=True,
        column_format="l" * names + "r" * layout.css.shape[1],
        multicol_align="c",
        position="t",
        position_float="centering",
    )
    comments = [f"% {' '.join(line.split())}" for line in details]
    needs = "% needs \\usepackage{booktabs} and \\usepackage{xcolor}"
    lines = [needs, *comments, *latex.splitlines()]
    first = lines.index(r"\midrule") + 1
    if names > 1:  # a rule above each new name in the first column
        for number in reversed(np.flatnonzero(layout.new[1:])):
            lines.insert(first + number + 1, r"\midrule")
    latex = "\n".join(lines) + "\n"
    if spec.wide:
        latex = re.sub(r"(\\(?:begin|end)\{table)", r"\1*", latex)
    if spec.small:
        head = r"\\footnotesize\n\\setlength{\\tabcolsep}{2pt}\n\\begin{tabular}{@{}\1@{}}"
        latex = re.sub(r"\\begin\{tabular\}\{(\w+)\}", head, latex)
    return latex


def _places(wide: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return the names that head each column."""
    return [place if isinstance(place, tuple) else (place,) for place in wide["value"]]


def _text(cell: Mapping[Hashable, Any], form: str, intervals: bool, to: str) -> str:
    if pd.isna(cell["value"]):
        return "n/a"
    low, high = (form.format(cell[name]).rstrip("%") for name in ("low", "high"))
    if isinstance(cell["value"], str):  # counts, with their rate and its deviation
        text = ESCAPES["latex"](cell["value"]) if to == "latex" else cell["value"]
    else:
        text = form.format(cell["value"]).rstrip("%")
        if not pd.isna(cell["sd"]):
            text += f" \N{PLUS-MINUS SIGN} {form.format(cell['sd']).rstrip('%')}"
    if intervals and not pd.isna(cell["low"]):
        text += _SMALL.get(to, " [{}, {}]").format(low, high)
    text = text.replace("-", "$-$") if to == "latex" else text
    notes = f" {PARTIAL}" * bool(cell["partial"])
    if to != "markdown":
        return text + notes
    marks = "".join(mark for key, mark in _MARKS.items() if cell[key])
    return f"{marks}{text}{marks}{notes}" + f" {DAGGER}" * bool(cell["white"])


PARTIAL, DAGGER = "\N{DOUBLE DAGGER}", "\N{DAGGER}"
"""Marks of an average over fewer sources or targets than another average, and of white boxes."""
_SINGLE = {"attack": "under", "source": "from", "target": "on"}
"""Prepositions of a caption before what neither rows nor columns name."""
_OF_IMAGES = {name for name, quantity in VALUES.items() if quantity.of_predictions}
_PACKAGES = ("transferability", "torch", "torchvision", "timm", "transferattack")


def caption_of(
    records: Sequence[JobRecord], pairs: pd.DataFrame, shown: pd.DataFrame, spec: TableSpec
) -> str:
    """Return the caption of the `shown` cells.

    The first sentence says what was measured, the second explains the marks.
    """
    white, names = DAGGER if spec.to == "markdown" else "grey", spec.names or {}
    average = names.get(AVERAGE, AVERAGE)
    budgets = _distinct(
        f"{eps:g}/255 ({norm})" for eps, norm in zip(pairs["eps_255"], pairs["norm"], strict=True)
    )
    of = _distinct(map(_set_of_images, records))
    least, most = shown["least"].min(), shown["most"].max()
    quantity = VALUES[spec.value]
    counted = f"{span((least, most))} counted per cell"
    counted += f" ({_distinct(pairs['protocol'])})" * (not quantity.fewest)
    title = quantity.title.format(counted=_distinct(pairs["counted"]))
    single = "".join(
        f" {word} {renamed(pairs[axis].iloc[0], names)}"
        for axis, word in _SINGLE.items()
        if axis not in spec.keys and pairs[axis].nunique() == 1
    )
    first = f"{title}{single} at eps = {budgets}, {of}"
    averaged = _averaged(pairs, spec)
    average_shown = AVERAGE in set(shown[spec.columns[0]])
    over_sources = "source" not in (spec.rows if average_shown else spec.keys)
    marks = {
        "bold: the best attack": bool(shown["best"].any()),
        "italic: not significantly weaker (5 %)": bool(shown["undecided"].any()),
        f"below {FEWEST_TESTED} common images nothing is tested": (
            shown["untested"].eq(True).any()
        ),
        f"{white}: white boxes": spec.white_boxes and bool(shown["white"].any()),
        "without white boxes": not spec.white_boxes,
        "without related pairs": not spec.related,
        f"cells: means over {' and '.join(averaged)}s without white boxes": bool(averaged),
        f"{average}: over targets, each over its sources, without white boxes": average_shown,
        "means over sources: without ensembles and sources behind a defence": (
            over_sources and single_sources(pairs).nunique() > 1
        ),
        f"{names.get(DIFFERENCE, DIFFERENCE)}: from the first in the ranking, in points, "
        "simultaneous 95 % intervals": (DIFFERENCE in set(shown[spec.columns[0]])),
        f"n/a: source not evaluated, or fooled on fewer than {quantity.fewest} of these images": (
            quantity.fewest > 0 and bool(shown.loc[~shown["white"], "value"].isna().any())
        ),
        "in brackets: 95 % intervals": spec.intervals,
        f"{names.get(CLEAN, CLEAN)}: accuracy on all clean images": spec.clean,
        "\N{PLUS-MINUS SIGN}: standard deviation over the seeds": bool(shown["sd"].notna().any()),
        f"{PARTIAL}: mean over fewer sources or targets than others": bool(shown["partial"].any()),
    }
    second = "; ".join(mark for mark, holds in marks.items() if holds)
    sentences = [first + f", {counted}" * (spec.value in _OF_IMAGES)]
    sentences += [second[:1].upper() + second[1:]] * bool(second)
    return " ".join(f"{sentence}." for sentence in sentences)


def details_of(records: Sequence[JobRecord], pairs: pd.DataFrame, spec: TableSpec) -> list[str]:
    """Return what the numbers depend on, one line each: images, steps, weights, seeds, versions."""
    seeds = [str(record.seed) for record in records]
    formats = dict.fromkeys(f"{its.arithmetic}, saved as {its.storage}" for its in records)
    sizes: Any = pairs.groupby(["attack", "group"], sort=False)["rms_255"].mean().dropna()
    lines = {
        f"Images: {_distinct(map(_images, records))}": True,
        f"RMS change in 1/255: {_distinct(f'{k} {v:.2f}' for (k, _), v in sizes.items())}": (
            spec.value in _OF_IMAGES and len(sizes) > 1
        ),
        f"Steps: {_distinct(filter(None, map(_steps, records)))}": any(map(_steps, records)),
        f"Weights: {_distinct(model for record in records for model in _weights(record))}": True,
        f"Arithmetic: {'; '.join(formats)}": [*formats] != ["float32, saved as float32"],
        f"Seed {_distinct(seeds)}": True,
        _distinct(version for record in records for version in _versions(record)): True,
    }
    return [line for line, holds in lines.items() if holds]


def _averaged(pairs: pd.DataFrame, spec: TableSpec) -> list[str]:
    """Return the axes over which a cell averages."""
    axes = [axis for axis in ("source", "target") if axis not in spec.keys]
    images = spec.value in _OF_IMAGES
    return [axis for axis in axes if images and pairs[axis].nunique() > 1]


def _distinct(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _set_of_images(record: JobRecord) -> str:
    of = f" of {record.dataset}" * (record.dataset != "images")  # tensors have no other name
    return f"{record.images} images{of}"


def _images(record: JobRecord) -> str:
    return f"{_set_of_images(record)} (digest {record.data})"


def _steps(record: JobRecord) -> str:
    """Return the attack with its number of steps and their size, as far as it states them."""
    stated = record.config["attack"]["settings"]
    if not (steps := stated.get("steps")):
        return ""
    size = f" x {stated.get('relative_step_size') or 1 / steps:.3g} eps"
    if fixed := stated.get("step_size_255"):
        size = f" x {fixed:g}/255"
    return f"{record.attack} {steps}{size if 'step_size_255' in stated else ''}"


def _weights(record: JobRecord) -> list[str]:
    """Return each model with the tag of its weights (if any) and their digest."""
    models = []
    for name, digest in record.weights.items():
        if name in record.config["model"]:  # an ensemble has no settings
            network = record.config["model"][name]["network"]
            tag = network.get("model_name") or network.get("weights")
            models.append(f"{name} ({f'{tag}, ' if tag else ''}{digest[:8]})")
    return models


def _versions(record: JobRecord) -> list[str]:
    versions = [f"{name} {record.versions[name]}" for name in _PACKAGES if name in record.versions]
    return [*versions, record.program[:19]]
