"""Jobs run whole: what a command does once, a read-only cache, a full disk, and pictures."""

import ctypes
import multiprocessing
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from src.artifacts.jobs import find_jobs
from src.measure.attack_cost import most_pictures
from tests.conftest import own_attack

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
def no_page(monkeypatch):
    monkeypatch.setattr("src.report.finished_jobs.write_report", lambda *_: None)


def test_a_job_on_a_read_only_cache_runs_if_its_rows_are_stored(run_job, workspace, no_page, capfd):
    """Others are refused before they begin."""
    words = ["attack=fgsm", "rerun=false", "report=default", "report.examples=3"]
    words += ["cache.total_gb=1e-9"]  # so that rows would be removed, too
    assert run_job(*words, "hydra.run.dir=one") == 0
    capfd.readouterr()
    for more in ("defences=[none,jpeg]", "epsilon.grid=[4]", "rerun=true"):
        other = partial(run_job, *words, more, "hydra.run.dir=refused")
        assert with_read_only(workspace / "cache", other) == 2
        error = capfd.readouterr().err
        assert error == "cache cannot be written: Read-only file system.\n"
        assert not (workspace / "refused").exists()
    os.utime(next((workspace / "cache" / "rows-3").glob("[0-9a-f]*")), (0, 0))
    again = partial(run_job, *words, "hydra.run.dir=two")
    assert with_read_only(workspace / "cache", again) == 0
    one, two = (pq.read_table(workspace / name / "predictions.parquet") for name in ("one", "two"))
    assert one.equals(two) and (workspace / "two" / "images.npz").exists()


COUNTING = """
from src.attacks import fgsm
def counting(model, images, labels, eps, *, seeds, max_batch=None):
    with open("attacked.txt", "a") as file:
        file.write("x" * len(images))
    return fgsm(model, images, labels, eps, max_batch=max_batch)
counting.all_budgets = True
"""


def test_few_images_are_attacked_again_for_pictures(run_job, workspace, no_page, capsys):
    own_attack(workspace, "counting", "_target_: counting_code.counting", COUNTING)
    words = ["attack=counting", "report=default", "cache.images_mb=0", "cache.dir=none"]
    assert run_job(*words, "report.examples=3", "hydra.run.dir=out") == 0
    (job,) = find_jobs([workspace / "out"])
    assert len((workspace / "attacked.txt").read_text()) == 23 + 23 // 20
    assert len(job.pictures) == 3 + 1
    assert most_pictures(32, 2) == 10_000_000 // (3 * 32 * 32 * 3) and most_pictures(9999, 1) == 1
    assert run_job(*words, "report.images=[99999]", "hydra.run.dir=refused") == 2
    assert "report.images: image 99999 is not one of the job's" in capsys.readouterr().err
    assert not (workspace / "refused").exists()
