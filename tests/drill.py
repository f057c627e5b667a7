"""Faults drawn from seeds, each followed by the same command: equal tables, or a sentence.

`python -m tests.drill` kills commands at any moment, flips bits, removes files, edits a module of
the user's, and starts two commands at once. The command that follows must leave the tables of an
undisturbed run (of the edited code), or end with a sentence that names the damaged file. Damage in
`mlruns/` costs tracking and never tables. Every process is forked from this one, which has loaded
the libraries.
"""

import argparse
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

import src.experiment.sweep
import src.report.__main__
import src.report.command
import src.status
import src.sync
import src.tracking.mlflow_store
from src.config.settings import TrackingSettings
from src.data import load_dataset
from src.evaluation import Transfer
from src.tracking import open_tracker
from tests.conftest import TINY_RUN, write_weights, write_workspace

RULE = "SHARE = {share}\n"
ATTACK = """
from own_rule import SHARE
from src.attacks import fgsm

def own(model, images, labels, eps, *, max_batch=None):
    return fgsm(model, images, labels, SHARE * eps, max_batch=max_batch)
"""
SWEEP = ["-m", "attack=own,bim", "dataset=image_folder", "trainer.batch_size=6", "n_images=20"]
SWEEP += ["controls=true", "rerun=false", "tracking=mlflow", "report.examples=2"]
SWEEP += ["model.coarse.weights=null", "training.epochs=2", "training.batch_size=25"]
SWEEP += ["training.precision=32-true"]
JOBS = ["0-own-coarse", "1-bim-coarse"]
TABLES = ["predictions", "predictions-noise", "predictions-shuffled"]
SHARES = ["1.0", "0.5", "0.7", "1.0  # in other words"]  # as the module is, and edited
PLACES = ["cache", "outputs", "mlruns"]
LONGEST = 120.0  # seconds after which a command counts as hanging


