"""A pass that several processes share: all of them end it together."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from ..utils import stopping

_PAUSE = 0.05  # seconds


class SharedPass:
    """The processes of one pass, and whether one of them has run out of memory.

    They communicate by keys in the store of their process group. Unlike a collective operation, a
    key interrupts no process, and waiting for it has no time limit.
    """

    def __init__(self) -> None:
        several = distributed.is_initialized()
        self.processes = distributed.get_world_size() if several else 1
        group = distributed.group.WORLD if several else None
        self.store = distributed.HashStore() if group is None else group.get_group_store()
        # Every process begins every pass once, and none before all have ended the previous one.
        number = (self.store.add("begun", 1) - 1) // self.processes
        self.failed, self.ended = f"out of memory {number}", f"ended {number}"

    def fail(self) -> None:
        """Tell all processes that this one has run out of memory."""
        self.store.set(self.failed, "")

    def raise_if_failed(self) -> None:
        """Raise torch.OutOfMemoryError if any process has run out of memory."""
        with _connected():
            failed = self.store.check([self.failed])
        if failed:
            raise torch.OutOfMemoryError("Another process of this job has run out of memory.")

    def wait(self) -> None:
        """Wait until all processes have ended the pass."""
        with _connected():
            self.store.add(self.ended, 1)
            while self.store.add(self.ended, 0) < self.processes:
                stopping.raise_if_interrupted()
                time.sleep(_PAUSE)


@contextmanager
def _connected() -> Iterator[None]:
    """Name the cause if the store is lost: its process has ended."""
    try:
        yield
    except distributed.DistError as error:
        raise ValueError("Another process of this job has ended. See its message.") from error
