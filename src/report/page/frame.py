"""The content of the page: the frame of results as text, rankings, charts, and what was run.

The numbers are those of `Results`, formatted here: the page's script looks them up.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from ...analysis import estimates
from ...analysis.confidence import top_k
from ...analysis.quantities import QUANTITIES, definitions
from ...analysis.ranking import ALL_TARGETS, GROUP
from ...artifacts.finished_job import FinishedJob
from ...artifacts.record import JobRecord
from ...config.sections import ReportSettings
from ...utils.formats import format_cell
from ...utils.package import command
from ..charts.theme import MEAN
from ..diagnostics import why_figures
from ..named_tables import ranking_grid, rankings
from ..paper import primary_of
from ..results import Results
from ..sanity_checks import CAUSES
from ..view import View, answer_of, over_sources, pairs_of, undecided, view_of
from ..words import on_target, ranking_legend, ranking_notes, said, sentences
from .figures import clean_figures, page_charts
from .html import COLOURS, ENOUGH, TOO_FEW, Report
from .images import compute_page_data
from .rows import Axes, of_axes, percent
from .screens import screens_of
from .sweeps import sweeps_apart, together

AXES = ["attack", "source", "target", "defence", "protocol", "eps_255"]
"""Axes of the rows: source and target may be empty, which stands for their mean."""
RANKING_KEYS = ("defence", "source", "eps_255")
"""Axes of the rankings of attacks."""
SOURCE_KEYS = ("defence", "attack", "eps_255", "target")
"""Axes of the rankings of sources."""
NORMS = {"linf": "L\N{INFINITY}", "l2": "L2"}
LEFT_OUT = (
    ("pairwise comparisons", f"{command('table')} --differences"),
    ("success within so many candidates", f"{command('table')} --as tries"),
    ("source for an unseen target", command("sources")),
    ("success over cost", f"{command('figure')} cost --out cost.pdf"),
)
"""Results that other commands print or draw, with the commands."""


def build_report(results: Results, settings: ReportSettings | None = None) -> Report:
    """Build the report of results; without an attack it only describes the clean images."""
    sweeps = sweeps_apart(primary_of(results))
    reports = [_build(part, settings, 1 / len(sweeps)) for part in sweeps]
    return together(sweeps, reports) if len(sweeps) > 1 else reports[0]


def _build(results: Results, settings: ReportSettings | None, room: float) -> Report:
    """Build the report of comparable results."""
    numbers = compute_page_data(results, settings, room)
    jobs = [row[0].job for row in results.rows]
    attacked, norm = [job for job in jobs if job.attacked], jobs[0].record.norm
    names = ", ".join(dict.fromkeys(job.record.dataset for job in jobs))
    stored = " or ".join(dict.fromkeys(job.record.storage for job in jobs))
    counts = sorted({job.record.images for job in jobs})
    images = f"{' or '.join(map(str, counts))} image{'s' * (counts != [1])}"
    about = [names, images, *[NORMS.get(norm, norm)] * bool(attacked)]
    about += [f"images as {stored}"] * (stored != "float32")
    alarms = dict.fromkeys(alarm for row in results.rows for job in row for alarm in job.alarms)
    clean = ((model, top_k(rows).iloc[0]) for model, rows in numbers.clean.items())
    correct = (f"{model} {format_cell(row['correct'], row['n'])}" for model, row in clean)
    answer: Sequence[str] = ("", f"Correct: {', '.join(correct)}.", "")
    screens = list[dict[str, Any]]()
    terms: dict[str, Any] = {"What was run": facts(results)}
    figures = [*clean_figures(numbers)]
    page: dict[str, Any] = {
        "title": "Transfer of adversarial examples" if attacked else "Clean images",
        "subtitle": ", ".join(about),
        "models": [*numbers.clean],
        "accuracy": [(model, [*_accuracy(rows)]) for model, rows in numbers.clean.items()],
    }
    if attacked:
        view = view_of(results)
        runs = [job.job for row in results.attacked for job in row]
        figures = [*why_figures(results, view, numbers.tables), *figures]
        page |= selections(results, view)
        lead, rest, details = answer_of(results, view)
        refused = [audit.sentence for audit in results.audits if audit.fooled is None]
        answer = page["answer"] = (lead, rest, " ".join([details, *refused]))
        page |= {
            "jobs": numbers.jobs,
            "classes": numbers.classes,
            "clean": [*numbers.places.values()],
            "left_out": numbers.left_out,
            "charts": page_charts(page["axes"]["eps_255"][1:], page["top"]),
            "command": "\n".join(f"{line} diagnostics=full" for line in commands(runs)),
            "diagnosed": bool({*numbers.tables} - {"effects", "excess"}),
            "effects": {
                "\n".join(row[name] for name in AXES[:3]): _effect(row)
                for row in numbers.tables.get("effects", pd.DataFrame()).to_dict("records")
            },
        }
        screens = page["screens"] = screens_of(results, page)
        terms["What other commands show"] = LEFT_OUT
    terms["Definitions"] = definitions().items()
    causes = tuple((f"{name}: {finding}", CAUSES.get(name, "")) for name, finding in alarms)
    title, blocks = f"{page['title']}: {names}", numbers.blocks
    ranked = [ranking_grid(rows, "attack", len(rows)) for rows in rankings(results, "attack")]
    if screens:
        page["title"], answer = screens[0]["title"], screens[0]["answer"]
        page["first"] = {**page["first"], "view": screens[0]["view"]}
    return Report(title, answer, causes, figures, page, blocks, terms, ranked)


def selections(results: Results, view: View) -> dict[str, Any]:
    """Return the axes, the numbers of all selections, and the first selection.

    Returns:
        `axes`: names in order; `budgets`: with their texts; `scales`: texts for each budget;
        `rows`; `rankings` of attacks and `sources`, by positions on axes joined by points, with
        notes; `shown`: names of what rows show; `means`: what the mean over an attack's sources is
        called; `colours`: number of an attack's colour; `top`: end of the axis of means over the
        budget.
    """
    pairs, first, rows = pairs_of(view.rows), view.choice, view.rows
    axes: dict[str, list[Any]] = {name: [*pairs[name].unique()] for name in AXES}
    axes["attack"] = view.options["attack"]
    over_sources = rows[(rows["source"] == MEAN) & (rows["target"] == estimates.MEAN)]
    alone = axes["source"] == axes["target"]
    axes["source"] = [""] * bool(len(over_sources)) + axes["source"]
    axes["target"] = ["", *axes["target"]]
    axes["eps_255"] = sorted(map(float, axes["eps_255"]))
    targeted = pairs.groupby("attack")["targeted"].any()
    sources = over_sources.groupby("attack")["sources"].max()
    single = [int(sources.get(name, 0)) for name in axes["attack"]]
    means = {0: "no mean over sources", 1: "its only source"}
    place = {"view": "results", "target": ""}
    if alone and len(axes["target"]) == 2:  # a single network has no target but itself
        place = {"view": "images", "target": axes["target"][-1]}
    highest = view.overall.query("protocol == @first.protocol")["success_rate"].max()
    quantities = QUANTITIES.values()
    on_page = sorted((q for q in quantities if q.page_name), key=lambda q: q.short != "fooled")
    return {
        "axes": axes,
        "budgets": [(eps, f"{eps:g}", f"{eps:g}/255") for eps in axes["eps_255"]],
        "scales": [f"times {float(f'{127 / (eps or 1):.2g}'):g}" for eps in axes["eps_255"]],
        "rows": of_axes(rows, axes),
        "shown": {rate.short: rate.page_name for rate in on_page},
        "rankings": _rankings(results, view, axes),
        "sources": _sources(results, axes),
        "legend": ranking_legend(first.protocol),
        "colours": {name: n for n, name in enumerate(axes["attack"][:COLOURS], 1)},
        "targeted": [bool(targeted[name]) for name in axes["attack"]],
        "pairs": view.pairs,
        "means": [means.get(n, f"mean of {n} sources") for n in single],
        "top": float(np.ceil(5 * np.nanmax([highest, 0.1])) / 5),
        "first": {**asdict(first), "shown": "fooled", **place},
    }


def _rankings(results: Results, view: View, axes: Axes) -> dict[str, dict[str, Any]]:
    """Return rankings of attacks: `rows`, with headings between several rankings, and `notes`."""
    rankings = dict[str, dict[str, Any]]()
    ranks = pd.concat([over_sources(results.rankings).assign(source=MEAN), results.rankings])
    rows = view.ranking.assign(place=view.ranking["of"].replace(MEAN, ""))
    for (*names, _), part in rows.groupby(["defence", "place", "eps_255", "part"], sort=False):
        key = key_of(axes, dict(zip(RANKING_KEYS, names, strict=True)), RANKING_KEYS)
        ranking = rankings.setdefault(key, {"rows": [], "notes": []})
        heading = part["heading"].iloc[0]
        ranking["rows"] += [{"heading": heading}] * bool(heading)
        ranking["rows"] += [_ranked(row, "attack") for row in part.to_dict("records")]
        ranked = part[["attack", "source", "defence", "eps_255"]].merge(ranks)
        several = heading and ranked["rank"].notna().any()
        ranking["notes"] += said((f"{heading}:", several))
        ranking["notes"] += sentences(ranking_notes(ranked, "attack"))
    return rankings


def _sources(results: Results, axes: Axes) -> dict[str, dict[str, Any]]:
    """Return the ranked sources by defence, attack, budget and target, with notes.

    Without ranked `rows`, the notes say what is missing. The `text` says how those on one target
    compare.
    """
    rows, keys = results.sources[results.sources["attack"].isin(axes["attack"])], [*SOURCE_KEYS]
    targets = axes["target"] if len(axes["target"]) > 2 else ()  # the only target is all of them
    places = rows.assign(target=rows["target"].where(rows["target"].isin(targets), ""))[keys]
    of_attack = rows.groupby("attack")
    first_of = [rows[name] == of_attack[name].transform("first") for name in GROUP]
    ranked = rows[np.logical_and.reduce(first_of) & rows["rank"].notna()]
    firsts = ranked.groupby(keys)["mean"].transform("first")  # where differences are drawn from
    ends = {end: firsts + ranked[f"difference_{end}"] for end in ("low", "high")}
    marked = ranked.assign(undecided=undecided(ranked, keys), **ends).to_dict("records")
    sources = dict[str, dict[str, Any]]()
    for part in (ranked, rows[rows["rank"].isna()]):
        for at in part.groupby(keys, sort=False).indices.values():
            row = part.iloc[at]
            key = key_of(axes, places.loc[row.index[0]], SOURCE_KEYS)
            listed = [_ranked(marked[number], "source") for number in at if part is ranked]
            text = on_target(row) if listed and row["target"].iloc[0] != ALL_TARGETS else ""
            notes = sentences([text] if text else ranking_notes(row, "source"))
            sources.setdefault(key, {"rows": listed, "notes": notes, "text": text})
    return sources


def _ranked(row: Mapping[Any, Any], of: str) -> dict[str, Any]:
    """Return a row of a ranking as texts; points are those behind the first."""
    minus, rank = "\N{MINUS SIGN}", row["rank"]
    names = ("difference", "difference_high", "difference_low")
    points = [percent(-row[name]).replace("-", minus) for name in names if row[name] == row[name]]
    fit = f" + {row['fit_gradients']:,.0f}" if row.get("fit_gradients", 0) > 0 else ""
    gradients = row.get("gradients", 0) or 0
    source = "" if row["source"] == MEAN else row["source"]
    apart = f", {source}" * (row.get("of") == MEAN and bool(source))
    texts = {
        "name": row[of],
        "title": row[of] + apart,
        "source": source,
        "rank": "= " * bool(row["undecided"] and rank > 1) + (f"{rank:g}" * (rank == rank)),
        "gradients": f"{gradients:,.0f}{fit}" if gradients > 0 else "",
        "text": percent(row["mean"]) if row["mean"] == row["mean"] else "",
        "behind": "lacks pairs" if row["lacks"] else points[0] if points else "first" * (rank == 1),
        "span": f"[{', '.join(points[1:])}]" * bool(points[1:]),
        "lacks": row["lacks"],
    }
    values = {"value": row["mean"], "low": row["low"], "high": row["high"]}
    return texts | {name: round(value, 4) for name, value in values.items() if value == value}


def key_of(axes: Axes, row: Mapping[Any, Any] | pd.Series, keys: Sequence[str]) -> str:
    """Join the places of a row on axes by points."""
    return ".".join(str(axes[name].index(row[name])) for name in keys)


def _effect(row: Mapping[Any, Any]) -> str:
    """Return the verdict on a pair: are confident images harder to manipulate?"""
    if row["n"] < ENOUGH or row["verdict"] == "not computable":
        return f"{row['n']} images: {TOO_FEW}." * (row["n"] < ENOUGH)
    return (
        f"Are confident images harder to manipulate? {row['verdict'].capitalize()} (rank "
        f"correlation with the minimum budget {row['rho']:.2f} [{row['rho_low']:.2f}, "
        f"{row['rho_high']:.2f}])."
    )


def _accuracy(rows: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield accuracies with intervals, confidence and number of classes of a model."""
    for row in top_k(rows).to_dict("records"):
        ends = " [{}, {}]".format(*(percent(row[f"accuracy_{end}"]) for end in ("low", "high")))
        name = "correct" if row["k"] == 1 else f"correct among the {row['k']} most probable"
        yield name, format_cell(row["correct"], row["n"]) + ends
        if row["k"] == 1:
            yield "mean confidence, right or wrong", f"{row['confidence']:.1%}"
    yield "classes present", str(rows["label"].nunique())


