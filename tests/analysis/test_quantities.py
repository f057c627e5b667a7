"""The registry of quantities: what is added there shows everywhere."""

import re
import sqlite3
from contextlib import closing

import pandas as pd
import pytest

from src.analysis.quantities import QUANTITIES, definitions
from tests.conftest import replaced, run_python

ADD = """
import sys
from pathlib import Path
import numpy as np
from src.analysis.quantities import QUANTITIES, Quantity
from tests.conftest import run_words

def doubt(outcome):
    return 1 - np.nanmean(np.where(outcome.denominator, outcome.confidence, np.nan), axis=1)

QUANTITIES["doubt"] = Quantity(
    "doubt", "Mean doubt in %", term="doubt", definition="One minus the confidence.",
    compute=doubt, value="doubt", drawn="doubt", tooltip=10, averaged=True, metric="curve",
)
assert run_words(Path(), *sys.argv[1:]) == 0
print("TABLE")
sys.exit(run_words(Path(), "out", "--value", "doubt", module="src.table"))
"""


def test_a_quantity_added_to_the_registry_shows_everywhere(workspace, tiny_run):
    words = ["tracking=mlflow", "report=default", "hydra.run.dir=out"]
    printed = run_python("-c", ADD, *replaced(tiny_run, *words), folder=workspace)
    rates = pd.read_csv(workspace / "out" / "rates.csv")
    assert rates["doubt"].to_numpy() == pytest.approx(1 - rates["confidence"].to_numpy())
    row = rates.query("target == 'fine' and protocol == 'joint' and eps_255 == 8").iloc[0]
    page = (workspace / "out" / "report.html").read_text(encoding="utf-8")
    assert re.search(r'\{"field":"doubt","format":"\.1%","title":"doubt"', page)
    assert "One minus the confidence." in page
    table = printed.partition("TABLE")[2]
    assert "Mean doubt in %" in table and f"{row['doubt']:.1%}".rstrip("%") in table
    with closing(sqlite3.connect(workspace / "mlruns" / "mlflow.db")) as store:
        metrics = store.execute("SELECT key, step, value FROM metrics").fetchall()
    assert ("curves/doubt", 8) in {(name, step) for name, step, _ in metrics}
    values = [value for name, _, value in metrics if name == "reference/doubt"]
    assert any(value == pytest.approx(row["doubt"]) for value in values)


def test_every_quantity_has_a_defined_term_and_a_place_of_its_own():
    terms = definitions()
    assert all(entry.term in terms for entry in QUANTITIES.values() if entry.term)
    for places in (
        [entry.tooltip for entry in QUANTITIES.values() if entry.tooltip],
        [entry.value for entry in QUANTITIES.values() if entry.value],
        [entry.drawn for entry in QUANTITIES.values() if entry.drawn],
    ):
        assert len(places) == len(set(places))
