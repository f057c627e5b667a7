"""Locks that a living process holds, and that a killed one leaves released."""

import multiprocessing
import os
import signal
import time

import pytest

from src.utils.locks import held, is_held


def hold(lock):
    with held(lock):
        lock.with_name("begun").touch()
        time.sleep(60)


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
