"""Faults drawn from seeds, each followed by the same command: equal tables, or a sentence.

`python -m tests.drill` kills commands at any moment, flips bits, and removes files. The command
that follows must leave the tables of an undisturbed run and track each pair once, or end with a
sentence that names the damaged file. Damage in `mlruns/` costs tracking and never tables. Every
process is forked from this one, which has loaded the libraries.
"""

import argparse
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import count, product
from multiprocessing.context import ForkProcess
from pathlib import Path
from pkgutil import resolve_name

import mlflow
import pyarrow.parquet as pq
import pytest
import torch

from src.run.lightning_module import Transfer
from tests.conftest import POOLS, TINY_RUN, build_store, run_words, write_weights, write_workspace

SWEEP = ["-m", "attack=fgsm,bim", "trainer.batch_size=6", "n_images=20", "dataset.n_train=100"]
SWEEP += ["controls=true", "rerun=false", "tracking=mlflow", "report.examples=2"]
SWEEP += ["model.coarse.weights=null", "training.epochs=2", "training.batch_size=25"]
SWEEP += ["training.precision=32-true", "dataset.n_test=40"]
TABLES = ("predictions", "predictions-noise", "predictions-shuffled")
FILES = [f"{job}/{name}.parquet" for job in ("0-fgsm-coarse", "1-bim-coarse") for name in TABLES]
READERS = (  # all other commands
    ("src.status", "outputs/a"),
    ("src.status",),
    ("src.report.__main__", "folder=outputs/a", "out=shown"),
)
CALLS = {  # functions at whose calls commands are killed, and about how many calls there are
    "src.training.module.FineTuning.training_step": 8,
    "src.evaluation.Attacker.forward": 10,
    "src.evaluation.Predictions.add": 100,
    "os.replace": 60,
    "mlflow.MlflowClient.create_run": 8,
    "mlflow.MlflowClient.log_batch": 14,
    "mlflow.MlflowClient.log_artifact": 16,
}
KINDS = ("kill", "damage")
LONGEST = 120.0  # seconds after which a command counts as hanging


class Command(ForkProcess):
    """A command line that runs in a folder, in a process whose output goes to a file there.

    `before` is called first. Without a module it is that of `src.main`.
    """

    def __init__(
        self, place: Path, *words: str, module: str = "src.main", before: Callable[[], None] = int
    ) -> None:
        super().__init__()
        self.place, self.words, self.module, self.before = place, words, module, before
        self.output = place / f"{len(list(place.glob('*.txt')))}-{module}.txt"
        self.output.touch()
        self.start()

    def run(self) -> None:
        """Run the command line, as the forked process."""
        with self.output.open("a") as file, redirect_stdout(file), redirect_stderr(file):
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            logging.root.handlers.clear()  # a new process has none
            self.before()
            try:
                code = run_words(self.place, *self.words, module=self.module)
            except Exception:
                traceback.print_exc()
                code = 3  # no command's own
        os._exit(code)

    def killed_after(self, seconds: float) -> int | None:
        """Wait for its end, or kill it after some seconds; return its exit code."""
        self.join(seconds)
        self.kill()
        self.join()
        return self.exitcode

    @property
    def code(self) -> int | None:
        """Exit code; negative after a signal, or where it hung and was stopped."""
        return self.killed_after(LONGEST)

    @property
    def printed(self) -> str:
        """All that it has printed so far."""
        return self.output.read_text(errors="replace")


@dataclass
class Trial:
    """A workspace with what was done to it.

    Attributes:
        what: Fault in words.
        wrong: Findings that are not allowed.
        damaged: File that was changed or removed, which a refusal must name.
    """

    folder: Path
    draw: random.Random
    what: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    damaged: Path | None = None

    def names(self, printed: str) -> bool:
        """Tell whether a text names the damaged file, or its folder and its name."""
        if self.damaged is None:
            return False
        text, path = "".join(printed.split()), self.damaged.relative_to(self.folder)
        return str(path.parent) in text and path.name in text


