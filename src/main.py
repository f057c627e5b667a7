"""Command line: compose jobs from conf/ and run them, or refuse them in one sentence."""

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    _status = 2  # if the program cannot be loaded
    # Registered first, so it runs last. It saves the seconds that Python needs to free memory.
    atexit.register(lambda: (sys.stdout.flush(), os._exit(_status)))
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(
            signal.SIGINT, lambda *_: (print("\nInterrupted.", flush=True), os._exit(130))
        )
import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from .config.command import Command, parse, parse_for
from .config.command_line import ignore_harmless_warnings, parse_flags, run_command
from .config.compose import with_files
from .config.hydra_internals import speed_up, split_jobs
from .config.resolvers import CONF
from .utils import stopping
from .utils.hydra_versions import VERSION_BASE, allow


@hydra.main(config_path=str(CONF), config_name="config", **VERSION_BASE)
def run(config: DictConfig) -> None:
    """Run one job; a failure is recorded beside the job's files, and the sweep continues."""
    stopping.raise_if_interrupted()
    ignore_harmless_warnings()
    os.chdir(HydraConfig.get().runtime.cwd)  # where the plan was made, see `hydra.job.chdir`
    # Imported here so that --help and --cfg do not load torch.
    from .callback import SweepCallback
    from .run.job import attempt
    from .utils.processes import keep_freed_memory

    keep_freed_memory()
    attempt(config, Path(HydraConfig.get().runtime.output_dir), SweepCallback.running)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line: attack, evaluate and track. Return its exit code."""
    return run_command(_start, parse_flags, words, at_once=False)


def _start(overrides: list[str], flags: list[str], **known: Any) -> None:
    """Check the overrides, and hand the command on to Hydra, which reads `sys.argv`."""
    command = Command.parse(overrides)
    command.check(CONF)
    speed_up(parse, known["multirun"])
    folder = known["config_dir"]
    overrides = with_files(command, [CONF, *([folder] if folder else [])])
    if known["multirun"] and known["cfg"]:  # print the sweep's first job
        flags = [flag for flag in flags if flag not in ("-m", "--multirun")]
        with initialize_config_dir(str(CONF), **VERSION_BASE):
            loader = GlobalHydra.instance().config_loader()
            overrides = split_jobs(parse_for(loader, overrides))[0]
    if known["hydra_help"]:  # Hydra's own page knows no key of this program
        overrides = []
    sys.argv[1:] = [*flags, *overrides]
    try:
        with allow(f"{__package__}.callback.SweepCallback"):
            run()
    except HydraException:
        if not known["multirun"]:
            command.refuse_sweeps()
        raise


if __name__ == "__main__":
    _status = main()
    sys.exit(_status)
