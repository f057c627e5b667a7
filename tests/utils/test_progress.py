"""Progress with the time left, on a terminal."""

from io import StringIO
from itertools import count

from src.utils import terminal


def test_a_terminal_gets_a_bar_of_80_columns(monkeypatch):
    stream, seconds = StringIO(), count(1000, 0.3)
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(seconds))
    shown = terminal.Progress("an attack of some length resnet_small")
    for step in range(100):
        shown.update(step / 100, f"{step}/100 images, {step * 1000:,}/100,000 gradients")
    shown.close()
    lines = stream.getvalue().split("\r")
    assert max(map(len, lines)) <= 80 and " 1/100 images" in stream.getvalue()
    assert not lines[-1].strip()
