"""Early stops by Ctrl-C, SIGTERM or a full disk: finished jobs are summarised."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_requested = False
_sum_up: Callable[[BaseException], object] = print


@contextmanager
def handle_signals() -> Iterator[None]:
    """Make the first Ctrl-C or SIGTERM request a stop, and the next raise KeyboardInterrupt.

    `raise_if_interrupted` performs the stop, because libraries may swallow an exception raised at
    an arbitrary moment.
    """
    global _requested, _sum_up
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # ignored in a shell's background jobs
            signal.signal(number, _request)
    try:
        yield
    finally:
        _requested, _sum_up = False, print
        for number, handler in before.items():
            signal.signal(number, handler)


def _request(number: int, frame: FrameType | None) -> None:
    global _requested
    if _requested:
        raise KeyboardInterrupt
    _requested = True


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if a stop was requested; called for every gradient and batch."""
    if _requested:
        raise KeyboardInterrupt


def interrupt_at_once() -> None:
    """Make the first signal raise KeyboardInterrupt, as launchers and reports check no flag."""
    raise_if_interrupted()
    for number in _SIGNALS:
        if signal.getsignal(number) is _request:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def plain_interrupts() -> Iterator[None]:
    """Restore KeyboardInterrupt and SIGINT, as Lightning raises SystemExit and ignores SIGINT."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from stop


def set_shutdown_hook(sum_up: Callable[[BaseException], None]) -> None:
    """Set the function that explains an early stop and summarises the finished jobs."""
    global _sum_up
    _sum_up = sum_up


def shut_down(error: BaseException) -> None:
    """Summarise the finished jobs when an error stops the command.

    Ctrl-C, or an output that cannot be written, ends the summary.
    """
    with suppress(KeyboardInterrupt, OSError):
        _sum_up(error)
