"""Tables of results by name: each is a function from `Results` and options to a `Grid`."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import Parameter, signature
from typing import Any

import pandas as pd

from ..analysis import CLEAN, OWN, TRANSFER, WHITE_BOX, transfer_matrix
from ..analysis.estimates import MEAN
from ..analysis.ranking import GROUP
from ..artifacts.finished_job import FinishedJob
from ..artifacts.layout import SUMMARY
from ..artifacts.sweep_folders import Sweeps
from ..utils.formats import format_cell, format_cells, format_rate, percents
from ..utils.model_names import NO_DEFENCE
from ..utils.package import resolve
from ..utils.refusals import choose
from .audit import tries_table
from .beside import DIFFERENCES
from .cells import TableSpec
from .grid import FORMATS, Grid
from .images_text import images_text
from .network_table import network_table
from .paper import paper_table
from .published import published_table
from .results import Results, open_results
from .signature import signature_of
from .transfer_table import transfer_table
from .words import is_tied, points, ranking_heading, ranking_notes, said

MARKS = {WHITE_BOX: "*", OWN: "+"}
"""Marks of cells by the relation of target and source."""


def table(
    folder: Sweeps | Results,
    *more: Sweeps | Results,
    name: str = "transfer",
    to: str | None = None,
    wide: bool = False,
    small: bool = False,
    related: bool = True,
    **options: Any,
) -> Grid | str:
    r"""Lay out a table, with a caption that explains its numbers and marks.

    In the table of transfer, a cell shows the value for one pair of source and target, or the mean
    over several pairs without white boxes. The highest of comparable attacks is bold. Attacks that
    are not significantly weaker are in italics, as tested in the report's ranking.

    Args:
        folder: Results of `load_sweep` or `transfer`, a folder that contains sweeps, or several
            folders by name, as in `{"day1": "outputs/DATE"}`.
        *more: Further folders.
        name: `transfer`; `matrix`, `ranking`, `sources` or `defences`, as the report's summary has
            them; `tries`, some rows of the function `tries`; `published`, rates beside published
            ones; `paper`, an answer of `experiment=paper`; or `MODULE.FUNCTION`, your own function
            from `Results` and keywords to a `Grid`.
        to: `latex` (needs booktabs and xcolor), `markdown`, `html` or `csv` (numbers without a
            caption); None: a `Grid`, which a notebook shows.
        wide: LaTeX: span both columns of the page.
        small: LaTeX: use smaller type and less space between columns.
        related: False: leave out pairs of networks with the same weights, architecture or
            family.
        **options: Keywords of the table. `matrix` and `defences` take `attack`, `sources` takes
            `networks`, `tries` takes `eps_255`, `defence`, `protocol` and `names`, and `paper`
            takes `question`. `transfer` takes all of these but `attack` and `question`:

            - `rows`: one or more of `attack`, `source` (both by default), `target`, `defence` and
              `budget` (all budgets, not one); if there are several defences, rows or columns have
              `defence` in any case;
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
            - `networks=True`: fold the trainings of one network into one row or column: means over
              trainings, and the range of their pairs in small print; of `sources`: rank networks,
              for new trainings and new images;
            - `differences=True`: add a column of differences from the first attack in the ranking,
              in points, with simultaneous 95 % intervals;
            - `defence`: show only targets behind this defence, such as `none`;
            - `names`: printed names of attacks, models and defences, by their own names;
            - `attack`: the attack of a matrix; default: the first.

    Raises:
        ValueError: As `load_sweep`; an argument is unknown or has an unknown value; or a cell would
            combine several attacks or several defences of sources.
    """
    if to is not None:
        choose("to", to, FORMATS)
    make, takes = _table(name), keywords_of(name)
    if unknown := ", ".join(options.keys() - takes.keys()):
        rest = ", ".join(key for key in takes if key != "related")
        way = " Of the table transfer, rows=source and value=counts are this matrix."
        way *= name == "matrix"
        raise ValueError(f"{unknown}: the table {name} takes only {rest or 'shared options'}.{way}")
    if name == "transfer":
        options = {"spec": TableSpec.of(**options, related=related)}
    results = open_results(folder, *more, related=related)
    if not results.attacked:
        targets = " on targets that are unrelated to their sources" * (not related)
        raise ValueError(f"A table needs jobs with an attack{targets}; there are none.")
    if not isinstance(grid := make(results, **options), Grid):
        raise ValueError(f"name={name}: the function returns {type(grid).__name__}, no Grid.")
    if name != "paper" and (part := images_text(results.jobs)):  # whose answers say it themselves
        grid = replace(grid, legend=[*grid.legend, part])
    grid = replace(grid, signature=grid.signature or results.signature)
    if to == "latex":
        return grid.latex(wide, small)
    return grid if to is None else str(getattr(grid, to)())


def _table(name: str) -> Callable[..., Grid]:
    try:
        made: Callable[..., Grid] = TABLES.get(name) or resolve(name)
        signature(made)
    except (ImportError, AttributeError, TypeError) as error:
        ways = f"Choose from {', '.join(TABLES)}, or MODULE.FUNCTION."
        raise ValueError(f"name={name}: {error}. {ways}") from error
    return made


def keywords_of(name: str) -> Mapping[str, Parameter]:
    """Return the keywords of the table of this name, but for those of all tables."""
    made = TableSpec if name == "transfer" else partial(_table(name), Results())
    return signature(made).parameters


def matrices(results: Results) -> dict[str, list[Grid]]:
    """Return the `matrix_forms` of each attack at its reference budget."""
    attacks = dict.fromkeys(job.attack for job in results.jobs if job.attacked)
    return {attack: matrix_forms(results, attack) for attack in attacks}


def _jobs(results: Results, attack: str | None = None) -> list[FinishedJob]:
    """Return the jobs of an attack, or of the first one; refuse a name that no job has."""
    jobs = [job for job in results.jobs if job.attacked]
    names = dict.fromkeys(job.attack for job in jobs)
    chosen = choose("attack", attack or jobs[0].attack, names)
    return [job for job in jobs if job.attack == chosen]


def _place(results: Results, jobs: Sequence[FinishedJob]) -> str:
    """Return attack, images, budget and protocol of the jobs of one attack."""
    datasets = {job.record.data: job.record.dataset for job in results.jobs if job.attacked}
    named, record = Counter(datasets.values()), jobs[0].record
    dataset = record.dataset + f" ({record.data[:6]})" * (named[record.dataset] > 1)
    eps = f"eps = {record.reference:g}/255"
    return f"{jobs[0].attack} on {dataset}, {eps}, protocol: {record.protocol}"


def matrix_of(results: Results, job: FinishedJob) -> pd.DataFrame:
    """Return the `transfer_matrix` of a job's attack at its reference budget."""
    pairs = results.pairs(attack=job.attack, defence=NO_DEFENCE)
    return transfer_matrix(pairs, job.record.reference, job.record.protocol)


