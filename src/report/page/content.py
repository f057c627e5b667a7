"""The content of the page: selections, charts and tables, and what was run."""

import shlex
from collections.abc import Sequence
from typing import Any

from ...analysis.confidence import top_k
from ...analysis.quantities import definitions
from ...artifacts.jobs import FinishedJob
from ...artifacts.record import JobRecord
from ...config.sections import ReportSettings
from ...utils.formats import format_cell
from ...utils.package import command
from ..diagnostics import why_figures
from ..named_tables import ranking_grid, rankings
from ..results import JobResults, Results
from ..sanity_checks import CAUSES
from ..shown import answer_of, shown_of
from .figures import clean_figures, page_charts
from .html import ENOUGH, TOO_FEW, Report
from .page_data import PageData, compute_page_data
from .selections import selections

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
    numbers = compute_page_data(results, settings)
    jobs = [row[0].job for row in results.rows]
    attacked = [job for job in jobs if job.attacked]
    names = ", ".join(dict.fromkeys(job.record.dataset for job in jobs))
    alarms = tuple((f"{name}: {finding}", CAUSES.get(name, "")) for name, finding in numbers.alarms)
    terms: list[tuple[str, tuple[tuple[str, str], ...]]] = [("What was run", facts(results.rows))]
    figures = [*clean_figures(numbers)]
    norm = jobs[0].record.norm
    stored = " or ".join(dict.fromkeys(job.record.storage for job in jobs))
    about = [names, images_of(jobs), *[NORMS.get(norm, norm)] * bool(attacked)]
    about += [f"images as {stored}"] * (stored != "float32")
    page: dict[str, Any] = {
        "title": "Transfer of adversarial examples" if attacked else "Clean images",
        "subtitle": ", ".join(about),
        "models": [model for model, _ in numbers.models],
        "accuracy": _accuracy(numbers),
    }
    answer: Sequence[str] = ("", _clean_sentence(numbers), "")
    if attacked:
        shown = shown_of(results)
        runs = [its.job for row in results.attacked for its in row]
        figures = [*why_figures(results, shown, numbers.tables), *figures]
        chosen = selections(results, shown)
        axes, answer = chosen["axes"], answer_of(results, shown)
        of_jobs = numbers.blocks
        page |= {
            **chosen,
            "jobs": of_jobs.jobs,
            "classes": of_jobs.classes,
            "clean": of_jobs.clean_places,
            "left_out": of_jobs.left_out,
            "charts": page_charts(axes["eps_255"][1:], chosen["top"]),
            "command": "\n".join(f"{line} diagnostics=full" for line in commands(runs)),
            "diagnosed": bool({*numbers.tables} - {"effects", "excess"}),
            "effects": _effects(numbers),
            "audits": [(its.sentence, its.classes) for its in results.audits],
        }
        terms.append(("What other commands show", LEFT_OUT))
    terms.append(("Definitions", tuple(definitions().items())))
    title, blocks = f"{page['title']}: {names}", numbers.blocks.blocks
    ranked = [ranking_grid(rows, "attack", len(rows)) for rows in rankings(results, "attack")]
    return Report(title, answer, alarms, figures, page, blocks, (*terms,), ranked, results.ranks)


def _effects(numbers: PageData) -> dict[str, str]:
    """Return the verdict on each pair: are confident images harder to manipulate?"""
    effects = numbers.table("effects")
    rows = effects.to_dict("records") if len(effects) else []
    verdicts = {}
    for row in rows:
        key = "\n".join([row["attack"], row["source"], row["target"]])
        if row["n"] < ENOUGH:
            verdicts[key] = f"{row['n']} images: {TOO_FEW}."
        elif row["verdict"] != "not computable":
            ends = f"[{row['rho_low']:.2f}, {row['rho_high']:.2f}]"
            verdicts[key] = (
                f"Are confident images harder to manipulate? {row['verdict'].capitalize()} "
                f"(rank correlation with the minimum budget {row['rho']:.2f} {ends})."
            )
    return verdicts


