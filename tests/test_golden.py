"""One sweep against the tables in `tests/golden/`: nothing may alter a number unseen.

The net under changes of the code's structure. It runs the command line on two small networks with
stored weights and knows no function behind it: files are found by their names, columns by theirs,
metrics in the SQLite file. Where a number is meant to change,

    GOLDEN=write python -m pytest tests/test_golden.py

writes the tables anew, and their diff shows what has changed.

Classes, counts and texts are the same on every processor, because no image is near a place where
rounding decides. The networks, which were fitted to other images and of these twenty classify 8
and 9 correctly, are smooth and begin with a pooling, so that few gradients have a sign to be
turned; seed and number of images are such that no two classes of a top five are nearer than a
factor of 1.0001 in confidence, the first two than 0.0005, and no gradient is nearer to zero than
1e-5 of the largest of its image. Budgets and steps keep clear of half grey levels.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

GOLDEN = Path(__file__).parent / "golden"

# Confidences are float32, of logits of up to 10, whose last digit is 1e-6. Instruction sets (SSE4.1
# to AVX-512) and numbers of threads moved them by less than 1e-6; one image more in a rate is 0.05.
ROUNDING = 1e-5

# By name of the stored table: which files of the sweep it stacks, and what tells their rows apart.
KINDS = {
    "predictions.parquet": ("*/predictions*.parquet", ["index", "target", "eps_255"]),
    "top_five.parquet": ("*/top_five.parquet", ["index", "target", "eps_255"]),
    "rates.csv": ("*/rates.csv", ["variant", "protocol", "target", "eps_255"]),
    "excess.csv": ("*/excess.csv", ["control", "target", "eps_255"]),
    "minimum-budgets.csv": ("*/minimum-budgets.csv", ["target", "index"]),
    "flip-summary.csv": ("*/flip-summary.csv", ["target"]),
    "matrix.csv": ("matrix-*.csv", ["source"]),
}
METRICS = ["experiment", "run", "metric", "step"]
TIMINGS = ("images_per_second", "duration", "effort/seconds")

SWEEP = [
    *("attack=fgsm,bim3", "model=[wide,flat]", "source=wide,flat", "targets=[wide,flat]"),
    *("dataset=cifar10_mini", "n_images=20", "seed=62865", "epsilon.grid=[0,0.5,1,2,4,8,16]"),
    *("variants=[uint8]", "controls=true", "trainer.batch_size=10", "hydra.sweep.dir=sweep"),
    "tracking=mlflow",
]


def test_a_sweep_leaves_the_stored_tables_and_metrics(
    command_line: Callable[..., int], workspace: Path
) -> None:
    shutil.copytree(GOLDEN / "input", workspace, dirs_exist_ok=True)
    assert command_line("-m", *SWEEP) == 0
    writing = os.environ.get("GOLDEN") == "write"
    found = GOLDEN if writing else workspace / "found"
    found.mkdir(exist_ok=True)
    write(metrics(workspace / "mlruns" / "mlflow.db"), found / "metrics.csv")
    for name, (pattern, _) in KINDS.items():
        write(stacked(workspace / "sweep", pattern), found / name)
    if writing:
        pytest.skip("written")
    every = {"metrics.csv": METRICS} | {name: ["file", *keys] for name, (_, keys) in KINDS.items()}
    unlike = [line for name, keys in every.items() for line in compared(name, keys, found)]
    assert not unlike, "\n".join(["not as stored:", *unlike])


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


def compared(name: str, keys: Sequence[str], found: Path) -> list[str]:
    """Return a line for each way in which a table is not as it was."""
    was, now = read(GOLDEN / name), read(found / name)
    missing, more = (a.columns.difference(b.columns).tolist() for a, b in ((was, now), (now, was)))
    if missing or more:
        return [f"{name}: columns missing {missing}, additional {more}"]
    lines = []
    was, now = (told_apart(name, table, keys) for table in (was, now))
    for word, rows in (
        ("missing", was.index.difference(now.index)),
        ("additional", now.index.difference(was.index)),
    ):
        if len(rows):
            lines.append(f"{name}: {len(rows)} rows {word}, such as {rows[:3].tolist()}")
    both = was.index.intersection(now.index)
    for column in was.columns:
        pair = pd.DataFrame({"stored": was[column][both], "found": now[column][both]})
        unlike = pair[~same(pair["stored"], pair["found"])]
        if len(unlike):
            shown = unlike.head(3).reset_index().to_string(index=False)
            lines.append(f"{name}: {column} differs in {len(unlike)} of {len(both)} rows:\n{shown}")
    return lines


def told_apart(name: str, table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Return a table under its keys, of which each must stand for one row."""
    index = pd.MultiIndex.from_frame(table[list(keys)].astype(object).fillna("none"))
    assert index.is_unique, f"{name}: twice {index[index.duplicated()][:3].tolist()}"
    return table.drop(columns=list(keys)).set_index(index)  # whatever the order of the rows


def same(stored: pd.Series, found: pd.Series) -> np.ndarray:
    """Tell which values agree: floats within rounding, all others exactly."""
    if all(pd.api.types.is_float_dtype(values) for values in (stored, found)):
        return np.isclose(stored, found, rtol=0, atol=ROUNDING, equal_nan=True)
    return ((stored == found) | (stored.isna() & found.isna())).to_numpy(dtype=bool)
