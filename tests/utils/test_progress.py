"""Progress with the time left, on a terminal and in a log."""

import logging
from io import StringIO

import pytest

from src.utils import terminal as progress
from src.utils.terminal import Progress


class Terminal(StringIO):
    """A standard error of 80 columns that is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds by which a test moves time."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("first", [0.0, 0.5])
def test_a_log_gets_a_line_per_minute_with_the_time_left(clock, caplog, first):
    caplog.set_level(logging.INFO)
    shown = Progress("mi a", first=first)
    for second in range(1, 301):  # ten minutes of work, of which a part was done before
        clock[0] += 1
        shown.update(first + second / 600, f"{second} / 600 images", "; then b")
    left = [record.getMessage() for record in caplog.records]
    assert len(left) == 1 + (300 - 15) // 60
    rest = (600 * (1 - first) - 15) / 60
    assert left[0] == f"mi a: 15 / 600 images, {progress.duration(60 * rest)} left; then b"


def test_a_terminal_gets_a_bar_of_80_columns(clock, monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "200")
    shown = Progress("an attack of some length resnet_small")
    for step in range(100):
        clock[0] += 0.6
        shown.update(step / 100, f"{step}/100 images, {step * 1000:,}/100,000 gradients")
    shown.close()
    lines = stream.getvalue().split("\r")
    assert max(map(len, lines)) <= 80 and "40/100 images" in stream.getvalue()
    assert not lines[-1].strip()
