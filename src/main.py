"""Command line: compose jobs from conf/ and run them, or refuse them in one sentence."""

import atexit
import os
import signal
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    _status = 1
    # Registered first, so it runs last. It saves the seconds that Python needs to free memory.
    atexit.register(lambda: (sys.stdout.flush(), os._exit(_status)))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(
            signal.SIGINT, lambda *_: (print("\nInterrupted.", flush=True), os._exit(130))
        )
import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config.command import Command, parse
from src.config.command_line import command_line, ignore_harmless_warnings
from src.config.errors import refuse
from src.config.hydra_internals import flags_parser, speed_up, split_jobs
from src.config.names import with_files
from src.config.resolvers import CONF
from src.utils import stopping


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(config: DictConfig) -> None:
    """Run one job; a failure is recorded beside the job's files, and the sweep continues."""
    stopping.raise_if_interrupted()
    ignore_harmless_warnings()
    # Imported here so that --help and --cfg do not load torch.
    from src.callback import SweepCallback
    from src.run.attempt import attempt
    from src.utils.processes import keep_freed_memory

    keep_freed_memory()
    attempt(config, Path(HydraConfig.get().runtime.output_dir), SweepCallback.running)


def main() -> None:
    """Run the command line: attack, evaluate and track."""
    flags, parser = sys.argv[1:], flags_parser()
    parser.error = lambda message: refuse(f"{message}; --help lists the flags")  # type: ignore[method-assign]
    known = parser.parse_intermixed_args(flags)
    overrides = known.overrides
    for word in overrides:
        flags.remove(word)
    speed_up(parse, known.multirun)
    command_line(
        partial(_hand_on, flags, overrides, known.config_dir, known.multirun and known.cfg), run
    )


def _hand_on(flags: list[str], overrides: list[str], folder: str | None, first: bool) -> None:
    """Check the overrides and put them into `sys.argv` for Hydra.

    Args:
        flags: Flags of the command, such as `-m`.
        overrides: Overrides of the command.
        folder: Value of `--config-dir`, if given.
        first: True: keep only the overrides of the sweep's first job.
    """
    command = Command.parse(overrides)
    command.check(CONF)
    overrides = with_files(command, [CONF, *([folder] if folder else [])])
    if first:
        flags = [flag for flag in flags if flag not in ("-m", "--multirun")]
        overrides = split_jobs(Command.parse(overrides).overrides)[0]
    sys.argv[1:] = [*flags, *overrides]


if __name__ == "__main__":
    try:
        main()
        _status = 0
    except SystemExit as stop:
        _status = int(stop.code or 0)
        raise
