"""Progress of long work in the terminal."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from shutil import get_terminal_size
from typing import TypeVar

from rich.console import Console
from tqdm import tqdm

log = logging.getLogger(__name__)
Item = TypeVar("Item")
_COLUMNS = 80
_FIRST_LINE, _LINE_SECONDS, _BAR_SECONDS = 15, 60, 0.5


class LastingConsole(Console):
    """Console that goes silent, instead of ending the program, when a pipe's reader is gone."""

    def on_broken_pipe(self) -> None:
        """Print to the null device from now on: files and the exit code are still to come."""
        with suppress(SystemExit):
            super().on_broken_pipe()


class Progress:
    """Progress of some work, with an estimate of the time left.

    The estimate assumes that the rest has the same pace as the work so far. On a terminal, a bar of
    at most 80 columns is redrawn twice per second. Elsewhere, a line is logged after 15 seconds,
    then once per minute.

    Args:
        label: Name of the work, such as `bim resnet50`.
        visible: False: show nothing.
        first: Share of the work that was done earlier; its pace does not count.
    """

    def __init__(self, label: str, visible: bool = True, first: float = 0.0) -> None:
        self.label, self.visible, self.first = label, visible, first
        self.start = time.monotonic()
        self.terminal = sys.stderr.isatty() or "ipykernel" in sys.modules  # or notebook
        self.next = self.start + (_BAR_SECONDS if self.terminal else _FIRST_LINE)
        self.bar: tqdm | None = None

    def update(self, share: float, done: str = "", then: str = "") -> None:
        """Show the share of the work that is done, in [0, 1].

        `done` is the same as text ("14 / 60 images"); `then` is added after the time left.
        """
        now = time.monotonic()
        if not self.visible or now < self.next:
            return
        self.next = now + (_BAR_SECONDS if self.terminal else _LINE_SECONDS)
        text = ", ".join(filter(None, [done, self._time_left(share, now)])) + then
        if not self.terminal:
            log.info("%s: %s", self.label, text)
            return
        if self.bar is None:
            width = min(_COLUMNS, get_terminal_size().columns)
            self.bar = tqdm(total=1.0, desc=self.label, ncols=width, leave=False, bar_format=" ")
        self.bar.bar_format = "{desc} {percentage:3.0f}%|{bar}| " + text
        self.bar.n = share
        self.bar.refresh()

    def _time_left(self, share: float, now: float) -> str:
        if share - self.first <= 0.005:
            return ""
        return f"{duration((now - self.start) * (1 - share) / (share - self.first))} left"

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def with_progress(items: Iterable[Item], label: str, total: int) -> Iterator[Item]:
    """Yield items, and show how many of them are done."""
    with closing(Progress(label)) as progress:
        for done, item in enumerate(items):
            progress.update(done / total, f"{done:,}/{total:,}")
            yield item


def duration(seconds: float) -> str:
    """Return a duration as text.

    >>> duration(42), duration(200), duration(9000)
    ('42 s', '3 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