class Drill:
    """Faults and what they are made of: weights, a tracking store, whole workspaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("weights", "trials"):
            (folder / name).mkdir()
        write_weights(folder / "weights")
        builder = ForkProcess(target=build_store, args=[folder / "mlruns"])
        builder.start()
        builder.join()
        begun = time.monotonic()
        self.whole = self.undisturbed()
        self.seconds = time.monotonic() - begun

    def undisturbed(self) -> Path:
        """Return the workspace of an undisturbed run."""
        place = self.workspace("whole")
        command = self.begin(place, "a")
        assert command.code == 0, f"An undisturbed command fails:\n{command.printed}"
        return place

    def workspace(self, name: str) -> Path:
        """Return a new workspace with the models and a tracking store."""
        place = self.folder / "trials" / name
        write_workspace(place, self.folder / "weights")
        shutil.copytree(self.folder / "mlruns", place / "mlruns")
        return place

    def begin(
        self, place: Path, name: str, *more: str, before: Callable[[], None] = int
    ) -> Command:
        """Start the sweep in a workspace; its folder is `outputs/NAME`."""
        words = (*TINY_RUN, *SWEEP, f"hydra.sweep.dir=outputs/{name}", *more)
        return Command(place, *words, before=before)

    def same(self, sweep: Path) -> bool:
        """Tell whether a sweep has the tables of the undisturbed one."""
        pairs = [(sweep / file, self.whole / "outputs" / "a" / file) for file in FILES]
        return all(a.exists() and pq.read_table(a).equals(pq.read_table(b)) for a, b in pairs)

    def fault(self, seed: int, only: str | None = None) -> tuple[Trial, str]:
        """Do what a seed says, perhaps of one kind, and return the trial and its outcome."""
        draw = random.Random(seed)
        kind = only or draw.choice(KINDS)
        trial = Trial(self.folder / "trials" / f"{kind}-{seed}", draw, [kind])
        again = draw.choice(["a", "again"])  # the same folder, or a new one
        getattr(self, kind)(trial)
        if not trial.wrong:
            trial.what.append(f"then outputs/{again}")
            outcome = self.judge(trial, again)
        return trial, "FAILED: " + ", ".join(trial.wrong) if trial.wrong else outcome

    def judge(self, trial: Trial, name: str) -> str:
        """Run the command, and return its outcome; what is not allowed is noted in the trial."""
        command, store = self.begin(trial.folder, name), trial.folder / "mlruns"
        code, printed = command.code, command.printed
        equal = code in (0, 1) and self.same(trial.folder / "outputs" / name)
        of_tracking = trial.damaged is not None and trial.damaged.is_relative_to(store)
        if "Traceback" in printed:
            trial.wrong.append("traceback")
        elif code == 0 or of_tracking:
            if not equal:
                trial.wrong.append(f"exit code {code}, other tables")
        elif code not in (1, 2) or not trial.names(printed):
            trial.wrong.append(f"exit code {code}, and no file is named")
        if trial.damaged is None and not trial.wrong:
            trial.wrong += tracked_wrongly(store)
        return "equal" if equal else "named"

    def kill(self, trial: Trial) -> None:
        """Kill a command at any moment, maybe twice."""
        self.workspace(trial.folder.name)
        for _ in range(trial.draw.choice([1, 1, 2])):
            self.killed(trial)

    def killed(self, trial: Trial) -> None:
        """Start a command, and kill it at any moment, or at a call of a function."""
        share, after = trial.draw.random(), trial.draw.choice([False, True])
        function = trial.draw.choice(["", *CALLS])
        number = 1 + int(share * CALLS.get(function, 0))
        dying = partial(die_at, function, number, after) if function else int
        command = self.begin(trial.folder, "a", before=dying)
        code = command.killed_after(LONGEST if function else share * self.seconds)
        trial.what.append(f"killed {'after' if after else 'before'} call {number} of {function}")
        if not function:
            trial.what[-1] = f"killed after {share:.3f} of its time"
        if code not in (0, -signal.SIGKILL):
            trial.wrong.append(f"the command ends with {code}")

    def damage(self, trial: Trial) -> None:
        """Remove a file of a command that has ended or was killed, or flip a bit of it."""
        if trial.draw.random() < 0.25:
            self.workspace(trial.folder.name)
            self.killed(trial)
        else:
            shutil.copytree(self.whole, trial.folder)
        places = trial.draw.sample(["cache", "outputs", "mlruns"], 3)
        files = next(filter(None, (files_in(trial.folder / place) for place in places)))
        database = [path for path in files if path.name == "mlflow.db"]
        path = trial.draw.choice(trial.draw.choice([files, database or files]))
        content = bytearray(path.read_bytes())
        every = range(len(content))
        byte = trial.draw.choice(trial.draw.choice([every, every[:200], every[-200:]]))
        content[byte] ^= 1 << trial.draw.randrange(8)
        if trial.draw.random() < 0.3:
            path.unlink()
        else:
            path.write_bytes(content)
        shown = path.relative_to(trial.folder)
        words = f"byte {byte} of {len(content)}" if path.exists() else "removed"
        trial.what.append(f"{shown} {words}")
        trial.damaged = path
        if shown.parts[0] != "cache" and (trial.folder / "outputs" / "a").is_dir():
            self.read(trial)

    def read(self, trial: Trial) -> None:
        """Let all other commands read what is damaged: each goes, or names the file."""
        killed = "killed" in trial.what[1]
        shutil.copytree(self.folder / "mlruns", trial.folder / "elsewhere")
        for module, *words in READERS:
            command = Command(trial.folder, *words, module=module)
            code, printed = command.code, command.printed
            unfinished = killed or (module == "src.status" and code == 1)  # a job is not done
            named = code == 0 or unfinished or trial.names(printed)
            if "Traceback" in printed or code not in (0, 1, 2) or not named:
                trial.wrong.append(f"{module} ends with {code}: {printed[-1500:]}")


def die_at(function: str, number: int, after: bool) -> None:
    """Let this process be killed at a call of a function, before or after it does its work."""
    place, _, name = function.rpartition(".")
    real, calls = resolve_name(function), count(1)

    def call(*args: object, **words: object) -> object:
        dies = next(calls) == number
        if dies and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **words)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(resolve_name(place), name, call)


def files_in(folder: Path) -> list[Path]:
    """Return the files below a folder that are not empty, in an order that ids of runs keep."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(found, key=lambda path: re.sub("[0-9a-f]{32}", "", str(path)))


