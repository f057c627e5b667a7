"""Jobs of one machine have a GPU each. The GPUs are pretended, the processes real."""

import json
import logging
import multiprocessing
import os
import signal
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from src.config.sections import TrainerSettings
from src.run.trainer import on_free_gpu
from src.utils.devices import free_gpu
from src.utils.files import WriteError

GPUS = 3


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Pretend that this machine has GPUs, and keep their locks in a folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    uuids = [SimpleNamespace(uuid=f"GPU-{number}") for number in range(GPUS)]
    for name, function in {
        "device_count": lambda: GPUS,
        "get_device_properties": uuids.__getitem__,
        "current_device": lambda: 0,
        "set_device": lambda number: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, function)
    return tmp_path


def note(folder, job, seconds):
    """Use a GPU for some seconds, as a job does, and write down which one and when."""
    with free_gpu() as number:
        start = time.monotonic()
        (folder / f"{job}.begun").write_text(str(number))
        time.sleep(seconds)
        row = [number, start, time.monotonic()]
    (folder / f"{job}.json").write_text(json.dumps(row))


@pytest.mark.slow
def test_jobs_never_share_a_gpu(gpus, at_once):
    at_once(*(partial(note, gpus, job, 0.2) for job in range(5)))
    rows = sorted(json.loads(file.read_text()) for file in gpus.glob("*.json"))
    assert len(rows) == 5 and len({number for number, *_ in rows}) > 1
    for (one, _, end), (other, start, _) in pairwise(rows):
        assert one != other or end <= start


@pytest.mark.slow
def test_a_job_of_another_sweep_waits_until_a_killed_one_leaves_its_gpu(gpus):
    context = multiprocessing.get_context("fork")
    first = [context.Process(target=note, args=(gpus, job, 600)) for job in range(GPUS)]
    second = context.Process(target=note_log, args=(gpus, "late", 0))
    try:
        for process in first:
            process.start()
        wait_for(lambda: len([*gpus.glob("*.begun")]) == GPUS)
        second.start()
        wait_for(lambda: "Waiting" in read(gpus / "log"))
        time.sleep(2.5)  # further attempts
        assert not (gpus / "late.begun").exists()
        os.kill(first[1].pid, signal.SIGKILL)
        second.join()
        assert second.exitcode == 0
        assert read(gpus / "late.begun") == read(gpus / "1.begun")
        assert read(gpus / "log").count("Waiting for a GPU") == 1
    finally:
        for process in first:
            process.kill()
            process.join()


def note_log(folder, *arguments):
    logging.basicConfig(filename=folder / "log", level=logging.INFO, force=True)
    note(folder, *arguments)


def read(file):
    return file.read_text() if file.exists() else ""


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.filterwarnings("ignore:GPU available but not used")  # by the job on the CPU
@pytest.mark.slow
def test_jobs_for_one_gpu_get_a_free_one(gpus):
    with ExitStack() as held:
        settings = TrainerSettings(accelerator="gpu")
        devices = [held.enter_context(on_free_gpu(settings)).devices for _ in range(2)]
        assert devices == [[0], [1]]
        for others in ({"accelerator": "cpu"}, {"devices": [0]}, {"devices": 2}):
            chosen = settings.model_copy(update=others)
            assert held.enter_context(on_free_gpu(chosen)) == chosen  # it waits for none
    with on_free_gpu(settings) as again:
        assert again.devices == [0]


def test_a_folder_without_rights_is_refused(gpus):
    (gpus / "transferability-gpus").write_text("")
    with pytest.raises(WriteError, match="transferability-gpus"), free_gpu():
        pass
