"""One sweep, four faces: terminal, report, table and MLflow show the same matrix."""

import csv
import io
import json
import re

import pandas as pd
import pytest

from src import load_sweep, rates, table
from tests.conftest import REPOSITORY, block_of, printed_cells

SOURCES = ["coarse", "fine", "finest"]
TARGETS = [*SOURCES, "large"]


@pytest.fixture(scope="module")
def sweep(tracked_sweep):
    return tracked_sweep / "out"


@pytest.fixture(scope="module")
def wanted(sweep):
    """Robust accuracies by attack, source and target, as the terminal prints them."""
    text = (sweep / "summary.txt").read_text()
    cells = [cell for cell in printed_cells(text) if cell[1] in SOURCES]
    found = {(attack, source, target): rate for attack, source, target, rate, _ in cells}
    assert len(found) == 2 * 3 * 4, text
    return pd.Series(found)


def test_the_table_has_the_numbers_of_the_terminal(sweep, wanted):
    rows = csv.DictReader(io.StringIO(str(table(sweep, value="accuracy", to="csv"))))
    found = {
        (row["attack"], row["source"], target): float(row[target])
        for row in rows
        for target in TARGETS
    }
    pd.testing.assert_series_equal(pd.Series(found).sort_index(), wanted.sort_index())


def test_the_table_of_counts_has_the_rows_of_the_terminal(sweep):
    shown = {cell[:3]: cell[3] for cell in printed_cells((sweep / "summary.txt").read_text())}
    rows = csv.DictReader(io.StringIO(str(table(sweep, value="counts", clean=True, to="csv"))))
    for row in rows:
        for target in TARGETS:
            k, n = map(int, row[target].partition(" =")[0].split(" / "))
            attack = row["attack"] or "fgsm"  # clean images have no attack
            assert shown.pop((attack, row["source"], target)) == k / n
    assert {(attack, source) for attack, source, _ in shown} == {("ti", "clean")}


def test_the_frame_and_the_report_have_them(sweep, wanted):
    every = rates(load_sweep(sweep)).query("eps_255 == 8")
    keys = ["attack", "source", "target"]
    found = every.set_index(keys)["robust_accuracy"].sort_index()
    assert found.to_dict() == pytest.approx(wanted.to_dict())
    page = json.loads(block_of(sweep / "report.html"))
    axes = page["axes"] | {"target": [*page["axes"]["target"], "white boxes"]}
    places = pd.MultiIndex.from_product(axes.values(), names=axes)[page["rows"]["place"]]
    shown = places.to_frame(index=False).assign(counts=page["rows"]["correct"]["counts"])
    shown = shown.query("eps_255 == 8 and protocol == 'joint' and counts != ''").set_index(keys)
    parts = shown["counts"].str.split(" / ").items()
    assert {at: int(k) / int(n) for at, (k, n) in parts} == pytest.approx(wanted.to_dict())


def test_mlflow_alone_makes_the_matrix(sweep, wanted, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    store = f"sqlite:///{sweep.parent / 'mlruns' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # `set_tracking_uri` would leave it set
    page = (REPOSITORY / "docs" / "tracking.md").read_text()
    snippet = re.search(r"```python\n(import mlflow.*?)```", page, re.S)[1]
    printed = {"sqlite:///mlruns/mlflow.db": store, '"D"': '"cifar10_mini"'}
    printed["sweep.ID"] = f"sweep.{json.loads((sweep / 'sweep.json').read_text())['id']}"
    for attack in ("fgsm", "ti"):
        code = snippet
        for old, new in {**printed, "'bim'": f"'{attack}'"}.items():
            code = code.replace(old, new)
        monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
        shown = dict[str, pd.DataFrame]()
        exec(code, shown)
        found, runs = shown["matrix"], shown["runs"]
        assert found.stack().to_dict() == pytest.approx(wanted[attack].to_dict())
        needed = ["params.attack", "params.defence", "params.reference_eps_255", "tags.protocol"]
        needed += ["metrics.success_rate/reference", "metrics.gradients_per_image"]
        assert runs[[*needed, "metrics.seconds"]].notna().all(axis=None)
    (one,) = {each.dataset.name for run in _runs(mlflow) for each in run.inputs.dataset_inputs}
    assert one == "cifar10_mini"


def _runs(mlflow):
    client = mlflow.MlflowClient()
    names = ("cifar10_mini", "cifar10_mini-sweeps")
    found = [client.get_experiment_by_name(name).experiment_id for name in names]
    return [run for run in client.search_runs(found) if run.data.tags["kind"] != "sweep"]