def tracked_wrongly(folder: Path) -> list[str]:
    """Return what is wrong in a store: each sweep has its pairs once, and the last one all."""
    store = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    known = {one.experiment_id: one.name for one in store.search_experiments()}
    every = store.search_runs([key for key, name in known.items() if name != "atonce-sweeps"])
    runs = [(run.data.tags["kind"], run) for run in every]
    last = max((run.info.start_time, run.info.run_id) for kind, run in runs if kind == "sweep")[1]
    ended = [run for kind, run in runs if kind == "pair" and run.info.status == "FINISHED"]
    pairs = Counter((run.data.tags["sweep"], run.info.run_name) for run in ended)
    wrong = [f"{name} is tracked {n} times" for (_, name), n in pairs.items() if n > 1]
    names = [f"{attack} coarse -> {target}" for attack, target in product(("fgsm", "bim"), POOLS)]
    return wrong + [f"{name} is not tracked" for name in names if (last, name) not in pairs]


@contextmanager
def prepared() -> Iterator[Drill]:
    """Load what is slow to load, and build what all faults share, in a folder for the while."""
    modules = [
        "src.main",
        "src.run.sweep",
        "src.report.finished_jobs",
        "src.tracking.mlflow_store",
    ]
    for module in [*modules, *(module for module, *_ in READERS)]:
        import_module(module)
    folder = tempfile.TemporaryDirectory(prefix="drill-")
    with folder as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transfer, "seconds", 0)  # rows are kept batch by batch: more to damage
        for function in ("vegalite_to_svg", "javascript_bundle"):  # with threads; a fork lacks them
            patch.setattr(f"vl_convert.{function}", lambda *_, **__: "")
        yield Drill(Path(name).resolve())


def main() -> None:
    """Run the command line; the exit code is 1 where a fault had an outcome that is not allowed."""
    parser = argparse.ArgumentParser("python -m tests.drill", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first fault")
    parser.add_argument("--faults", type=int, default=60, help="how many; one prints its commands")
    parser.add_argument("--only", choices=sorted(set(KINDS)), help="faults of this kind alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    begun, outcomes = time.monotonic(), Counter[str]()
    with prepared() as drill:
        print(f"The undisturbed command takes {drill.seconds:.1f} s.", flush=True)
        for seed in range(given.seed, given.seed + given.faults):
            trial, outcome = drill.fault(seed, given.only)
            print(f"{seed}: {'; '.join(trial.what)}: {outcome}", flush=True)
            outcomes[outcome.partition(":")[0]] += 1
            for output in sorted(trial.folder.glob("*.txt")) if given.faults == 1 else ():
                print(f"--- {output.name}\n{output.read_text(errors='replace')}")
            shutil.rmtree(trial.folder)
    words = ", ".join(f"{number} {word}" for word, number in sorted(outcomes.items()))
    print(f"{given.faults} faults in {(time.monotonic() - begun) / 60:.1f} minutes: {words}.")
    print("One fault again, with what its commands print: --seed SEED --faults 1, and --only KIND.")
    sys.exit("FAILED" in outcomes)


if __name__ == "__main__":
    main()
