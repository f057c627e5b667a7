"""The same commands in two checkouts, and every table that they leave compared by value.

    python -m tests.guard OTHER [THERE=HERE ...]

OTHER is another checkout of this repository, such as one that `git worktree add ../before HEAD`
makes. A pair THERE=HERE names a column, a file or a key that has another name here; a key in the
commands, too. Whole numbers
and texts must be equal, other numbers within 1e-6. What differs is printed, and the exit code is
then 1. Takes about five minutes.
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tests.conftest import replaced

HERE = Path(__file__).resolve().parents[1]
COMMON = [
    *("experiment=demo", "n_images=8", "epsilon.grid=[2,8]", "epsilon.reference=8", "trainer=cpu"),
    *("source=resnet_small", "targets=[resnet_small,vgg_small]", "trainer.batch_size=4"),
    *("trainer.progress_bar=false", "tracking=none", "report=none"),
]
COMMANDS = {
    "sweep": ["-m", "attack=fgsm,mi", "source=vgg_small,resnet_small", "tracking=mlflow"],
    "targeted": ["attack=di", "attack.target_label=next", "attack.steps=3"],
    "layers": ["attack=sgm", "attack.steps=3"],
    "features": ["attack=fia", "attack.steps=2", "attack.masks=3"],
    "ensemble": ["attack=mi", "source=[vgg_small,resnet_small]", "ensemble=loss"],
    "defended": [
        *("attack=mi", "attack.norm=l2", "source_defence=random_resize_pad", "source_draws=2"),
        "defences=[none,jpeg,random_resize_pad]",
    ],
    "full": ["attack=bim", "diagnostics=full", "controls=true", "save_adversarial=true"],
    "saved": ["attack=saved", "attack.path=full/adversarial", "epsilon.reference=null"],
    "clean": ["attack=none", "source=null"],
    "processes": ["attack=pgd", "cache.dir=other", "trainer.strategy=ddp", "trainer.devices=2"],
    "killed": ["attack=pgd", "attack.steps=100", "cache.dir=third", "trainer.batch_size=1"],
}
KILL_AFTER = 12.0  # seconds, when some images of `killed` are done
FRAME = """
from src import load_classifier, transfer
from src.data import load_dataset
batch = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})[:8]
a, b = (load_classifier(name, "experiment=demo") for name in ("vgg_small", "resnet_small"))
frame = transfer({"a": a, "a+b": [a, b]}, {"a": a, "b": b}, batch.images, batch.labels,
                 attacks=["fgsm", "di"], controls=True, progress_bar=False)
frame.to_csv("frame.csv", index=False)
"""
TIMES = ("seconds", "images_per_second", "created", "duration")


def start(checkout: Path, place: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start Python in a folder, with the code of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    log = (place / "log.txt").open("ab")
    words = (sys.executable, "-W", "ignore", *words)
    return subprocess.Popen(words, cwd=place, env=environment, stdout=log, stderr=log)


def run_all(checkout: Path, place: Path, keys: Mapping[str, str]) -> None:
    """Run all commands in a folder; one is killed on its way, and goes on.

    `keys` are names of keys in the checkout by their names here.
    """
    for name, words in COMMANDS.items():
        kind = "sweep" if "-m" in words else "run"
        pairs = [word.partition("=") for word in replaced(COMMON, *words)]
        words = [keys.get(key, key) + sign + value for key, sign, value in pairs]
        command = ["-m", "src.main", *words, f"hydra.{kind}.dir={name}"]
        if name == "killed":
            process = start(checkout, place, *command)
            time.sleep(KILL_AFTER)
            process.send_signal(signal.SIGKILL)
            process.wait()
        if start(checkout, place, *command).wait() != 0:
            sys.exit(f"{name} failed in {checkout}; see {place / 'log.txt'}")
    if start(checkout, place, "-c", FRAME).wait() != 0:
        sys.exit(f"transfer failed in {checkout}; see {place / 'log.txt'}")


def tables(place: Path) -> dict[str, pd.DataFrame]:
    """Return all tables in a folder, the names of its files, metrics and keys of records."""
    found: dict[str, Any] = {}
    files = [path for path in sorted(place.rglob("*")) if path.suffix in (".csv", ".parquet")]
    for path in files:
        name = path.relative_to(place).as_posix()
        if name.partition("/")[0] in COMMANDS or name == "frame.csv":
            found[name] = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    keys = recorded_keys(place / "full" / "predictions.parquet")
    found["keys of records"] = pd.DataFrame({"key": keys})
    everything = (path for name in COMMANDS for path in (place / name).rglob("*"))
    kept = [path.relative_to(place).as_posix() for path in everything if path.is_file()]
    found["files"] = pd.DataFrame({"file": sorted(kept)})
    with closing(sqlite3.connect(place / "mlruns" / "mlflow.db")) as store:
        query = "SELECT name, key, step, value FROM metrics JOIN runs USING (run_uuid)"
        metrics = pd.read_sql(query, store)
    metrics = metrics[~metrics["key"].str.endswith(TIMES)]
    metrics["name"] = metrics["name"].str.replace(r"^\d{4}-.*", "sweep", regex=True)
    found["metrics"] = metrics.sort_values(["name", "key", "step"], ignore_index=True)
    return found


def recorded_keys(path: Path) -> list[str]:
    """Return the keys of the record that a table of predictions carries."""
    metadata = pq.read_schema(path).metadata
    return sorted(json.loads(next(iter(metadata.values())))["job"])


def renamed(value: str, names: Mapping[str, str]) -> str:
    """Return a name with those parts of it that have another name here."""
    return "/".join(names.get(part, part) for part in value.split("/"))


def differences(
    there: Mapping[str, pd.DataFrame], here: Mapping[str, pd.DataFrame], names: Mapping[str, str]
) -> Iterator[str]:
    """Yield a line for each way in which two checkouts' tables differ."""
    there = {renamed(name, names): table.rename(columns=names) for name, table in there.items()}
    for name in sorted({*there} ^ {*here}):
        yield f"{name}: only {'there' if name in there else 'here'}"
    for name in sorted({*there} & {*here}):
        old, new = there[name], here[name]
        for column in sorted({*old} ^ {*new}):
            yield f"{name}: column {column} only {'there' if column in old else 'here'}"
        if len(old) != len(new):
            yield f"{name}: {len(old)} rows there, {len(new)} here"
            continue
        for column in sorted({*old} & {*new}):
            if not column.endswith(TIMES) and (count := unlike(old[column], new[column], names)):
                yield f"{name}: {column} differs in {count} of {len(new)} rows"


def unlike(old: pd.Series, new: pd.Series, names: Mapping[str, str]) -> int:
    """Count the rows in which two columns differ."""
    if pd.api.types.is_float_dtype(old) and pd.api.types.is_float_dtype(new):
        return int((~np.isclose(old, new, rtol=0, atol=1e-6, equal_nan=True)).sum())
    one, two = ([re.sub(r"\s+", " ", str(value)) for value in column] for column in (old, new))
    return sum(renamed(a, names) != b for a, b in zip(one, two, strict=True))


def main() -> None:
    """Run the commands in both checkouts, one after the other, and compare."""
    other, *pairs = sys.argv[1:]
    names = dict(pair.split("=") for pair in pairs)
    keys = {here: there for there, here in names.items()}
    places = [Path(tempfile.mkdtemp(prefix=f"guard-{name}-")) for name in ("there", "here")]
    run_all(Path(other).resolve(), places[0], keys)
    run_all(HERE, places[1], {})
    lines = list(differences(*map(tables, places), names))
    print("\n".join(lines) or "equal", *places, sep="\n")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
