"""What finished jobs show, against the tables and texts in `tests/golden/reading/`.

Stored sweeps are read; nothing is computed. Each of them gives every number of the frame, the
rankings, the metrics of sweep and pairs, the rows behind printed figures, and
texts: tables in all formats, the summary at two widths, comparisons and ranks. Where something is
meant to change,

    GOLDEN=write python -m pytest tests/test_reading.py

writes the files anew, and their diff shows what has changed.
"""

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from src.api.comparison import change_table, compare
from src.artifacts.finished_job import FinishedJob
from src.artifacts.jobs import find_jobs
from src.artifacts.layout import PREDICTIONS
from src.report import figure as charts
from src.report.audit import audited, print_audits
from src.report.beside import beside
from src.report.grid import Grid
from src.report.named_tables import table
from src.report.results import Results, results_of
from src.report.terminal import print_alarms, print_matrices, print_rankings
from src.report.words import change_sentence
from src.run.track import pair_points, sweep_points

GOLDEN = Path(__file__).parent / "golden" / "reading"
RESULTS = Path(__file__).parents[1] / "docs" / "results"
SWEEPS = ["demo", "attacks", "cifar", "kinds", "targeted", "networks-defences.card"]
ENDS = ("", "_low", "_high")
ROUNDING = 1e-5  # of numbers: processors differ in the last digits; classes, counts, texts do not
KEYS = ["attack", "source", "target", "defence", "protocol", "eps_255", "seed", "relation"]
VALUES = [
    *(f"{name}{end}" for name in ("success_rate", "robust_accuracy") for end in ENDS),
    *(f"{name}{end}" for name in ("confidence", "conditional") for end in ENDS),
    *("success", "still_correct", "denominator", "abstained", "success_rate_sd"),
    *("true_confidence", "success_confidence", "clean_accuracy", "gradients_per_image"),
    *("pairs", "sources", "targets", "images", "least", "most"),
]
NAMES = {"clean": "Normal Data", "average": "Mean", "difference": "Behind", "mi": "MI_2"}
TABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("demo", {}),
    "counts and clean images": ("demo", {"value": "counts", "clean": True}),
    "differences": ("demo", {"rows": ["attack"], "columns": ["source"], "differences": True}),
    "accuracy at another budget": ("demo", {"value": "accuracy", "eps_255": 8, "average": False}),
    "towards a class": ("targeted", {}),
    "intervals": ("targeted", {"intervals": True, "white_boxes": False}),
    "confidence": ("targeted", {"value": "confidence"}),
    "conditional": ("demo", {"value": "conditional"}),
    "cost": ("targeted", {"value": "gradients", "rows": ["attack"], "columns": ["source"]}),
    "attacks in columns": ("demo", {"rows": ["source"], "columns": ["attack"], "wide": True}),
    "behind defences": ("defences-jpeg", {"rows": ["attack"], "small": True, "names": NAMES}),
    "printed names": (
        "demo",
        {"rows": "attack", "value": "accuracy", "clean": True, "names": NAMES, "small": True},
    ),
    "differences by name": ("demo", {"rows": "attack", "differences": True, "names": NAMES}),
}
FIGURES: dict[str, tuple[str, dict[str, Any]]] = {
    "matrix": ("demo", {}),
    "curves": ("cifar", {}),
    "curves of accuracy": ("demo", {"value": "accuracy"}),
    "ranking": ("demo", {}),
    "cost": ("kinds", {}),
    "confidence_groups": ("demo", {}),
    "image": ("photographs", {}),
}


@pytest.fixture(scope="module")
def results() -> dict[str, Results]:
    others = [sweep for sweep, _ in (*TABLES.values(), *FIGURES.values())]
    names = dict.fromkeys([*SWEEPS, *others])
    return {name: results_of(find_jobs([RESULTS / name])) for name in names}


