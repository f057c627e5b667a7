"""Exit codes: 1 is what a command says it is, and no error, full disk or closed pipe returns it."""

import multiprocessing
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from src.config.command_line import run_command

Open = Callable[[Path], int]


def closed_pipe(folder: Path) -> int:
    """Open a pipe that nobody reads, as before `| head -0`."""
    read, write = os.pipe()
    os.close(read)
    return write


def full_disk(folder: Path) -> int:
    return os.open("/dev/full", os.O_WRONLY)


def plain_file(folder: Path) -> int:
    return os.open(folder / "printed", os.O_WRONLY | os.O_CREAT)


def with_output(call: Callable[[], int], folder: Path, *opened: Open) -> int | None:
    """Return the exit code of a call with other standard streams, in a process of its own."""

    def run() -> None:
        for number, (name, stream) in enumerate(zip(("stdout", "stderr"), opened, strict=False), 1):
            os.dup2(stream(folder), number)
            setattr(sys, name, os.fdopen(number, "w", 1 if number == 2 else -1, closefd=False))
        os._exit(call())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return process.exitcode


def command(function: Callable[[], int | None]) -> int:
    return run_command(lambda: function(), lambda words: Namespace(), [])


def failing(error: BaseException) -> Callable[[], int]:
    def fail() -> int:
        print("begun")
        raise error

    return fail


def printing() -> int:
    print("passed")
    return 0


def printing_with_rich() -> int:
    Console().print("passed")
    return 0


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), MemoryError(), RuntimeError("x"), OSError(28, "full"), GeneratorExit("x")],
    ids=lambda error: type(error).__name__,
)
def test_no_error_has_the_code_of_a_gate_that_is_not_passed(error, capfd):
    assert command(failing(error)) == 2
    assert capfd.readouterr().err


def test_no_module_that_ends_the_process_decides_a_gate(capfd):
    for code in (None, 0, 1, 2, 256, 257):
        assert command(lambda code=code: sys.exit(code)) == 2
        assert (f"exit({code})" in capfd.readouterr().err) == (code != 2)
    assert command(lambda: sys.exit("a reason")) == 2
    assert capfd.readouterr().err == "a reason\n"


@pytest.mark.parametrize("stream", [closed_pipe, full_disk])
def test_an_output_that_cannot_be_written_has_another_code(tmp_path, capfd, stream):
    for function in (printing, printing_with_rich):
        assert with_output(lambda function=function: command(function), tmp_path, plain_file) == 0
        assert (tmp_path / "printed").read_text() == "passed\n"
        capfd.readouterr()
        assert with_output(lambda function=function: command(function), tmp_path, stream) == 2
        said = capfd.readouterr().err.strip().splitlines()
        assert len(said) == (1 if stream is full_disk else 0)
    for function in (printing, failing(KeyError("x"))):
        both = (stream, stream)
        assert with_output(lambda function=function: command(function), tmp_path, *both) == 2
