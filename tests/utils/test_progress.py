"""Progress with the time left in a log."""

import logging

from src.utils import terminal


def test_a_log_gets_a_line_per_minute_with_the_time_left(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    shown = terminal.Progress("mi a", first=0.5)
    for second in range(1, 301):  # ten minutes of work, of which a half was done before
        now[0] += 1
        shown.update(0.5 + second / 600, f"{second} / 600 images", "; then b")
    left = [record.getMessage() for record in caplog.records]
    assert len(left) == 1 + (300 - 15) // 60
    assert left[0] == f"mi a: 15 / 600 images, {terminal.duration(300 - 15)} left; then b"
