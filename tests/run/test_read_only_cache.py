"""A shared cache that is read-only: jobs whose rows it has all run, others are refused."""

import ctypes
import multiprocessing
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

_SKIPPED = 77


def with_read_only(folder: Path, call: Callable[[], int]) -> int | None:
    """Return the exit code of a call in a process for which a folder is on a read-only mount."""

    def run() -> None:
        alone = ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS
        for words in (
            ["--make-rprivate", "/"],
            ["--bind", folder, folder],
            ["-o", "remount,bind,ro", folder],
        ):
            if not alone or subprocess.run(["mount", *words], capture_output=True).returncode:
                os._exit(_SKIPPED)
        os._exit(call())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    if process.exitcode == _SKIPPED:
        pytest.skip("this user cannot mount folders")
    return process.exitcode


@pytest.fixture
def words(monkeypatch) -> list[str]:
    monkeypatch.setattr("src.report.finished_jobs.write_report", lambda *_: None)
    return ["attack=fgsm", "rerun=false", "report=default", "report.examples=3"]


def test_a_job_whose_rows_are_all_stored_needs_no_other_cache(run_job, workspace, words):
    words += ["cache.total_gb=1e-9"]  # so that rows would be removed, too
    assert run_job(*words, "hydra.run.dir=one") == 0
    os.utime(next((workspace / "cache" / "rows-3").glob("[0-9a-f]*")), (0, 0))
    again = partial(run_job, *words, "hydra.run.dir=two")
    assert with_read_only(workspace / "cache", again) == 0
    one, two = (pq.read_table(workspace / name / "predictions.parquet") for name in ("one", "two"))
    assert one.equals(two) and (workspace / "two" / "images.npz").exists()


@pytest.mark.parametrize("more", [["defences=[none,jpeg]"], ["epsilon.grid=[4]"], ["rerun=true"]])
def test_a_job_without_its_rows_is_refused_before_it_begins(run_job, workspace, words, more, capfd):
    assert run_job(*words, "hydra.run.dir=one") == 0
    capfd.readouterr()
    other = partial(run_job, *words, *more, "hydra.run.dir=two")
    assert with_read_only(workspace / "cache", other) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line == "cache cannot be written: Read-only file system."
    assert not (workspace / "two").exists()
