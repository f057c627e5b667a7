"""Folders of strangers: links, named pipes, and names that steer a terminal or a shell."""

import multiprocessing
import os
import shlex
import sys
from functools import partial
from pathlib import Path

import pytest

from src.artifacts.jobs import FinishedJob
from src.artifacts.sweep_state import SweepManifest, noted_failure, write_manifest
from src.report.page.frame import commands
from tests.records import make_record


@pytest.mark.slow
def test_a_page_of_another_program_is_kept(make_sweep, run_in, tmp_path, capfd):
    folder, page = make_sweep(models=("a", "b"), budgets=(8.0,)), tmp_path / "report.html"
    page.write_text("mine")
    words = [f"folder={folder}", f"cache.dir={tmp_path}"]
    report = partial(run_in, tmp_path, *words, module="src.report.__main__")
    assert report() == report(f"out={folder}") == 0  # its own page is replaced
    assert report(f"out={tmp_path}") == 2 and page.read_text() == "mine"
    assert "report.html is another program's" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "module", "code"),
    [
        pytest.param("x.parquet", "src.table", 2, marks=pytest.mark.slow),
        pytest.param("sweep.json", "src.status", 2, marks=pytest.mark.slow),
        ("0-job/alarms.json", "src.table", 0),
        pytest.param("0-job/error.txt", "src.table", 0, marks=pytest.mark.slow),
    ],
)
def test_a_named_pipe_is_not_waited_for(make_sweep, run_in, capfd, name, module, code):
    folder = make_sweep()
    os.mkfifo(folder / name)

    def run() -> None:
        sys.exit(run_in(folder, str(folder), module=module))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(120)
    process.kill()  # one that waits
    assert process.exitcode == code and (name in capfd.readouterr().err) == (code == 2)


def test_names_do_not_steer_a_terminal(tmp_path, run_in, capsys):
    steering = "\x1b[31m \x9b \u202e"
    write_manifest(tmp_path, SweepManifest(jobs=[steering], single=False, id="1"))
    (tmp_path / "error.txt").write_text(steering)
    assert run_in(tmp_path, str(tmp_path), module="src.status") == 1
    for text in (capsys.readouterr().out, noted_failure(tmp_path)):
        assert "[31m" in text and not {*"\x1b\x9b\u202e"} & {*text}


def test_a_command_can_be_pasted():
    flags = ("--config-dir my own", "; touch x")
    facts = {"key": "k", "images": 1, "class_names": ("a",), "weights": {"net": "w"}}
    facts |= {"source": "net", "attack": "bim", "budgets": (0.0, 8.0), "reference": 8.0}
    record = make_record(**facts, flags=flags, overrides=("attack=bim", "dataset.root=my own"))
    (command,) = commands([FinishedJob(record, Path("job"), {})])
    words = ["--config-dir", "my own", ";", "touch x", "attack=bim", "dataset.root=my own"]
    assert shlex.split(command) == ["python", "-m", "src.main", *words]
