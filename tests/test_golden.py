"""A sweep and some single jobs against the tables in `tests/golden/`: no number changes unseen.

The tests run the command line and know no function behind it: files are found by their names,
columns by theirs, metrics in the SQLite file. Where a number is meant to change,

    GOLDEN=write python -m pytest tests/test_golden.py

writes the tables anew, and their diff shows what has changed. The sweep of `make demo` is beside
its stored tables in `docs/results/demo`.

Classes, counts and texts of the sweep are the same on every processor, because no image is near a
place where rounding decides. Its networks, which were fitted to other images and of these twenty
classify 8 and 9 correctly, are smooth and begin with a pooling, so that few gradients have a sign
to be turned; seed and number of images are such that no two classes of a top five are nearer than a
factor of 1.0001 in confidence, the first two than 0.0005, and no gradient is nearer to zero than
1e-5 of the largest of its image. Budgets and steps keep clear of half grey levels. The single jobs
attack trained networks, where such gradients exist: their confidences get more room.
"""

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src import load_sweep, rates
from tests.conftest import REPOSITORY, replaced
from tests.guard import COMMANDS, COMMON, FRAME, recorded_keys

GOLDEN = Path(__file__).parent / "golden"

# Confidences are float32, of logits of up to 10, whose last digit is 1e-6. Instruction sets (SSE4.1
# to AVX-512) and numbers of threads moved them by less than 1e-6; one image more in a rate is 0.05.
ROUNDING = 1e-5

# Which files of the sweep and of the jobs a stored table stacks.
OF_SWEEP = {
    "predictions.parquet": "*/predictions*.parquet",
    "top_five.parquet": "*/top_five.parquet",
    "rates.csv": "*/rates.csv",
    "excess.csv": "*/excess.csv",
    "minimum-budgets.csv": "*/minimum-budgets.csv",
    "flip-summary.csv": "*/flip-summary.csv",
}
TABLES = ("predictions", "filtered", "low_passed", "similarity", "spectra", "visibility")
OF_JOBS = {f"{name}.parquet": f"*/{name}*.parquet" for name in TABLES}
OF_JOBS |= {"attacks.csv": "*/attacks.csv", "frame.csv": "frame.csv"}
# Columns that tell rows apart, as far as a table has them.
KEYS = [
    *("file", "experiment", "run", "metric", "step", "variant", "control", "protocol"),
    *("attack", "source", "target", "defence", "group", "index", "eps_255", "kind", "band"),
    *("cutoff", "frequency_low", "name"),
]
TIMINGS = ("images_per_second", "duration", "seconds")

SWEEP = [
    *("attack=fgsm,bim3", "source=wide,flat", "targets=[wide,flat]", "dataset=cifar10_mini"),
    *("n_images=20", "seed=62865", "dataset.seed=62865", "epsilon.grid=[0,0.5,1,2,4,8,16]"),
    *("variants=[uint8]", "controls=true", "trainer.batch_size=10", "hydra.sweep.dir=sweep"),
    "tracking=mlflow",
]


JOBS = ("targeted", "layers", "ensemble", "defended", "full", "saved")
ROOM = 0.1  # of confidences and minimum budgets after a gradient near zero has turned its sign


def test_a_sweep_leaves_the_stored_tables_and_metrics(
    run_job: Callable[..., int], workspace: Path
) -> None:
    shutil.copytree(GOLDEN / "input", workspace, dirs_exist_ok=True)
    assert run_job("-m", *SWEEP) == 0
    tables = {name: stacked(workspace / "sweep", pattern) for name, pattern in OF_SWEEP.items()}
    tables["metrics.csv"] = metrics(workspace / "mlruns" / "mlflow.db")
    compare(tables, GOLDEN, workspace / "now", ROUNDING)


