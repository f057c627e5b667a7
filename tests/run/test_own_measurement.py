"""A user's measurement: its table, its rows in the cache, its chart, and what is refused."""

import re
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from src import load_sweep, load_table
from src.artifacts.jobs import find_jobs
from src.artifacts.tables import EPS_255, INDEX, TEXT, column, named
from src.config.sections import MeasurementSettings
from src.measure.own_measurement import OwnMeasurement, own_measurements
from src.measure.protocol import Measurement, ModelRef, Needs
from src.report.diagnostics import own_statistics
from tests.conftest import REPOSITORY, block_of

PAGE = (REPOSITORY / "docs" / "own-measurement.md").read_text(encoding="utf-8")
CODE = re.search(r"^```python\n(# entropy.py\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def place(workspace, monkeypatch):
    """A folder with the page's code."""
    (workspace / "entropy.py").write_text(CODE)
    monkeypatch.syspath_prepend(workspace)
    yield workspace
    sys.modules.pop("entropy", None)


def test_a_table_is_that_of_its_definition_and_is_drawn_without_its_code(place, run_job, run_in):
    keys = "_target_: entropy.Entropy, chart: {y: entropy, x: eps_255, colour: target}"
    asked = [f"measurements={{entropy: {{{keys}}}}}"]
    assert run_job(*asked, "report=default", "hydra.run.dir=outputs/a") == 0
    table, frame = load_table("entropy", "outputs/a"), load_sweep("outputs/a")
    keys = ["attack", "source", "target", "eps_255", "index"]
    both = table.merge(frame[frame.variant == "float32"].astype({"target": str}), on=keys[2:])
    assert len(both) == len(table) == (frame.eps_255 > 0).sum()
    # An entropy is at least that of two classes, of which one has the stated confidence.
    share = both["confidence"].clip(1e-6, 1 - 1e-6)
    least = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert (both["entropy"] >= least - 1e-3).all() and both["entropy"].nunique() > 10
    (place / "entropy.py").unlink()  # a finished job is data
    assert run_in(place, "folder=outputs/a", "out=again", module="src.report.__main__") == 0
    for page in ("outputs/a", "again"):
        drawn = block_of(place / page / "report.html")
        assert "Mean of entropy in the table entropy" in drawn
    (job,) = find_jobs([place / "outputs" / "a"])
    means = own_statistics(job)["entropy"].set_index(["eps_255", "target"])["entropy"]
    wanted = job.table("entropy").groupby(["eps_255", "target"])["entropy"].mean()
    assert means.to_dict() == pytest.approx(wanted.to_dict())
    section = job.record.config["measurements"]["entropy"]
    charts = [{"y": "nothing"}, {"y": "entropy", "url": "http://x"}, {"y": ["a"]}, 3]
    for bad in [*charts, {"y": "target"}]:  # of a stranger
        section["chart"] = bad
        with pytest.raises(ValueError, match=r"entropy\.parquet: its chart: .*"):
            own_statistics(job)


def own(name="entropy", target="entropy.Entropy", **more) -> OwnMeasurement:
    section = MeasurementSettings.model_validate({"_target_": target, **more})
    (measurement,) = own_measurements({name: section})
    return measurement


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"name": "similarity"}, "this program has a table"),
        ({"target": "entropy.Nothing"}, "cannot be found"),
        ({"target": "builtins.dict"}, "is no src.measure"),
        ({"base": 3}, "failed with TypeError"),
        ({"chart": {"y": "nothing"}}, "chart.y=nothing"),
    ],
)
def test_what_is_no_measurement_is_refused(place, words, said):
    name = words.get("name", "entropy")
    with pytest.raises(ValueError, match=rf"^measurements\.{name}: .*{re.escape(said)}"):
        own(**words)


def test_other_code_or_settings_have_rows_of_their_own(place):
    target = "tests.own_measurement.Changes"
    names = [own().stored_as, own().stored_as, own(target=target).stored_as]
    sys.modules.pop("entropy")
    (place / "entropy.py").write_text(f"{CODE}\nmore = 1\n")
    names.append(own().stored_as)
    assert names[0] == names[1] and len({*names}) == 3
    assert all(re.fullmatch(r"entropy-[0-9a-f]{16}", name) for name in names)