def _accuracy(numbers: PageData) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return accuracies with intervals, confidence and number of classes, by model."""
    tables = []
    for model, rows in numbers.models:
        lines = []
        for row in top_k(rows).to_dict("records"):
            span_ = f"[{100 * row['accuracy_low']:.1f}, {100 * row['accuracy_high']:.1f}]"
            name = "correct" if row["k"] == 1 else f"correct among the {row['k']} most probable"
            lines.append((name, f"{format_cell(row['correct'], row['n'])} {span_}"))
            if row["k"] == 1:
                lines.append(("mean confidence, right or wrong", f"{row['confidence']:.1%}"))
        lines.append(("classes present", str(rows["label"].nunique())))
        tables.append((model, lines))
    return tables


def _clean_sentence(numbers: PageData) -> str:
    """Return a sentence with the accuracy of each model on clean images."""
    parts = []
    for model, rows in numbers.models:
        first = top_k(rows).iloc[0]
        parts.append(f"{model} {format_cell(first['correct'], first['n'])}")
    return f"Correct: {', '.join(parts)}."


_SEEDS = (
    "rates and rankings are means over the seeds; pairwise comparisons, "
    "diagnostics and single images show the first seed"
)


def facts(rows: Sequence[Sequence[JobResults]]) -> tuple[tuple[str, str], ...]:
    """Return (term, value) pairs that describe the jobs."""
    jobs = [its.job for row in rows for its in row]
    records = [job.record for job in jobs]
    attacked = [job for job in jobs if job.attacked]
    values = {
        "data": [_data(record) for record in records],
        "attacks": [_attack(job) for job in attacked],
        "budgets": [_budgets(job.record) for job in attacked],
        "images counted": [record.protocol for record in records],
        "ensembles": [
            f"mean of {record.config['ensemble']}"
            for record in records
            if record.source_model.is_ensemble
        ],
        "feature layers": [
            f"{record.layer} of {record.source}" for record in records if record.layer
        ],
        "seed": [str(record.seed) for record in records],
        "several seeds": [_SEEDS for row in rows if len(row) > 1],
        "precision and device": [_arithmetic(record) for record in records],
        "finished": sorted(record.created for record in records),
        "code": [record.program for record in records],
        "versions": [
            ", ".join(f"{name} {number}" for name, number in record.versions.items())
            for record in records
        ],
    }
    terms = [("command", line) for line in commands(jobs)]
    terms += sorted({("model", line) for record in records for line in _models(record)})
    terms += [(term, "; ".join(dict.fromkeys(lines))) for term, lines in values.items()]
    return tuple((term, value) for term, value in terms if value)


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


def _data(record: JobRecord) -> str:
    classes = len(record.class_names)
    return f"{record.dataset}: {record.images} images, {classes} classes, digest {record.data}"


def _attack(job: FinishedJob) -> str:
    settings = [
        f"{key}={value}"
        for key, value in job.record.config["attack"]["settings"].items()
        if key not in ("name", "_target_") and value is not None
    ]
    return f"{job.record.attack} ({', '.join(settings)})" if settings else job.record.attack


def _budgets(record: JobRecord) -> str:
    grid = ", ".join(f"{eps:g}" for eps in record.budgets)
    return f"{grid} (in 1/255, {record.norm}); reference budget {record.reference:g}/255"


def _arithmetic(record: JobRecord) -> str:
    batches = f"batches of {record.config['trainer']['batch_size']}"
    return f"{record.formats}, {batches}, on {record.device}"


def _models(record: JobRecord) -> list[str]:
    lines = []
    for name, settings in record.config["model"].items():
        network = settings["network"]
        built = network.get("model_name") or network.get("name") or network.get("_target_")
        weights = settings.get("weights") or "trained here"
        digest = record.weights.get(name, "unknown")
        lines.append(f"{name}: {built}; weights {weights}, digest {digest}")
    return lines


def images_of(jobs: Sequence[FinishedJob]) -> str:
    """Return the number of images of the jobs in words."""
    counts = sorted({job.record.images for job in jobs})
    return f"{' or '.join(map(str, counts))} image{'s' * (counts != [1])}"