@dataclass
class Command:
    """A command in a process of its own, whose output goes to a file."""

    process: BaseProcess
    output: Path
    sweep: Path = Path()

    @property
    def code(self) -> int | None:
        """Exit code; negative after a signal, None where it had to be stopped."""
        self.process.join(LONGEST)
        if self.process.exitcode is None:
            self.kill(0)
            return None
        return self.process.exitcode

    @property
    def printed(self) -> str:
        """All that it has printed so far."""
        return self.output.read_text(errors="replace")

    def kill(self, seconds: float) -> None:
        """Kill it after some seconds, if it still runs."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            os.kill(self.process.pid or 0, signal.SIGKILL)
            self.process.join()


@dataclass
class Trial:
    """A workspace with what was done to it.

    Attributes:
        what: Fault in words.
        damaged: Files that were changed or removed, one of which a refusal must name.
        wrong: Findings that are not allowed.
        share: Line of the user's module at the end.
    """

    folder: Path
    draw: random.Random
    what: list[str] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    share: str = SHARES[0]


class Drill:
    """Faults and what they are made of: weights, images, a tracking store, whole workspaces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("weights", "images", "trials"):
            (folder / name).mkdir()
        write_weights(folder / "weights")
        images = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})
        batch = images.__getitems__(list(range(100)))
        for number, (pixels, label) in enumerate(zip(batch.images, batch.labels, strict=True)):
            place = folder / "images" / "test" / str(int(label))
            place.mkdir(exist_ok=True, parents=True)
            array = pixels.round().to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(np.ascontiguousarray(array)).save(place / f"{number}.png")
        (folder / "images" / "train").symlink_to("test")
        self.finish(self.fork(self.build_store, folder, folder / "store.txt"))
        begun = time.monotonic()
        self.whole(SHARES[0])
        self.seconds = time.monotonic() - begun

    def build_store(self) -> int:
        """Build an MLflow store to be copied, which takes seconds."""
        settings = TrackingSettings(name="mlflow", directory=str(self.folder / "mlruns"))
        open_tracker(settings, "drill").start_sweep("sweep", "p", {}, self.folder / "x")
        return 0

    @cache  # noqa: B019 (one drill a process)
    def whole(self, share: str) -> Path:
        """Return the workspace of an undisturbed run of the user's code."""
        place = self.workspace(f"whole-{len(list(self.folder.glob('whole-*')))}", share)
        self.finish(self.start(place, "a"))
        return place

    def workspace(self, name: str, share: str = SHARES[0]) -> Path:
        """Return a new workspace with the models, an attack, and a tracking store."""
        place = self.folder / name
        write_workspace(place, self.folder / "weights")
        (place / "conf/attack/own.yaml").write_text("_target_: own_attack.own\nname: own\n")
        (place / "own_attack.py").write_text(ATTACK)
        (place / "own_rule.py").write_text(RULE.format(share=share))
        shutil.copytree(self.folder / "mlruns", place / "mlruns")
        return place

    def start(self, place: Path, name: str, *more: str) -> Command:
        """Start the sweep in a workspace; its folder is `outputs/NAME`."""
        root = self.folder / "images"
        words = [*TINY_RUN, *SWEEP, f"dataset.root={root}"]
        words += [f"hydra.sweep.dir=outputs/{name}", *more]
        output = place / f"{len(list(place.glob('*.txt')))}-{name}.txt"
        command = self.fork(partial(main, "src.main", words), place, output)
        command.sweep = place / "outputs" / name
        return command

    def fork(self, call: Callable[[], int], place: Path, output: Path) -> Command:
        """Call a function in a process of its own and in a folder."""

        output.touch()

        def run() -> None:
            os.chdir(place)
            sys.path.insert(0, str(place))
            with output.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            try:
                code = call()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
        return Command(process, output)

    def finish(self, command: Command) -> None:
        """Wait for a command that nothing disturbs."""
        if command.code != 0:
            sys.exit(f"An undisturbed command fails:\n{command.printed}")

    def same(self, sweep: Path, share: str) -> bool:
        """Tell whether a sweep has the tables of the undisturbed one."""
        whole = self.whole(share) / "outputs" / "a"
        for job in JOBS:
            for name in TABLES:
                one, two = (place / job / f"{name}.parquet" for place in (whole, sweep))
                if not two.exists() or not pq.read_table(two).equals(pq.read_table(one)):
                    return False
        return True

    def judge(self, trial: Trial, command: Command) -> str:
        """Return the outcome of a command in a word; what is not allowed is noted in the trial."""
        code, printed = command.code, command.printed
        equal = code in (0, 1) and self.same(command.sweep, trial.share)
        of_tracking = bool(trial.damaged) and all(
            path.is_relative_to(trial.folder / "mlruns") for path in trial.damaged
        )
        if "Traceback" in printed:
            trial.wrong.append("traceback")
        elif code == 0 or of_tracking:
            if not equal:
                trial.wrong.append(f"exit code {code}, other tables" if code == 0 else "no tables")
        elif code not in (1, 2) or not names(printed, trial):
            trial.wrong.append(f"exit code {code}, and no file is named")
        if trial.wrong:
            return "FAILED: " + ", ".join(trial.wrong)
        return "equal" if equal else "named"

    def fault(self, seed: int) -> tuple[str, Trial, str]:
        """Do what a seed says, and return its kind, the trial and its outcome."""
        draw = random.Random(seed)
        kind = kind_of(seed)
        place = self.folder / "trials" / str(seed)
        trial = Trial(place, draw)
        again = draw.choice(["a", "again"])  # the same folder, or a new one
        getattr(self, kind)(trial)
        if trial.wrong:
            return kind, trial, "FAILED: " + ", ".join(trial.wrong)
        command = self.start(place, again)
        trial.what.append(f"then outputs/{again}")
        return kind, trial, self.judge(trial, command)

    def kill(self, trial: Trial) -> None:
        """Kill a command at any moment, maybe twice."""
        self.workspace(f"trials/{trial.folder.name}")
        for _ in range(trial.draw.choice([1, 1, 2])):
            self.killed(trial)

    def killed(self, trial: Trial) -> None:
        """Start a command, and kill it at any moment."""
        share = trial.draw.random()
        self.start(trial.folder, "a").kill(share * self.seconds)
        trial.what.append(f"killed after {share:.3f} of its time")

    def flip(self, trial: Trial) -> None:
        """Flip a bit of a file."""
        path = self.drawn(trial)
        content = bytearray(path.read_bytes())
        size = len(content)
        ends = (0, min(size, 200)), (max(0, size - 200), size)
        first, last = trial.draw.choice([(0, size), *ends])  # heads and tails decide most
        byte, bit = trial.draw.randrange(first, last), trial.draw.randrange(8)
        content[byte] ^= 1 << bit
        path.write_bytes(content)
        trial.what.append(f"bit {bit} of byte {byte} of {size}: {self.shown(trial, path)}")
        self.readers(trial)

    def remove(self, trial: Trial) -> None:
        """Remove a file."""
        path = self.drawn(trial)
        path.unlink()
        trial.what.append(f"removed {self.shown(trial, path)}")
        self.readers(trial)

    def drawn(self, trial: Trial) -> Path:
        """Return a file of a workspace whose command has ended or was killed."""
        if trial.draw.random() < 0.25:
            self.workspace(f"trials/{trial.folder.name}")
            self.killed(trial)
        else:
            shutil.copytree(self.whole(SHARES[0]), trial.folder)
        files: list[Path] = []
        for place in trial.draw.sample(PLACES, len(PLACES)):
            files = files or files_in(trial.folder / place)
        database = [path for path in files if path.name == "mlflow.db"]
        chosen = trial.draw.choice([files, database or files])
        trial.damaged.append(trial.draw.choice(chosen))
        return trial.damaged[-1]

    def shown(self, trial: Trial, path: Path) -> str:
        """Return a path within a workspace."""
        return str(path.relative_to(trial.folder))

    def readers(self, trial: Trial) -> None:
        """Have all other commands read what is damaged: each goes, or names the file."""
        if (trial.folder / "cache") in trial.damaged[-1].parents:
            return
        shutil.copytree(self.folder / "mlruns", trial.folder / "elsewhere")
        for module, *words in (
            ["src.status", "outputs/a"],
            ["src.status"],
            ["src.report.__main__", "folder=outputs/a", "out=shown"],
            ["src.sync", "outputs/a", "--directory", "elsewhere"],
            ["src.sync"],
        ):
            if not (trial.folder / "outputs" / "a").is_dir():
                break  # killed before it began
            output = trial.folder / f"{module}.txt"
            command = self.fork(partial(main, module, words), trial.folder, output)
            code, printed = command.code, command.printed
            output.unlink()
            listed = module == "src.status" and code == 1  # some job is not done
            unfinished = listed or any("killed" in word for word in trial.what)
            if "Traceback" in printed or code not in (0, 1, 2):
                trial.wrong.append(f"{module} ends with {code}: {printed[-1500:]}")
            elif code and not unfinished and not names(printed, trial):
                trial.wrong.append(f"{module} ends with {code} and names no file: {printed[-500:]}")

    def edit(self, trial: Trial) -> None:
        """Edit a module of the user's after a command, or at any moment of one, maybe killed."""
        self.workspace(f"trials/{trial.folder.name}")
        trial.share = trial.draw.choice(SHARES[1:])
        when = trial.draw.choice(["after", "during", "killed"])
        command, moment = self.start(trial.folder, "a"), trial.draw.random()
        if when == "killed":
            command.kill(moment * self.seconds)
        else:
            command.process.join(moment * self.seconds if when == "during" else LONGEST)
        module = trial.folder / "own_rule.py"
        age = time.time() // 1 - module.stat().st_mtime // 1
        time.sleep(max(0, 1 - age))  # Python tells edits by whole seconds
        module.write_text(RULE.format(share=trial.share))
        words = {"during": f"at {moment:.3f} of the time", "killed": f"killed at {moment:.3f}"}
        trial.what.append(f"SHARE = {trial.share}, {words.get(when, 'after the end')}")
        if command.code not in (0, -signal.SIGKILL):
            trial.wrong.append(f"the command ends with {command.code}")

    def two(self, trial: Trial) -> None:
        """Start two commands at once, maybe in one folder, of which one may be killed."""
        self.workspace(f"trials/{trial.folder.name}")
        other = trial.draw.choice(["a", "b", "b", "b"])
        more = trial.draw.choice([[], [], ["rerun=true"], ["trainer.batch_size=8"]])
        pause = trial.draw.choice([0.0, trial.draw.random()])
        dies = trial.draw.random() if trial.draw.random() < 0.4 else None
        first = self.start(trial.folder, "a")
        time.sleep(pause * self.seconds)
        second = self.start(trial.folder, other, *more)
        trial.what.append(f"outputs/a, after {pause:.3f} outputs/{other} {' '.join(more)}".strip())
        if dies is not None:
            second.kill(dies * self.seconds)
            trial.what[-1] += f", killed after {dies:.3f}"
        for command in (first, second):
            code, printed = command.code, command.printed
            killed = command is second and dies is not None and code == -signal.SIGKILL
            refused = code == 2 and other == "a" and "another process is at work" in printed
            whole = code == 0 and (other == "a" or self.same(command.sweep, trial.share))
            if "Traceback" in printed or not (killed or refused or whole):
                trial.wrong.append(f"{command.output.stem} ends with {code}")