def facts(results: Results) -> list[tuple[str, str]]:
    """Return (term, value) pairs that describe the jobs."""
    jobs, rows = results.jobs, results.rows
    terms = [("signature", results.signature), *(("command", line) for line in commands(jobs))]
    terms += sorted({("model", line) for job in jobs for line in _models(job.record)})
    for term, describe in _FACTS.items():
        lines = dict.fromkeys(filter(None, (describe(job.record) for job in jobs)))
        terms.append((term, "; ".join(lines)))
    terms.append(("several seeds", _SEEDS * any(len(row) > 1 for row in rows)))
    return [(term, value) for term, value in terms if value]


_SEEDS = (
    "rates and rankings are means over the seeds; pairwise comparisons, "
    "diagnostics and single images show the first seed"
)


def _data(record: JobRecord) -> str:
    classes = len(record.class_names)
    return f"{record.dataset}: {record.images} images, {classes} classes, digest {record.data}"


def _attack(record: JobRecord) -> str:
    settings = record.config["attack"]["settings"] if record.attack else {}
    listed = [
        f"{key}={value}"
        for key, value in settings.items()
        if key not in ("name", "_target_") and value is not None
    ]
    return f"{record.attack} ({', '.join(listed)})" if listed else record.attack


def _budgets(record: JobRecord) -> str:
    grid = ", ".join(f"{eps:g}" for eps in record.budgets)
    text = f"{grid} (in 1/255, {record.norm}); reference budget {record.reference:g}/255"
    return text * bool(record.attack)


