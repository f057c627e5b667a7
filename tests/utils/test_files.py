"""Files that spreadsheets take as they are, that are remembered, and that a process locks."""

import errno
import multiprocessing
import os
import signal
import time

import pandas as pd
import pytest

from src.utils.files import held, is_held, remembered, write_csv


def test_names_are_no_formulas_nor_rows_and_numbers_stay(tmp_path):
    names = ["=1+1", "b\r=\x1b1", None]
    table = pd.DataFrame({"=a": names, "kind": pd.Categorical(["@x", "y", "y"])})
    write_csv(tmp_path / "a.csv", table.assign(number=[-1.5, 2, float("nan")]))
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == [
        "'=a,kind,number",
        "'=1+1,'@x,-1.5",
        "b =\N{REPLACEMENT CHARACTER}1,y,2.0",
        ",y,",
    ]


def test_an_array_is_remembered_until_its_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file, calls = tmp_path / "a.txt", list[str]()

    def read() -> list[str]:
        calls.append(file.read_text())
        return [calls[-1]]

    def recall(name: str = "text") -> tuple[str, int]:
        return str(remembered(name, [file], read)[0]), len(calls)

    file.write_text("one")
    assert [recall(), recall()] == [("one", 1), ("one", 2)]  # too young
    monkeypatch.setattr("src.utils.files._YOUNG", 0)
    assert [recall(), recall(), recall("other")] == [("one", 3), ("one", 3), ("one", 4)]
    facts = file.stat()
    time.sleep(0.05)  # a tick of the file system's clock
    file.write_text("two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert [recall(), recall()] == [("two", 5), ("two", 5)]
    for stored in (tmp_path / "cache").rglob("*.npz"):
        stored.write_bytes(b"damaged")
    assert recall() == ("two", 6)


def hold(lock):
    with held(lock):
        lock.with_name("begun").touch()
        time.sleep(60)


def test_a_file_system_without_locks_is_refused_once_with_the_keys(
    workspace, run_job, monkeypatch, capsys
):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert run_job("attack=fgsm", "tracking=mlflow") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"cache cannot be written: {os.strerror(errno.ENOLCK)}. ")
    assert all(key in line for key in ("hydra.sweep.dir", "cache.dir", "tracking.directory"))


def test_a_held_lock_is_refused_and_a_killed_ones_is_free(tmp_path):
    lock = tmp_path / "folder" / ".running"
    assert not is_held(lock)
    process = multiprocessing.get_context("fork").Process(target=hold, args=(lock,))
    process.start()
    while not lock.with_name("begun").exists():
        time.sleep(0.01)
    assert is_held(lock)
    with pytest.raises(ValueError, match="folder is in use"), held(lock):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert lock.exists() and not is_held(lock)
    with held(lock):
        assert lock.exists()
    assert not lock.exists()
