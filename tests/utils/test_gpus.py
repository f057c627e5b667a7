"""Devices: number formats are restored, full memory is told, and jobs have a GPU each.

The GPUs are pretended, the processes real.
"""

import logging
import multiprocessing
import os
import signal
import tempfile
import time
from contextlib import suppress
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from src.utils.devices import arithmetic, free_gpu, is_out_of_memory
from src.utils.files import WriteError
from tests.conftest import at_once

BACKENDS = torch.backends
ON_GPU = [BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn]
ON_CPU = [BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv, BACKENDS.mkldnn.rnn]


def formats(switches):
    return {switch.fp32_precision for switch in switches}


def switches_now():
    """All switches, and what an older function says about them."""
    values = [its.fp32_precision for its in (BACKENDS, BACKENDS.cudnn, *ON_GPU, *ON_CPU)]
    try:
        return [*values, torch.get_float32_matmul_precision()]
    except RuntimeError:  # new switches say what the older one cannot
        return values


def check_switches(precision):
    """Set other defaults, and expect those of a precision between them."""
    BACKENDS.fp32_precision = "tf32"
    BACKENDS.mkldnn.matmul.fp32_precision = "bf16"
    BACKENDS.cuda.matmul.fp32_precision = "ieee"
    before = switches_now()
    with torch.autocast("cpu", torch.float16):
        with suppress(ZeroDivisionError), arithmetic("cpu", precision):
            assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
            with arithmetic("cpu", "32-true"):
                assert formats(ON_GPU + ON_CPU) == {"ieee"}
            assert formats(ON_GPU) == {"tf32" if precision == "tf32" else "ieee"}
            raise ZeroDivisionError
        assert torch.get_autocast_dtype("cpu") == torch.float16
    assert switches_now() == before


def test_number_formats_are_those_of_the_precision_and_restored():
    """In new processes, as there is no way back to the first state of switches."""
    at_once(*(partial(check_switches, precision) for precision in ("32-true", "tf32", "bf16")))


FULL = [
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory\nCUDA kernel errors might be reported later",
]
OTHERS = ["CUDA error: CUBLAS_STATUS_EXECUTION_FAILED", "CUDA error: an illegal memory access"]


def test_a_full_device_is_told_from_its_error():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)  # on the CPU
    errors = [raised.value, torch.OutOfMemoryError("CUDA out of memory."), *map(RuntimeError, FULL)]
    assert all(map(is_out_of_memory, errors))
    assert not any(map(is_out_of_memory, [*map(RuntimeError, OTHERS), ValueError(FULL[0])]))


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
    logging.basicConfig(filename=folder / f"{job}.log", level=logging.INFO, force=True)
    with free_gpu() as number:
        (folder / f"{job}.begun").write_text(str(number))
        time.sleep(seconds)


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_job_of_another_sweep_waits_until_a_killed_one_leaves_its_gpu(gpus):
    process = partial(multiprocessing.get_context("fork").Process, target=note)
    first = [process(args=(gpus, job, 600)) for job in range(GPUS)]
    second, log = process(args=(gpus, "late", 0)), gpus / "late.log"
    try:
        for each in first:
            each.start()
        wait_for(lambda: len([*gpus.glob("*.begun")]) == GPUS)
        second.start()
        wait_for(lambda: log.exists() and "Waiting" in log.read_text())
        time.sleep(2.5)  # further attempts
        assert {its.read_text() for its in gpus.glob("*.begun")} == {"0", "1", "2"}
        os.kill(first[1].pid, signal.SIGKILL)
        second.join()
        assert (gpus / "late.begun").read_text() == (gpus / "1.begun").read_text()
        assert log.read_text().count("Waiting for a GPU") == 1
    finally:
        for each in first:
            each.kill()
            each.join()


def test_a_folder_without_rights_is_refused(gpus):
    (gpus / "transferability-gpus").write_text("")
    with pytest.raises(WriteError, match="transferability-gpus"), free_gpu():
        pass