def matrix_forms(results: Results, attack: str | None, arrow: str = "-> ") -> list[Grid]:
    """Lay out the `transfer_matrix` of an attack, or of the first one, in three forms.

    The forms have a row per source with counts, a row per source with rates alone, and a row per
    pair. `*` marks white boxes, and `+` the source's network behind another defence.
    """
    jobs = _jobs(results, attack)
    matrix = matrix_of(results, jobs[0])
    counted, rate, clean = "still correct", "robust accuracy", "accuracy on all clean images"
    if matrix["targeted"].any():
        counted, rate = "target class reached", "targeted success rate"
        clean = "clean images already classified as their target label"
    sources, targets = matrix["source"].unique(), matrix["target"].unique()
    signs, spread = matrix["relation"].map(MARKS).fillna(""), matrix["success_rate_sd"]
    texts = matrix[["source", "target"]].assign(
        counts=signs + format_cells(matrix), rates=signs + format_cells(matrix, format_rate)
    )

    def square(column: str) -> list[list[str]]:
        wide = texts.pivot(index="source", columns="target", values=column).fillna("-")
        return wide.loc[sources, targets].reset_index().to_numpy().tolist()

    marks = said(
        (f"{CLEAN}: {clean}", CLEAN in sources),
        ("* white box: the target is the source or part of it", "*" in {*signs}),
        ("+ own: the source's network behind another defence", "+" in {*signs}),
        ("\N{PLUS-MINUS SIGN}: standard deviation over the seeds", spread.notna().any()),
    )
    caption = f"{counted.capitalize()}: {_place(results, jobs)}"
    whole = [f"{counted} / denominator = {rate}", *marks]
    alone = [f"{rate}; a wider terminal and {SUMMARY} show the counts", *marks]
    wide = ["source", *(f"{arrow}{target}" for target in targets)]
    narrow = ["source", *(target.replace("_", "_\n") for target in targets)]
    long, pairs = ["source", "target", "cell"], texts.drop(columns="rates").to_numpy().tolist()
    return [
        Grid(wide, square("counts"), caption, whole, data=matrix),
        Grid(narrow, square("rates"), caption, alone),
        Grid(long, pairs, caption, whole, left=(0, 1)),
    ]


def matrix(results: Results, attack: str | None = None) -> Grid:
    """Lay out the transfer matrix of an attack, or of the first one, with counts and rates."""
    pairs = results.pairs(attack=_jobs(results, attack)[0].attack, defence=NO_DEFENCE)
    line = signature_of(results, pairs[pairs["reference"]], "counts")
    return replace(matrix_forms(results, attack, "")[0], signature=line)


