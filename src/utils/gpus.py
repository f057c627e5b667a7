"""One GPU per job: jobs of one machine choose GPUs by file locks."""

import gc
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from src.utils import stopping
from src.utils.files import writing

log = logging.getLogger(__name__)

_FOLDER = "transferability-gpus"
_PAUSE = 1.0  # seconds between two rounds of attempts


@contextmanager
def free_gpu() -> Iterator[int]:
    """Yield the number of a GPU that no other job uses, and keep it until the block ends.

    If all GPUs are in use, wait for one. The GPU that this process used last comes first, because
    its context remains there. The lock files lie in the machine's folder of temporary files, named
    by UUID: `CUDA_VISIBLE_DEVICES` changes a GPU's number. The system releases the lock of a killed
    process.
    """
    folder = Path(tempfile.gettempdir(), _FOLDER)
    with writing(folder):
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(0o777)  # all users of the machine share its GPUs
        number, lock = _take(folder)
    try:
        torch.cuda.set_device(number)
        yield number
    finally:
        gc.collect()
        torch.cuda.empty_cache()  # the process may live on
        lock.release()


def _take(folder: Path) -> tuple[int, FileLock]:
    """Lock one of the visible GPUs; return its number and the lock."""
    # Reading the properties makes no context on a GPU.
    names = [torch.cuda.get_device_properties(n).uuid for n in range(torch.cuda.device_count())]
    locks = [FileLock(folder / f"{name}.lock", mode=0o666) for name in names]
    last = torch.cuda.current_device()
    turns = sorted(range(len(locks)), key=lambda number: number != last)
    waiting = False
    while True:
        for number in [*turns]:
            try:
                with suppress(Timeout):
                    locks[number].acquire(blocking=False)
                    return number, locks[number]
            except OSError:  # the file cannot be opened
                turns.remove(number)
                if not turns:
                    raise
        if not waiting:
            log.info("Waiting for a GPU: other jobs use all %d.", len(locks))
        waiting = True
        stopping.raise_if_interrupted()
        time.sleep(_PAUSE)