NET = ModelRef.parse("net")
JOB = SimpleNamespace(
    images=SimpleNamespace(indices=np.arange(2, 8)), classifiers=[NET], budgets=(8.0,)
)
BATCH = SimpleNamespace(batch=SimpleNamespace(index=torch.arange(2, 5)), budgets=(8.0,))
NEEDS = Needs([NET], [], (8.0,), np.arange(2, 5))


class Odd(Measurement):
    """A measurement whose methods return a value, or raise it."""

    schema, order = pa.schema([INDEX, EPS_255]), ("eps_255", "index")

    def __init__(self, value):
        self.value = value

    def give(self, *arguments):
        """Return the value, or raise it."""
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    needs = rows = finish = give


def at(*budgets: float) -> pa.Table:
    """Return rows of the images of the batch at budgets."""
    rows = {"index": [2, 3, 4] * len(budgets), "eps_255": np.repeat(budgets, 3)}
    return pa.table(rows).cast(Odd.schema)


FINISHED = named(at(8.0), NET)
ADDED = ["attack", "target", "image", "key"]


@pytest.mark.parametrize(
    ("method", "value", "said"),
    [
        ("rows", at(8.0).drop_columns("eps_255"), "eps_255"),
        ("rows", at(8.0).slice(1), "an image of the batch has no row"),
        ("rows", pa.concat_tables([at(8.0), at(8.0).set_column(0, INDEX, [[7, 8, 9]])]), "not in"),
        ("rows", at(8.0, 8.0), "several rows have the same index, eps_255"),
        ("rows", at(99.0), "rows with eps_255=99.0 for the budgets [8.0]"),
        ("rows", at(8.0).to_pandas(), "returns DataFrame instead of a pyarrow.Table"),
        ("rows", KeyError("net"), "rows: KeyError: 'net'"),
        ("needs", NEEDS._replace(images=np.arange(9)), "image 0, which the job lacks"),
        ("needs", NEEDS._replace(images=[2.5]), "whole numbers"),
        ("needs", NEEDS._replace(targets=["net"]), "the model net, which the job lacks"),
        ("needs", NEEDS._replace(budgets=(8.0, 9.0)), "the budget 9.0, which the job lacks"),
        ("finish", None, "finish returns NoneType instead"),
        ("finish", FINISHED.append_column("attack", FINISHED["target"]), "adds the column attack"),
        ("finish", FINISHED.set_column(1, "eps_255", FINISHED["target"]), "measurements.odd"),
    ],
)
def test_what_a_users_method_returns_or_raises_is_refused_in_a_sentence(method, value, said):
    arguments = {"rows": [BATCH], "needs": [JOB], "finish": [FINISHED, JOB]}[method]
    with pytest.raises(ValueError, match=r"^measurements\.odd: ") as caught:
        getattr(OwnMeasurement("odd", Odd(value), "key"), method)(*arguments)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_tables_are_finished_images_ascend_and_full_memory_is_left_to_the_pass():
    finished = OwnMeasurement("odd", Odd(FINISHED.slice(1)), "key").finish(FINISHED, JOB)
    assert finished.equals(FINISHED.slice(1))
    odd = OwnMeasurement("odd", Odd(NEEDS._replace(images=[4, 2])), "key")
    assert odd.needs(JOB).images.tolist() == [2, 4]
    with pytest.raises(torch.OutOfMemoryError):
        OwnMeasurement("odd", Odd(torch.OutOfMemoryError()), "key").rows(BATCH)


def test_schemas_are_refused():
    for schema, said in (
        *(([*Odd.schema, column(name, TEXT)], f"has the column {name}, but") for name in ADDED),
        ([*Odd.schema, EPS_255], "each name once"),
        ([INDEX], "the columns of `order`"),
        ([EPS_255, INDEX], "whose first column is INDEX"),
    ):
        odd = Odd(None)
        odd.schema = pa.schema(schema)
        with pytest.raises(ValueError, match=said):
            OwnMeasurement("odd", odd, "key")