_FACTS: Mapping[str, Callable[[JobRecord], str]] = {
    "data": _data,
    "attacks": _attack,
    "budgets": _budgets,
    "ensembles": lambda job: f"mean of {job.config['ensemble']}" * job.source_model.is_ensemble,
    "feature layers": lambda job: f"{job.layer} of {job.source}" * bool(job.layer),
    "device": lambda job: f"{job.device}, batches of {job.config['trainer']['batch_size']}",
    "finished": lambda job: job.created,
    "code": lambda job: job.program,
    "versions": lambda job: ", ".join(f"{name} {number}" for name, number in job.versions.items()),
}


def commands(jobs: Sequence[FinishedJob]) -> list[str]:
    """Return the command of every sweep, with the values of swept keys separated by commas."""
    sweeps: dict[object, list[JobRecord]] = {}
    for job in jobs:
        key = (job.record.config["sweep"], job.sweep_folder)
        sweeps.setdefault(key, []).append(job.record)
    return [_command(records) for records in sweeps.values()]


def _command(records: Sequence[JobRecord]) -> str:
    values: dict[str, list[str]] = {}
    for word in dict.fromkeys(word for record in records for word in record.overrides):
        key, _, value = word.partition("=")
        if key != "sweep":  # the program adds the id of the sweep
            values.setdefault(key, []).append(value)
    arguments = [f"{key}={','.join(choices)}" for key, choices in values.items()]
    flags = [word for flag in records[0].flags for word in flag.split(" ", 1)]
    words = [*["-m"] * (len(records) > 1), *flags, *arguments]
    return f"{command()} {shlex.join(words)}"


def _models(record: JobRecord) -> Iterator[str]:
    for name, settings in record.config["model"].items():
        network = settings["network"]
        built = network.get("model_name") or network.get("name") or network.get("_target_")
        weights = settings.get("weights") or "trained here"
        digest = record.weights.get(name, "unknown")
        yield f"{name}: {built}; weights {weights}, digest {digest}"
