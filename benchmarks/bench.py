"""Sweeps of the program and of its peers, each in a fresh process."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.inputs import Input
from src.artifacts.jobs import find_jobs
from src.cache.rows import Rows
from src.utils.files import write_text

OURS, THREADS = "ours", "OMP_NUM_THREADS"


class Run(NamedTuple):
    """A timed sweep.

    Attributes:
        library: `ours`, a variant of it, or a peer.
        round: From 0 on.
        seconds: From the start of the process to its end.
        loop: Seconds of crafting and classifying (None of jobs side by side).
        megabytes: Peak of the resident memory (None of several processes).
    """

    library: str
    round: int
    seconds: float
    loop: float | None
    megabytes: float | None


class Bench:
    """Runs sweeps of one number of images.

    Args:
        folder: Folder of all that is written.
        images: Number of images.
        threads: Threads of torch in every process; processes of a launcher share the cores.
        device: `cpu` or `gpu`.
        batch: Images in a batch.
        variants: More words of the program's command line, by name of the variant.
        budgets_255: Budgets, ascending, without 0.
    """

    def __init__(
        self,
        folder: Path,
        images: int,
        threads: int,
        device: str,
        batch: int,
        variants: Mapping[str, Sequence[str]],
        budgets_255: Sequence[int],
    ) -> None:
        self.folder, self.images, self.threads = folder, images, threads
        self.device, self.batch, self.budgets_255 = device, batch, tuple(budgets_255)
        self.variants: dict[str, Sequence[str]] = {OURS: (), **variants}
        self.tracked = find_spec("mlflow") is not None

    def words(self, given: Input) -> list[str]:
        """Return what the program is told beside attack, source and the sweep's folder."""
        store = f"tracking.directory='{self.folder / 'mlruns'}'"
        return [
            *given.words,
            f"targets=[{','.join(given.models)}]",
            f"n_images={self.images}",
            "report=none",
            f"trainer={self.device}",
            f"trainer.batch_size={self.batch}",
            "trainer.attack_precision=32-true",  # whatever the input's words say
            f"epsilon.grid=[0,{','.join(map(str, self.budgets_255))}]",
            f"cache.dir='{self.folder / 'cache'}'",
            "rerun=true",
            store if self.tracked else "tracking=none",
        ]

    def prepare(self, given: Input) -> None:
        """Train what is to be trained, and write images and networks for the peers."""
        words = [*self.words(given), f"source={given.models[0]}"]
        self.child(
            "benchmarks.prepare", str(self.folder / given.name), *words, threads=self.threads
        )

    def sweep(self, given: Input, attack: str, library: str, number: int) -> Run:
        """Run and time a sweep; `predictions` returns what it has found."""
        if library in self.variants:
            return self.ours(given, attack, library, number)
        path = self._path(given, attack, library)
        spec = {"attack": attack, "library": library}
        seconds, megabytes = self.child(
            "benchmarks.peers", self._spec(given, spec, path), threads=self.threads
        )
        with np.load(path) as found:
            return Run(library, number, seconds, float(found["seconds"]), megabytes)

    def ours(
        self,
        given: Input,
        attack: str,
        library: str,
        number: int,
        words: Sequence[str] = (),
        sources: Sequence[str] = (),
    ) -> Run:
        """Run and time the program's sweep, with more words or of some sources if need be."""
        shutil.rmtree(Rows(self.folder / "cache").folder, ignore_errors=True)  # peers have none
        folder = self._path(given, attack, library, number)
        shutil.rmtree(folder, ignore_errors=True)
        more = [*self.variants[library], *words]
        aside = any(word.startswith("hydra/launcher=") for word in more)
        seconds, megabytes = self.child(
            "src.main",
            "-m",
            f"attack={attack}",
            f"source={','.join(sources or given.models)}",
            *self.words(given),
            *more,
            f"hydra.sweep.dir='{folder}'",
            threads=None if aside else self.threads,
        )
        if aside:
            return Run(library, number, seconds, None, None)
        loop = sum(job.record.seconds or math.nan for job in find_jobs([folder]))
        return Run(library, number, seconds, loop, megabytes)

    def predictions(self, given: Input, attack: str, library: str) -> pd.DataFrame:
        """Return the first round's rows: source, target, eps_255, index, label, predicted."""
        if library in self.variants:
            jobs = find_jobs([self._path(given, attack, library)])
            names = ["source", "target", "eps_255", "index", "label", "predicted"]
            own = [job.predictions.assign(source=job.record.source)[names] for job in jobs]
            return pd.concat(own, ignore_index=True)
        labels = self.predictions(given, attack, OURS).groupby("index")["label"].first()
        index = pd.MultiIndex.from_product(
            [given.models, given.models, [0.0, *map(float, self.budgets_255)], labels.index],
            names=["source", "target", "eps_255", "index"],
        )
        with np.load(self._path(given, attack, library)) as found:
            rows = pd.DataFrame({"predicted": found["predicted"].ravel()}, index).reset_index()
        return rows.assign(label=rows["index"].map(labels))

    def needed(self, given: Input, attack: str) -> float:
        """Return the seconds of the bare network calls that the first round of ours needed.

        These are the gradients that its jobs counted, and a prediction of every image by every
        target at every budget and, once, of the clean image; in float32, timed alone.
        """
        bare = self.calls(given)
        forward = sum(bare["forward"].values())
        gradients = sum(
            job.record.gradients * bare["gradient"][job.record.source] / self.images
            for job in find_jobs([self._path(given, attack, OURS)])
        )
        return gradients + forward * (1 + len(given.models) * len(self.budgets_255))

    def calls(self, given: Input) -> dict[str, Any]:
        """Return the times that `benchmarks.gradients` measures."""
        path = self.folder / given.name / "calls.json"
        self.child("benchmarks.gradients", self._spec(given, {}, path), threads=self.threads)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def _path(self, given: Input, attack: str, library: str, number: int = 0) -> Path:
        """Return where a sweep's predictions are: a folder of ours, a file of a peer."""
        name = f"{number}" if library in self.variants else "predictions.npz"
        return self.folder / given.name / attack / library / name

    def _spec(self, given: Input, more: Mapping[str, Any], result: Path) -> str:
        """Write what a process is told, and return the file's path."""
        spec = {
            **{"folder": str(self.folder / given.name), "models": given.models},
            **{"budgets_255": self.budgets_255, "batch_size": self.batch, "result": str(result)},
            **{"device": "cuda" if self.device == "gpu" else "cpu", **more},
        }
        path = result.with_suffix(".spec.json")
        write_text(path, json.dumps(spec))
        return str(path)

    def child(self, *words: str, threads: int | None) -> tuple[float, float]:
        """Run a module of Python; return its seconds and the peak of its memory in megabytes.

        Args:
            words: The module, and its arguments.
            threads: Threads of torch; None: as the module chooses.

        Raises:
            ValueError: It failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "last.log"
        environment = {name: value for name, value in os.environ.items() if name != THREADS}
        environment |= {} if threads is None else {THREADS: str(threads)}
        start = time.perf_counter()
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", *words], stdout=out, stderr=out, env=environment
            )
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:  # an interrupt ends what it waits for
                process.kill()
                raise
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ValueError(f"{' '.join(words)} ended with {process.returncode}:\n{end}")
        return seconds, usage.ru_maxrss / 1024