KINDS = ["kill", "flip", "flip", "remove", "edit", "two"]


def kind_of(seed: int) -> str:
    """Return the kind of a seed's fault."""
    return KINDS[random.Random(f"kind {seed}").randrange(len(KINDS))]


def main(module: str, words: Sequence[str]) -> int:
    """Run a command line, as a process of its own would."""
    sys.argv = [module, *sorted(words, key=lambda word: not word.startswith("-"))]
    if not module.startswith("src.main"):
        sys.argv = [module, *words]
    try:
        sys.modules.get(module, src.main).main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def files_in(folder: Path) -> list[Path]:
    """Return the files below a folder that are not empty, in an order that ids of runs keep."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(found, key=lambda path: re.sub("[0-9a-f]{32}", "", str(path)))


def names(printed: str, trial: Trial) -> bool:
    """Tell whether a text names a damaged file, or its folder and its name."""
    text = "".join(printed.split())  # of lines of any width
    paths = [path.relative_to(trial.folder) for path in trial.damaged]
    return any(str(path.parent) in text and path.name in text for path in paths)


@contextmanager
def prepared() -> Iterator[Drill]:
    """Load what is slow to load, and build what all faults share, in a folder for the while."""
    torch.set_num_threads(1)
    Transfer.seconds = 0  # rows are kept batch by batch, so that there is more to damage
    for name in ("vegalite_to_svg", "javascript_bundle"):  # with threads, which a fork lacks
        setattr(sys.modules["vl_convert"], name, lambda *_, **__: "")
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        yield Drill(Path(folder).resolve())


def run() -> None:
    """Run the command line; the exit code is 1 where a fault had an outcome that is not allowed."""
    parser = argparse.ArgumentParser("python -m tests.drill", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first fault")
    parser.add_argument("--faults", type=int, default=60, help="how many, of as many seeds")
    parser.add_argument("--only", choices=sorted(set(KINDS)), help="faults of this kind alone")
    parser.add_argument("--fault", type=int, metavar="SEED", help="the fault of this seed alone")
    given = parser.parse_args()
    begun, failed, outcomes = time.monotonic(), [], Counter[str]()
    seeds = [given.fault] if given.fault is not None else []
    number = 1000 * given.seed
    while given.fault is None and len(seeds) < given.faults:
        seeds += [number] if given.only in (None, kind_of(number)) else []
        number += 1
    with prepared() as drill:
        print(f"The undisturbed command takes {drill.seconds:.1f} s.", flush=True)
        for seed in seeds:
            kind, trial, outcome = drill.fault(seed)
            print(f"{seed}: {kind}: {'; '.join(trial.what)}: {outcome}", flush=True)
            if trial.wrong:
                failed.append(seed)
                for output in sorted(trial.folder.glob("*.txt")) if given.fault == seed else ():
                    print(f"--- {output.name}\n{output.read_text(errors='replace')}")
            outcomes[outcome.split(":")[0]] += 1
            shutil.rmtree(trial.folder)
    minutes = (time.monotonic() - begun) / 60
    words = ", ".join(f"{count} {word}" for word, count in sorted(outcomes.items()))
    print(f"{len(seeds)} faults in {minutes:.1f} minutes: {words}.")
    for seed in failed:
        print(f"python -m tests.drill --fault {seed}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    run()
