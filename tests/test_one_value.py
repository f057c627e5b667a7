"""One sweep's matrix and means: terminal, page, files, tables, frames and MLflow show the same."""

import json
import re

import mlflow
import numpy as np
import pandas as pd
import pytest

from src import load_sweep, rankings, rates
from tests.conftest import REPOSITORY, block_of, printed_cells

EPS, SOURCES, ATTACKS = 8, ["coarse", "fine", "finest"], ["fgsm", "ti"]
TARGETS = [*SOURCES, "large"]
KEYS = ["attack", "source", "target"]
NEAR = 1e-12


@pytest.fixture(scope="module")
def sweep(tracked_sweep):
    return tracked_sweep / "out"


@pytest.fixture(scope="module")
def page(sweep):
    return json.loads(block_of(sweep / "report.html"))


@pytest.fixture(scope="module")
def summary(sweep):
    return (sweep / "summary.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def printed(summary):
    """The printed fractions that are still correct, and whether a pair is a white box."""
    cells = pd.DataFrame(printed_cells(summary), columns=[*KEYS, "rate", "white"])
    found = cells[cells["source"].isin(SOURCES)].set_index(KEYS).sort_index()
    assert len(found) == 2 * 3 * 4
    return found


@pytest.fixture(scope="module")
def attacks(sweep):
    """The ranking of attacks over all sources."""
    found = rankings(sweep).query("eps_255 == @EPS")
    return found[found["source"].str.startswith("mean")].set_index("attack")


@pytest.fixture(scope="module")
def sources(sweep):
    """The ranking of sources over all attacks."""
    found = rankings(sweep, of="source").query("eps_255 == @EPS and target == 'all targets'")
    return found[found["attack"].str.startswith("mean")].set_index("source")


def test_the_frame_and_the_page_have_it(sweep, page, printed):
    wanted = pytest.approx(printed["rate"].to_dict())
    every = rates(load_sweep(sweep)).query("eps_255 == 8").set_index(KEYS)
    assert every["robust_accuracy"].to_dict() == wanted
    axes = page["axes"] | {"target": [*page["axes"]["target"], "white boxes"]}
    places = pd.MultiIndex.from_product(axes.values(), names=axes)[page["rows"]["place"]]
    shown = places.to_frame(index=False).assign(counts=page["rows"]["correct"]["counts"])
    shown = shown.query("eps_255 == 8 and protocol == 'joint' and counts != ''").set_index(KEYS)
    parts = shown["counts"].str.split(" / ").items()
    assert {at: int(k) / int(n) for at, (k, n) in parts} == wanted


def test_the_page_lists_the_means(sweep, page, attacks):
    eps = page["axes"]["eps_255"].index(EPS)
    listed = pd.DataFrame(page["rankings"][f"0.0.{eps}"]["rows"]).set_index("name")
    assert listed["value"].to_dict() == pytest.approx(attacks["mean"].to_dict(), abs=1e-4)
    behind = (-100 * attacks["difference"][1:]).map("{:z.1f}".format)
    assert listed["behind"][1:].to_dict() == behind.to_dict()
    ranked = rankings(sweep, of="source").query("eps_255 == @EPS and target == 'all targets'")
    ranked = ranked.set_index(["attack", "source"])["mean"]
    for place, attack in enumerate(page["axes"]["attack"]):
        rows = page["sources"][f"0.{place}.{eps}.0"]["rows"]
        means = pytest.approx(ranked[attack].to_dict(), abs=1e-4)
        assert {row["name"]: row["value"] for row in rows} == means


def test_mlflow_alone_makes_the_matrix(sweep, printed, monkeypatch):
    """By the lines that the documentation prints."""
    store = f"sqlite:///{sweep.parent / 'mlruns' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # `set_tracking_uri` would leave it set
    monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
    text = (REPOSITORY / "docs" / "tracking.md").read_text()
    snippet = re.search(r"```python\n(import mlflow.*?)```", text, re.S)[1]
    sweep_id = json.loads((sweep / "sweep.json").read_text())["id"]
    code = snippet.replace('"D"', '"cifar10_mini"').replace("sweep.ID", f"sweep.{sweep_id}")
    code = code.replace("/at_4", f"/at_{EPS}")
    for attack in ATTACKS:
        shown = dict[str, pd.DataFrame]()
        exec(code.replace("'bim'", f"'{attack}'"), shown)
        found = shown["matrix"].stack().to_dict()
        assert found == pytest.approx(printed["rate"][attack].to_dict())


def test_means_are_those_of_the_printed_cells(printed, attacks):
    success = 1 - printed.loc[~printed["white"], "rate"]
    means = success.groupby(["attack", "target"]).mean().groupby("attack").mean()
    assert attacks["mean"].to_dict() == pytest.approx(means.to_dict(), abs=NEAR)


@pytest.mark.parametrize("name", ["attacks", "sources"])
def test_files_and_terminal_have_means_and_differences(sweep, summary, name, request):
    ranked = request.getfixturevalue(name)
    stored = pd.read_csv(sweep / f"{name}.csv", keep_default_na=False, na_values=[""])
    key = ["eps_255", *KEYS[: 3 if name == "sources" else 2]]
    same = stored.merge(ranked.reset_index()[key]).set_index(ranked.index.name)
    columns = ["mean", "rank", "difference", "difference_low", "difference_high", "p"]
    assert np.array_equal(same[columns], ranked[columns], equal_nan=True)
    behind = ranked["mean"] - ranked["mean"].iloc[0]
    assert np.allclose(ranked["difference"].fillna(0), behind, rtol=0, atol=NEAR)
    start = f"{name.capitalize()}{', these trainings,' * (name == 'sources')} by mean"
    block = summary[summary.index(start) :].partition("\n\n")[0]
    lines = [line.split() for line in block.splitlines()]
    for model, row in ranked.iterrows():
        (line,) = [line for line in lines if model in line]
        assert f"{100 * row['mean']:.1f}%" in {word.lstrip("=") for word in line}
        assert row["rank"] == 1 or f"{100 * row['difference']:+.1f}" in line
