"""One sweep's mean success of attacks and sources: every face shows the same value."""

import io
import json

import mlflow
import numpy as np
import pandas as pd
import pytest

from src import rankings, table
from tests.conftest import block_of, printed_cells

EPS, SOURCES = 8, ["coarse", "fine", "finest"]
TARGETS = [*SOURCES, "large"]
ATTACKS = ["fgsm", "ti"]
NEAR = 1e-12


@pytest.fixture(scope="module")
def sweep(tracked_sweep):
    return tracked_sweep / "out"


@pytest.fixture(scope="module")
def attacks(sweep):
    """The ranking of attacks over all sources."""
    found = rankings(sweep)
    found = found[(found["eps_255"] == EPS) & found["source"].str.startswith("mean")]
    return found.set_index("attack")


@pytest.fixture(scope="module")
def sources(sweep):
    """The ranking of sources over all attacks."""
    found = rankings(sweep, of="source")
    found = found[(found["eps_255"] == EPS) & found["attack"].str.startswith("mean")]
    return found[found["target"] == "all targets"].set_index("source")


@pytest.fixture(scope="module")
def cells(sweep):
    """The printed fractions of success, by attack, source and target, without white boxes."""
    text = (sweep / "summary.txt").read_text(encoding="utf-8")
    cells = [cell for cell in printed_cells(text) if cell[1] in SOURCES and not cell[4]]
    found = {(attack, source, target): 1 - rate for attack, source, target, rate, _ in cells}
    assert len(found) == 2 * 3 * 3, text
    return pd.Series(found).rename_axis(["attack", "source", "target"])


def below(text, start):
    """Return the lines of a printed table as lists of words."""
    block = text[text.index(start) :].partition("\n\n")[0]
    return [line.split() for line in block.splitlines()]


def test_an_attacks_mean_is_that_of_the_printed_cells(cells, attacks):
    by_target = cells.groupby(["attack", "target"]).mean()
    means = by_target.groupby("attack").mean()
    assert attacks["mean"].to_dict() == pytest.approx(means.to_dict(), abs=NEAR)


def test_the_table_has_it_too_and_its_columns_subtract(sweep, attacks):
    text = table(sweep, rows="attack", columns="target", to="csv", differences=True)
    found = pd.read_csv(io.StringIO(str(text)), index_col="attack")
    targets = found[TARGETS]
    assert np.allclose(targets.mean(axis=1), found["average"], rtol=0, atol=NEAR)
    assert found["average"].to_dict() == pytest.approx(attacks["mean"].to_dict(), abs=NEAR)
    behind = (found["average"] - found["average"].max())[found["difference"].notna()]
    assert found["difference"].dropna().to_dict() == pytest.approx(behind.to_dict(), abs=NEAR)
    assert len(behind) == len(ATTACKS) - 1


@pytest.mark.slow
@pytest.mark.parametrize("columns", [["source"], ["source", "target"]])
def test_tables_of_other_columns_have_it_too(sweep, attacks, columns):
    text = table(sweep, rows="attack", columns=columns, to="csv", differences=True)
    found = pd.read_csv(io.StringIO(str(text)), index_col="attack")
    for name, column in (("average", "mean"), ("difference", "difference")):
        wanted = attacks[column].to_dict()
        assert found[name].to_dict() == pytest.approx(wanted, abs=NEAR, nan_ok=True)


def test_the_mean_of_one_source_is_that_of_its_row(sweep, cells):
    found = rankings(sweep)
    found = found[(found["eps_255"] == EPS) & found["source"].isin(SOURCES)]
    found = found.set_index(["attack", "source"])["mean"]
    of_rows = cells.groupby(["attack", "source"]).mean()
    assert found.to_dict() == pytest.approx(of_rows.to_dict(), abs=NEAR)


@pytest.mark.parametrize("name", ["attacks", "sources"])
def test_differences_are_differences_in_the_files_and_from_python(sweep, name, request):
    ranked = request.getfixturevalue(name)
    stored = pd.read_csv(sweep / f"{name}.csv", keep_default_na=False, na_values=[""])
    key = ["eps_255", "attack", "source", *["target"] * (name == "sources")]
    same = stored.merge(ranked.reset_index()[key]).set_index(ranked.index.name)
    columns = ["mean", "rank", "difference", "difference_low", "difference_high", "p"]
    assert np.array_equal(same[columns], ranked[columns], equal_nan=True)
    behind = ranked["mean"] - ranked["mean"].iloc[0]
    assert np.allclose(ranked["difference"].fillna(0), behind, rtol=0, atol=NEAR)


@pytest.mark.parametrize("name", ["attacks", "sources"])
def test_the_terminal_prints_it(sweep, name, request):
    ranked = request.getfixturevalue(name)
    text = (sweep / "summary.txt").read_text(encoding="utf-8")
    lines = below(text, f"{name.capitalize()}{', these trainings,' * (name == 'sources')} by mean")
    for model, row in ranked.iterrows():
        (line,) = [line for line in lines if model in line]
        assert f"{100 * row['mean']:.1f}%" in {word.lstrip("=") for word in line}
        if row["rank"] > 1:
            assert f"{100 * row['difference']:+.1f}" in line


def test_the_page_lists_it(sweep, attacks):
    page = json.loads(block_of(sweep / "report.html"))
    ranked = rankings(sweep, of="source").query("eps_255 == @EPS and target == 'all targets'")
    ranked = ranked.set_index(["attack", "source"])
    eps = page["axes"]["eps_255"].index(EPS)
    listed = pd.DataFrame(page["rankings"][f"0.0.{eps}"]["rows"]).set_index("name")
    assert listed["value"].to_dict() == pytest.approx(attacks["mean"].to_dict(), abs=1e-4)
    behind = (-100 * attacks["difference"][1:]).map("{:z.1f}".format)
    assert listed["behind"][1:].to_dict() == behind.to_dict()
    for place, attack in enumerate(page["axes"]["attack"]):
        rows = page["sources"][f"0.{place}.{eps}.0"]["rows"]
        its = {row["name"]: row["value"] for row in rows}
        assert its == pytest.approx(ranked.loc[attack, "mean"].to_dict(), abs=1e-4)


def test_the_choice_of_a_source_prints_it(sweep, sources, run_in, capsys):
    assert run_in(sweep.parent, "out", module="src.sources") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for source, row in sources.iterrows():
        line = next(line for line in lines if source in line)
        assert line[1] == f"{row['mean']:.1%}"


def test_mlflow_has_it(sweep, attacks):
    client = mlflow.MlflowClient(f"sqlite:///{sweep.parent / 'mlruns' / 'mlflow.db'}")
    place = client.get_experiment_by_name("cifar10_mini-sweeps").experiment_id
    (run,) = client.search_runs([place], "tags.kind = 'sweep'")
    wanted = {"transfer_success": "mean", "difference_from_first": "difference"}
    for metric, column in wanted.items():
        for attack, value in attacks[column].fillna(0).items():
            history = client.get_metric_history(run.info.run_id, f"{metric}/{attack}/curve")
            assert {one.step: one.value for one in history}[EPS] == pytest.approx(value, abs=NEAR)
