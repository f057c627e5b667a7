"""A user's measurement: its table, its rows in the cache, its chart, and what is refused."""

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from src import load_sweep, load_table
from src.artifacts.jobs import find_jobs
from src.artifacts.tables import EPS_255, INDEX, TEXT, column, named
from src.measure.own_measurement import OwnMeasurement
from src.measure.protocol import Measurement, ModelRef, Needs
from src.report.diagnostics import own_statistics
from tests.conftest import REPOSITORY, block_of

PAGE = (REPOSITORY / "docs" / "own-measurement.md").read_text(encoding="utf-8")
CODE = re.search(r"^```python\n(# entropy.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
CHART = "chart: {y: entropy, x: eps_255, colour: target}"
COUNTED = """
from entropy import Entropy

class Counted(Entropy):
    def __init__(self, base=2):
        self.base = base

    def rows(self, batch):
        with open("images.txt", "a") as file:
            file.write(" ".join(map(str, batch.batch.index.tolist())) + "\\n")
        return super().rows(batch)
"""


def words(keys: str, name: str = "entropy") -> str:
    return f"measurements={{{name}: {{_target_: {keys}}}}}"


@pytest.fixture
def place(workspace):
    """A folder with the page's measurement, and one that notes the images it gets."""
    (workspace / "entropy.py").write_text(CODE)
    (workspace / "counted.py").write_text(COUNTED)
    return workspace


def measured(place) -> set[int]:
    """Return the images that were measured since the last call."""
    file = place / "images.txt"
    text = file.read_text() if file.exists() else ""
    file.unlink(missing_ok=True)
    return {*map(int, text.split())}


def test_a_table_is_that_of_its_definition_and_is_drawn_without_its_code(place, run_job, run_in):
    sweep = "hydra.run.dir=outputs/a"
    assert run_job(words(f"entropy.Entropy, {CHART}"), sweep, "report=default") == 0
    table, frame = load_table("entropy", "outputs/a"), load_sweep("outputs/a")
    keys = ["attack", "source", "target", "eps_255", "index"]
    both = table.merge(frame[frame.variant == "float32"].astype({"target": str}), on=keys[2:])
    assert len(both) == len(table) == (frame.eps_255 > 0).sum()
    # An entropy is at least that of two classes, of which one has the stated confidence.
    share = both["confidence"].clip(1e-6, 1 - 1e-6)
    least = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert (both["entropy"] >= least - 1e-3).all() and both["entropy"].nunique() > 10
    drawn = block_of(place / "outputs" / "a" / "report.html")
    (place / "entropy.py").unlink()  # a finished job is data
    assert run_in(place, "folder=outputs/a", "out=again", module="src.report.__main__") == 0
    again = block_of(place / "again" / "report.html")
    for page in (drawn, again):
        assert "Mean of entropy in the table entropy" in page


@pytest.mark.slow
def test_rows_are_kept_and_a_larger_job_measures_its_new_images(place, run_job):
    asked = words("counted.Counted")
    run_job = partial(run_job, "rerun=false")
    assert run_job(asked, "n_images=8", "hydra.run.dir=outputs/a") == 0
    first = measured(place)
    assert len(first) == 8
    assert run_job(asked, "n_images=8", "hydra.run.dir=outputs/b") == 0
    assert measured(place) == set()
    assert run_job(asked, "n_images=12", "hydra.run.dir=outputs/c") == 0
    new = measured(place)
    assert new and not new & first
    tables = [pd.read_parquet(f"outputs/{name}/entropy.parquet") for name in "abc"]
    assert tables[0].equals(tables[1]) and set(tables[2]["index"]) == first | new
    assert run_job(words("counted.Counted, base: 3"), "n_images=8") == 0
    assert measured(place) == first  # other settings
    code = (place / "counted.py").read_text()
    (place / "counted.py").write_text(code.replace("base=2", "base=4"))
    assert run_job(asked, "n_images=8") == 0
    assert measured(place) == first  # other code


@pytest.mark.parametrize(
    ("keys", "name", "said"),
    [
        ("entropy.Entropy", "similarity", "this program has a table"),
        ("entropy.Entropy", "a-b", "no free name for a table"),
        ("entropy.Nothing", "entropy", "cannot be found"),
        ("tests.own_measurement.Earlier", "entropy", "key_parts is an attribute"),
        ("builtins.dict", "entropy", "is no src.measure"),
        ("entropy.Entropy, base: 3", "entropy", "failed with TypeError"),
        ("entropy.Entropy, chart: {y: nothing}", "entropy", "chart.y=nothing"),
    ],
)
def test_what_is_no_measurement_is_refused_before_any_job(place, run_job, capfd, keys, name, said):
    assert run_job(words(keys, name), "hydra.run.dir=outputs/a") == 2
    error = capfd.readouterr().err
    assert said in error and "measurements." in error and "Traceback" not in error
    assert not (place / "outputs" / "a" / "predictions.parquet").exists()


def test_a_tracker_is_one_function(workspace, run_job):
    code = re.search(r"^```python\n(# lines.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
    (workspace / "lines.py").write_text(code)
    assert run_job("++tracking._target_=lines.publish", "hydra.run.dir=outputs/a") == 0
    lines = pd.read_json("runs.jsonl", lines=True)
    assert lines["kind"].tolist() == ["job", "pair", "pair", "sweep"]
    row = lines.set_index("name").loc["fgsm coarse -> fine", "metrics"]
    rates = pd.read_csv("outputs/a/rates.csv").query("target == 'fine' and eps_255 == 8")
    (rate,) = rates.query("protocol == 'joint'")["success_rate"]
    assert row["success_rate/reference"] == pytest.approx(rate)


def test_a_chart_in_a_strangers_record_is_checked(place, run_job):
    run_job(words(f"entropy.Entropy, {CHART}"), "hydra.run.dir=outputs/a")
    (job,) = find_jobs([place / "outputs" / "a"])
    section = job.record.config["measurements"]["entropy"]
    rows = own_statistics(job)["entropy"]
    table = job.table("entropy").groupby(["eps_255", "target"])["entropy"].mean()
    assert rows.set_index(["eps_255", "target"])["entropy"].to_dict() == pytest.approx(
        table.to_dict()
    )
    charts = [{"y": "nothing"}, {"y": "entropy", "url": "http://x"}, {"y": ["a"]}, "entropy", 3]
    for bad in [*charts, {"y": "target"}]:
        section["chart"] = bad
        with pytest.raises(ValueError, match=r"entropy\.parquet: its chart: .*") as caught:
            own_statistics(job)
        assert "\n" not in str(caught.value)


NET = ModelRef.parse("net")
JOB = SimpleNamespace(
    images=SimpleNamespace(indices=np.arange(2, 8)),
    classifiers=[NET],
    budgets=(8.0,),
)
BATCH = SimpleNamespace(batch=SimpleNamespace(index=torch.arange(2, 5)), budgets=(8.0,))
NEEDS = Needs([NET], [], (8.0,), np.arange(2, 5))
TABLE = pa.table({"index": [2, 3, 4], "eps_255": [8.0] * 3})


class Odd(Measurement):
    """A measurement whose methods return values, or raise them."""

    schema, order = pa.schema([INDEX, EPS_255]), ("eps_255", "index")

    def __init__(self, value):
        self.value = value

    def give(self, *arguments):
        """Return the value, or raise it."""
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    needs = rows = finish = give


def refusal(method, value, *arguments) -> str:
    """Return what is said of a value that a method of the user's returns or raises."""
    with pytest.raises(ValueError, match=r"^measurements\.odd: ") as caught:
        getattr(OwnMeasurement("odd", Odd(value), "key"), method)(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def at(*budgets: float) -> pa.Table:
    rows = [TABLE.set_column(1, EPS_255, pa.array([eps_255] * 3)) for eps_255 in budgets]
    return pa.concat_tables(table.cast(Odd.schema) for table in rows)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (TABLE.drop_columns("eps_255"), "eps_255"),
        (at(8.0).slice(1), "has no row"),
        (at(8.0, 8.0), "several rows have the same index, eps_255"),
        (at(99.0), "odd: rows with eps_255=99.0 for the budgets [8.0]"),
        (at(8.0).to_pandas(), "returns DataFrame instead of a pyarrow.Table"),
        (KeyError("net"), "rows failed with KeyError: 'net'"),
    ],
)
def test_rows_that_do_not_belong_to_the_batch_are_refused(rows, said):
    assert said in refusal("rows", rows, BATCH)


@pytest.mark.parametrize(
    ("budgets", "attacked", "found"),
    [
        ((8.0,), True, [8.0]),
        ((0.3, 8.0), True, [float(np.float32(0.3)), 8.0]),  # as from a float32 tensor
        ((), True, [1.25]),  # an attack of its own finds it
        ((), False, [0.0]),
    ],
)
def test_rows_of_the_batchs_budgets_are_taken(budgets, attacked, found):
    odd = Odd(at(*found))
    odd.attacked = attacked
    batch = SimpleNamespace(batch=BATCH.batch, budgets=budgets)
    assert OwnMeasurement("odd", odd, "key").rows(batch).equals(at(*found))


def test_full_memory_is_left_to_the_pass():
    with pytest.raises(torch.OutOfMemoryError):
        OwnMeasurement("odd", Odd(torch.OutOfMemoryError()), "key").rows(BATCH)


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (KeyError("budgets"), "needs failed with KeyError: 'budgets'"),
        (NEEDS._replace(images=np.arange(9)), "image 0, which the job lacks"),
        (NEEDS._replace(images=[5, 90]), "image 90, which the job lacks"),
        (NEEDS._replace(images=None), "whole numbers"),
        (NEEDS._replace(targets=["net"]), "the model net, which the job lacks"),
        (NEEDS._replace(budgets=(8.0, 9.0)), "the budget 9.0, which the job lacks"),
    ],
)
def test_needs_that_a_job_lacks_are_refused(needs, said):
    assert said in refusal("needs", needs, JOB)


