"""Locks that a living process holds, and that a killed one leaves released."""

import errno
import multiprocessing
import os
import signal
import time

import pytest

from src.utils.files import held, is_held


def hold(lock):
    with held(lock):
        lock.with_name("begun").touch()
        time.sleep(60)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_once_with_the_keys(
    workspace, run_job, monkeypatch, capsys, number
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    assert run_job("attack=fgsm", "tracking=mlflow") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"cache cannot be written: {os.strerror(number)}. ")
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
