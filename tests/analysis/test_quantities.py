"""The registry of quantities: what is added there shows everywhere."""

import shutil
import sqlite3
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.analysis import rankings, rates
from src.analysis.quantities import (
    COUNTED,
    QUANTITIES,
    STATISTICS,
    Quantity,
    definitions,
    statistics_of,
)
from src.analysis.ranking import source_rankings
from tests.analysis.conftest import make_table, outcomes_of
from tests.conftest import replaced, run_words


def doubt(outcome):
    return 1 - np.nanmean(np.where(outcome.denominator, outcome.confidence, np.nan), axis=1)


def run_with_another_quantity(words: list[str]) -> None:
    """Run a command and store a table, as a program whose registry has one more entry."""
    words_of = {"term": "doubt", "definition": "One minus the confidence.", "value": "doubt"}
    more = {"compute": doubt, "metric": "curve"}
    QUANTITIES["doubt"] = Quantity("doubt", "Mean doubt in %", **words_of, **more)
    for name in [*sys.modules]:  # parts of reports choose from the registry when they are loaded
        if name.startswith(("src.report", "src.table")):
            del sys.modules[name]
    assert run_words(Path(), *words) == 0
    shown = ["out", "--value", "doubt", "--out", "table.txt"]
    assert run_words(Path(), *shown, module="src.table") == 0


@pytest.mark.slow
def test_a_quantity_added_to_the_registry_shows_everywhere(
    workspace, tiny_run, empty_store, at_once
):
    shutil.copytree(empty_store, workspace / "mlruns")
    words = ["tracking=mlflow", "report=default", "hydra.run.dir=out"]
    call = partial(run_with_another_quantity, replaced(tiny_run, *words))
    at_once(call, method="spawn")  # a fork would share the renderer of an earlier chart
    rates = pd.read_csv(workspace / "out" / "rates.csv")
    assert rates["doubt"].to_numpy() == pytest.approx(1 - rates["confidence"].to_numpy())
    row = rates.query("target == 'fine' and protocol == 'joint' and eps_255 == 8").iloc[0]
    assert "One minus the confidence." in (workspace / "out" / "report.html").read_text("utf-8")
    table = (workspace / "table.txt").read_text()
    assert "Mean doubt in %" in table and f"{row['doubt']:.1%}".rstrip("%") in table
    with closing(sqlite3.connect(workspace / "mlruns" / "mlflow.db")) as store:
        metrics = store.execute("SELECT key, step, value FROM metrics").fetchall()
    values = {name: value for name, step, value in metrics if step in (0, 8)}
    assert values["doubt/curve"] == pytest.approx(row["doubt"])


def test_every_quantity_has_a_defined_term_a_computation_and_a_place_of_its_own():
    terms, frame = definitions(), rates(make_table({("a", 0): [0], ("a", 8): [1]}), "a", ["a"])
    for column, entry in QUANTITIES.items():
        assert column == entry.column and entry.title and entry.form.format(0.5)
        assert not entry.term or terms[entry.term]
        assert (column in frame) == entry.of_predictions
        assert not entry.count or {entry.count, entry.of, f"{column}_low"} <= {*frame}
    values = [entry.value for entry in QUANTITIES.values() if entry.value]
    assert len(values) == len(set(values))
    assert {name for name in COUNTED if frame[name].dtype.kind != "i"} == set()


def test_every_statistic_is_a_column_of_its_rankings_or_a_cost():
    found = outcomes_of({("mi", source, target): [1, 0] for source in "ab" for target in "cd"})
    for of, frame in {"attack": rankings(found), "source": source_rankings(found)}.items():
        columns = statistics_of(of)
        assert [name for name in frame if name in columns] == columns
        assert {entry.column for entry in STATISTICS if of in entry.of and not entry.cost} == {
            *columns
        }