def test_images_are_in_ascending_order():
    odd = OwnMeasurement("odd", Odd(NEEDS._replace(images=[4, 2])), "key")
    assert odd.stored_as == "odd-key" and odd.needs(JOB).images.tolist() == [2, 4]


FINISHED = named(at(8.0), NET)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "finish returns NoneType instead"),
        (KeyError("odd"), "finish failed with KeyError: 'odd'"),
        (FINISHED.drop_columns("eps_255"), "finish must return the column eps_255 once"),
        (FINISHED.append_column("attack", FINISHED["target"]), "finish adds the column attack"),
        (FINISHED.set_column(1, "eps_255", FINISHED["target"]), "measurements.odd"),
    ],
)
def test_a_finished_table_has_the_columns_of_the_schema(table, said):
    assert said in refusal("finish", table, FINISHED, JOB)
    odd = OwnMeasurement("odd", Odd(FINISHED.slice(1)), "key")
    assert odd.finish(FINISHED, JOB).equals(FINISHED.slice(1))


@pytest.mark.parametrize("name", ["attack", "source", "target", "defence", "image", "key", "file"])
def test_columns_that_are_added_are_reserved(name):
    odd = Odd(None)
    odd.schema = pa.schema([*Odd.schema, column(name, TEXT)])
    with pytest.raises(ValueError, match=rf"has the column {name}, but"):
        OwnMeasurement("odd", odd, "key")


def test_a_job_says_in_a_sentence_which_measurement_is_wrong(place, run_job, capfd):
    code = "from entropy import Entropy\n\nclass Bad(Entropy):\n    def rows(self, *_): return []"
    (place / "bad.py").write_text(code)
    assert run_job(words("bad.Bad", "bad"), "hydra.run.dir=outputs/a") in (1, 2)
    told = capfd.readouterr()
    assert "measurements.bad: " in told.out + told.err
    assert "Traceback" not in told.out + told.err