@pytest.mark.parametrize("name", SWEEPS)
def test_rates_ranks_and_metrics_are_the_stored_ones(
    name: str, results: dict[str, Results]
) -> None:
    its = results[name]
    check(f"{name}-values", its.primary_rows[[*KEYS, *VALUES]])
    check(f"{name}-attacks", its.rankings)
    check(f"{name}-sources", its.sources)
    points = [("", *point) for point in sweep_points(its)]
    pairs = its.primary_rows.query("source != 'mean' and target != 'mean'")
    for (job,) in its.attacked:
        record = job.job.record
        rows = pairs[(pairs["attack"] == job.job.attack) & (pairs["source"] == record.source)]
        rows = rows[rows["protocol"] == record.protocol]
        for target, part in rows.groupby(["target", "defence"], sort=False):
            place = " ".join([job.job.attack, record.source, *map(str, target)])
            points += [(place, *point) for point in pair_points(part, record.reference)[0]]
    check(f"{name}-metrics", pd.DataFrame(points, columns=["pair", "metric", "value", "step"]))


@pytest.mark.parametrize("name", FIGURES)
def test_figures_draw_the_stored_rows(name: str, results: dict[str, Results]) -> None:
    sweep, options = FIGURES[name]
    draw = getattr(charts, name.split(" ")[0])
    numbers = [45] if name == "image" else []
    chart = draw(*numbers, results[sweep], width="3.3in", **options)
    cells = [
        (number, at, column, value)
        for number, rows in enumerate(chart.to_dict()["datasets"].values())
        for at, row in enumerate(rows)
        for column, value in (row.items() if isinstance(row, dict) else [("", row)])
    ]
    frame = pd.DataFrame(cells, columns=["data", "row", "column", "value"])
    number = pd.to_numeric(frame["value"], errors="coerce")
    text = frame["value"].astype(str).where(number.isna())
    check(f"figure-{name}", frame.assign(value=number, text=text))


def test_tables_are_the_stored_texts(results: dict[str, Results]) -> None:
    texts = []
    for name, (sweep, options) in TABLES.items():
        look = {key: options[key] for key in ("wide", "small") if key in options}
        grid = table(results[sweep], **options)
        assert isinstance(grid, Grid)
        for to in ("markdown", "latex", "csv", "html"):
            words = look if to == "latex" else {}
            texts.append(f"== {name}, {to}\n{getattr(grid, to)(**words)}")
    check_text("tables", "\n".join(texts))


def test_summaries_are_the_stored_texts(results: dict[str, Results]) -> None:
    texts = []
    for name in ("demo", "targeted", "networks-defences.card"):
        audit = audited(results[name])
        for width in (80, 120):
            wide = Console(file=io.StringIO(), markup=False, soft_wrap=True, width=width)
            for show in (print_matrices, print_rankings, print_alarms, print_audits):
                show(audit, wide)
            texts.append(f"== {name}, {width} columns\n{wide.file.getvalue()}")  # type: ignore[attr-defined]
    check_text("summary", "\n".join(texts))


def test_comparisons_are_the_stored_texts(results: dict[str, Results]) -> None:
    texts = io.StringIO()
    console = Console(file=texts, markup=False, highlight=False, soft_wrap=True, width=120)
    old = results["demo"]
    changes = compare(old, results_of([*map(_corrected, old.jobs)]))
    sentences = [change_sentence(row) for _, row in changes.iterrows()]
    console.print(*sentences, change_table(changes).terminal(), sep="\n")
    console.print(*map(str, beside(results["kinds"].jobs, "small")), sep="\n")
    check_text("comparisons", texts.getvalue())


def _corrected(job: FinishedJob) -> FinishedJob:
    """Return a job in which every seventh image is classified correctly."""
    table = job.defended
    right = table["predicted"].where(table["index"] % 7 > 0, table["label"])
    table = pa.Table.from_pandas(table.assign(predicted=right), preserve_index=False)
    return replace(job, tables={PREDICTIONS: table})


def check(name: str, frame: pd.DataFrame) -> None:
    """Compare a table with the stored one, or write it."""
    path = GOLDEN / f"{name}.parquet"
    frame = pd.read_parquet(io.BytesIO(frame.reset_index(drop=True).to_parquet()))
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        frame.to_parquet(path, compression="zstd")
    stored = pd.read_parquet(path)
    pd.testing.assert_frame_equal(
        stored, frame, check_dtype=False, check_like=True, rtol=0, atol=ROUNDING
    )


def check_text(name: str, text: str) -> None:
    """Compare a text with the stored one, or write it."""
    path = GOLDEN / f"{name}.txt"
    lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if os.environ.get("GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(lines)
    assert lines == path.read_text()