def defences(results: Results, attack: str | None = None) -> Grid:
    """Lay out accuracies behind each defence, means over the targets of other sources."""
    jobs = _jobs(results, attack)
    place = {"eps_255": jobs[0].record.reference, "protocol": jobs[0].record.protocol}
    rows, keys = results.select(attack=jobs[0].attack, **place), ["source_defence", "defence"]
    means = rows[(rows[["source", "target"]] == MEAN).all(axis=1) & (rows["relation"] == TRANSFER)]
    means = means.sort_values("ensemble", kind="stable").drop_duplicates(keys)
    pairs = results.pairs(attack=jobs[0].attack, **place)
    others, white = pairs["relation"] == TRANSFER, pairs["relation"].isin([WHITE_BOX, OWN])
    targeted = bool(rows["targeted"].any())
    rate, k = ("success_rate", "success") if targeted else ("robust_accuracy", "still_correct")
    does = "target class reached" if targeted else "still correct"
    table = percents(means[[*keys, "clean_accuracy", rate]]).set_index(keys, drop=False)
    table.columns = ["attacked through", "defence", "clean", does]
    adaptive = bool((means["source_defence"] != NO_DEFENCE).any())
    if adaptive:
        counts = pairs[white].groupby(keys)[[k, "denominator"]].sum()
        cells = {row.Index: format_cell(*row[1:]) for row in counts.itertuples()}
        table["the source itself"] = [cells.get(place, "") for place in table.index]
    else:
        table = table.drop(columns="attacked through")
    sums = pairs[others].groupby(keys)[["abstained", "denominator"]].sum().reindex(table.index)
    if sums["abstained"].any():
        table["abstained"] = [f"{k:.0f} / {k + n:.0f}" for k, n in sums.to_numpy()]
    targets = " or ".join(f"{count:g}" for count in sorted({*means["targets"]}))
    note = f"means over {targets} target{'s' * (targets != '1')}, each over the other sources"
    if not adaptive:
        note += "; a plain transfer attack is not an adaptive one: for that set source_defence"
    caption = f"{does.capitalize()} behind defences: {_place(results, jobs)}"
    line, texts = signature_of(results, pairs, "accuracy"), table.to_numpy().tolist()
    return Grid([*table], texts, caption, [note], (), [adaptive], means, line)


def rankings(results: Results, of: str) -> Iterator[pd.DataFrame]:
    """Yield the first ranking of attacks, or of sources, of each group without defences.

    It is that at the reference budget, and of the mean over sources or attacks.
    """
    rows, other = (results.rankings, "source") if of == "attack" else (results.sources, "attack")
    plain, keys = rows[rows["defence"] == NO_DEFENCE], ["eps_255", other]
    for _, ranked in plain.groupby(["group", *GROUP], sort=False):
        yield ranked[(ranked[keys] == ranked[keys].iloc[0]).all(axis=1)]


def ranking(of: str, results: Results) -> Grid:
    """Lay out the first ranking of attacks, or of sources; a CSV has all columns."""
    rows = next(rankings(results, of), pd.DataFrame({"rank": []}))
    if rows["rank"].isna().all():
        raise ValueError(f"There is no ranking of {of}s.")
    pairs = results.pairs(reference=True, relation=TRANSFER, defence=NO_DEFENCE)
    return replace(ranking_grid(rows, of, len(rows)), signature=signature_of(results, pairs))


def sources(results: Results, networks: bool = False) -> Grid:
    """Lay out the first ranking of sources, or that of their networks, over trainings."""
    return network_table(results) if networks else ranking("source", results)


def ranking_grid(rows: pd.DataFrame, of: str, most: int = 5) -> Grid:
    """Lay out the first rows of a ranking of attacks, or of sources, `most` of them.

    The rankings of sources on single targets follow if there is none over all targets.
    """
    heading, notes, data = ranking_heading(rows, of), ranking_notes(rows, of, most), rows
    if of == "source":
        rows = rows[rows["target"] == rows["target"].iloc[0]]
    ranked = rows[rows["rank"].notna()]
    if ranked.empty:
        return Grid((), (), heading, notes, data=data)
    table = ranked.head(most)
    frame = pd.DataFrame({"rank": table["rank"].map("{:g}".format), of: table[of]})
    marks = table["undecided"].map({True: "=" * is_tied(ranked), False: ""})
    frame["mean success"] = marks + table["mean"].map("{:.1%}".format)
    if of == "attack":
        ends = points(table, ["low", "high"], " [{:z.1f}, {:z.1f}]")
        frame["mean success"] += pd.Series(ends, table.index)
    else:
        beyond = table["extrapolated"].astype(bool)
        frame["mean success"] += beyond.map({True: " (extrapolated)", False: ""})
    frame["minus the first"] = points(table, DIFFERENCES, "{:+z.1f} [{:+z.1f}, {:+z.1f}]")
    frame["images"] = table["images"].map("{:g}".format)
    if of == "attack" and table["gradients"].notna().any():
        heads = {"gradients": "gradients\n/ image", "fit_gradients": "fit\n/ image"}
        for name in heads if table["fit_gradients"].any() else ["gradients"]:
            frame[heads[name]] = table[name].map("{:g}".format, na_action="ignore").fillna("")
    return Grid([*frame], frame.to_numpy().tolist(), heading, notes, left=(1,), data=data)


TABLES: dict[str, Callable[..., Grid]] = {
    "transfer": transfer_table,
    "matrix": matrix,
    "ranking": partial(ranking, "attack"),
    "sources": sources,
    "tries": tries_table,
    "defences": defences,
    "published": published_table,
    "paper": paper_table,
}
"""Tables by name; their options are the keywords of the functions."""
