"""Command line: compose jobs from conf/ and run them, or refuse them in one sentence."""

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

if __name__ == "__main__":
    _status = 2  # if the program cannot be loaded
    # Registered first, so it runs last. It saves the seconds that Python needs to free memory.
    atexit.register(lambda: (sys.stdout.flush(), os._exit(_status)))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(
            signal.SIGINT, lambda *_: (print("\nInterrupted.", flush=True), os._exit(130))
        )
from argparse import Namespace

from hydra.errors import HydraException

from .config.command import Command
from .config.command_line import parse_flags, run_command
from .config.hydra_internals import Loader, show, split_jobs
from .config.resolvers import CONF
from .sweeper import run_alone, run_sweep


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line: attack, evaluate and track. Return its exit code."""
    if words is not None:
        sys.argv[1:] = words  # Lightning starts a job's other processes with these
    return run_command(_start, parse_flags, words, at_once=False)


def _start(**keywords: Any) -> None:
    """Check the overrides, and run the command's jobs, or print what a flag asks for."""
    arguments = Namespace(**keywords)
    command = Command.parse(arguments.overrides)
    command.check(CONF)
    for flag in ("config_name", "config_path", "experimental_rerun"):
        if keywords.get(flag):
            way = "the program has one config. Add files of yours with --config-dir."
            raise ValueError(f"--{flag.replace('_', '-')}: {way}")
    loader = Loader(command.sources, arguments.config_dir)
    words = arguments.overrides = command.words
    if arguments.hydra_help:  # Hydra's own page knows no key of this program
        arguments.overrides = []
    elif arguments.cfg and arguments.multirun:  # print the sweep's first job
        arguments.overrides = split_jobs(loader, words)[0]
    try:
        if not show(loader, arguments):
            (run_sweep if arguments.multirun else run_alone)(loader, words)
    except HydraException:
        if not arguments.multirun:
            command.refuse_sweeps()
        raise


if __name__ == "__main__":
    _status = main()
    sys.exit(_status)