@pytest.mark.slow
def test_jobs_of_all_kinds_leave_the_stored_tables_and_names(
    run_in: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targeted, layers read, an ensemble, a defended source in L2, every diagnostic, saved."""
    monkeypatch.chdir(tmp_path)
    for name in JOBS:
        tracking = "tracking=mlflow" if name == "full" else "tracking=none"
        words = [*replaced(COMMON, *COMMANDS[name]), tracking, f"hydra.run.dir=jobs/{name}"]
        assert run_in(tmp_path, *(word.replace("full/", "jobs/full/") for word in words)) == 0
    files = [path.relative_to(tmp_path) for path in (tmp_path / "jobs").rglob("*")]
    monkeypatch.chdir(tmp_path / "jobs")
    exec(FRAME, {})
    unstable = ["top5_classes", "top5_confidences"]  # ranks of improbable classes
    tables = {
        name: stacked(tmp_path / "jobs", pattern).drop(columns=unstable, errors="ignore")
        for name, pattern in OF_JOBS.items()
    }
    names = {
        "file": [path.as_posix() for path in files if (tmp_path / path).is_file()],
        "key of the record": recorded_keys(tmp_path / "jobs" / "full" / "predictions.parquet"),
        "metric": metrics(tmp_path / "mlruns" / "mlflow.db")["metric"].dropna().unique(),
    }
    rows = [(kind, name) for kind, group in names.items() for name in sorted(group)]
    tables["names.csv"] = pd.DataFrame(rows, columns=["kind", "name"])
    compare(tables, GOLDEN / "jobs", tmp_path / "now", ROOM)


def compare(tables: dict[str, pd.DataFrame], stored: Path, folder: Path, room: float) -> None:
    """Compare tables with the stored ones, whatever the order of rows, or write these.

    Floats may differ by `room`.
    """
    writing = os.environ.get("GOLDEN") == "write"
    folder = stored if writing else folder
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        write(table, folder / name)
    if writing:
        pytest.skip("written")
    for name in tables:
        was, now = (told_apart(name, read(place / name)) for place in (stored, folder))
        words = {"check_like": True, "check_dtype": False, "rtol": 0, "atol": room}
        pd.testing.assert_frame_equal(now, was, **words, obj=name)


def stacked(folder: Path, pattern: str) -> pd.DataFrame:
    """Return the tables of a kind below each other, with the file that each row is from."""
    files = sorted(folder.glob(pattern))
    tables = {path.relative_to(folder).as_posix(): read(path) for path in files}
    assert tables, f"the sweep left no {pattern}"
    return pd.concat(tables, names=["file"]).reset_index("file").reset_index(drop=True)


def metrics(store: Path) -> pd.DataFrame:
    """Return every run's metrics; of timings the name alone, of runs without any the run alone."""
    query = """
        SELECT e.name AS experiment, r.name AS run, m.key AS metric, m.step, m.value, m.is_nan
        FROM runs r JOIN experiments e USING (experiment_id) LEFT JOIN metrics m USING (run_uuid)
        ORDER BY 1, 2, 3, 4
    """
    with closing(sqlite3.connect(store)) as connection:
        table = pd.read_sql(query, connection)
    unsaid = (table.pop("is_nan") == 1) | table["metric"].isin(TIMINGS)
    return table.assign(value=table["value"].mask(unsaid))


def read(path: Path) -> pd.DataFrame:
    """Read a table; of a list of five, the classes become a text and the confidences their sum."""
    if path.suffix == ".csv":
        return pd.read_csv(path)
    table = pd.read_parquet(path)
    for name in table.columns[[isinstance(value, np.ndarray) for value in table.iloc[0]]]:
        whole = np.issubdtype(table[name][0].dtype, np.integer)
        table[name] = [" ".join(map(str, row)) if whole else row.sum() for row in table[name]]
    return table


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table in few bytes: beyond seven digits there is rounding alone."""
    if path.suffix == ".csv":
        table.round(7).to_csv(path, index=False, lineterminator="\n")
    else:
        table.to_parquet(path, index=False, compression="zstd")


def told_apart(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table under its keys, of which each must stand for one row."""
    keys = [key for key in KEYS if key in table]
    index = pd.MultiIndex.from_frame(table[keys].astype(object).fillna("none"))
    assert index.is_unique, f"{name}: twice {index[index.duplicated()][:3].tolist()}"
    return table.drop(columns=keys).set_index(index)  # whatever the order of the rows


STORED = REPOSITORY / "docs" / "results" / "demo"
NEAR = 2
"""Images by which a count may differ where a processor rounds differently."""


def demo(*others: str) -> list[str]:
    """Return the words of `make demo`, or others of the same keys."""
    (words,) = re.findall(
        "-m src.main (.*experiment=demo.*)", (REPOSITORY / "Makefile").read_text()
    )
    return replaced(words.split(), *others)


def counts(folder: Path) -> pd.DataFrame:
    """Return still correct and counted images of every attack, source, target and budget."""
    jobs = load_sweep(folder).predictions.groupby(["attack", "source"])
    found = {key: rates(job, key[1], list(job["target"].unique())) for key, job in jobs}
    table = pd.concat(found, names=["attack", "source"]).reset_index()
    keys = ["attack", "source", "target", "eps_255"]
    return table.set_index(keys)[["still_correct", "denominator"]].sort_index()


@pytest.mark.slow
def test_everybody_gets_the_stored_counts(tmp_path: Path, run_in: Callable[..., int]) -> None:
    words = [*demo(), "tracking=none", "report=none", "hydra.sweep.dir=sweep"]
    assert run_in(tmp_path, *words, "trainer.progress_bar=false") == 0
    sweep = tmp_path / "sweep"
    assert "ALARM" not in (sweep / "summary.txt").read_text()
    found, stored = counts(sweep), counts(STORED)
    jobs = found.index.droplevel(["target", "eps_255"])
    stored = stored[stored.index.droplevel(["target", "eps_255"]).isin(jobs)]
    assert len(jobs.unique()) == len(list(sweep.glob("*-*/"))) == 9
    assert found.index.equals(stored.index)
    apart = (found - stored).abs().max(axis=1)
    assert (apart <= NEAR).all(), found.join(stored, rsuffix="_stored")[apart > NEAR]
