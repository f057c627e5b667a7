"""The command line: compose a job from conf/, run it, or say in one sentence why it cannot be."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: (print("\nInterrupted.", flush=True), os._exit(130)))
import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src.config.command_line import command_line, ignore_harmless_warnings
from src.config.compose import check_groups
from src.config.errors import refuse
from src.config.hydra_speedups import speed_up_hydra
from src.config.resolvers import CONF
from src.utils import stopping


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def run(config: DictConfig) -> None:
    """Run one job; what fails is noted beside the job's files, and the sweep goes on."""
    stopping.raise_if_interrupted()
    ignore_harmless_warnings()
    # Here, so that --help and --cfg answer without torch.
    from src.run.attempt import attempt
    from src.utils.processes import keep_freed_memory

    keep_freed_memory()
    attempt(config, Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Attack, evaluate and track, as the words of the command line say.

    In a sweep over attacks Hydra tries `attack.steps=20` on the default attack too, which has no
    steps; with `++` it does not. Each attack refuses what its function does not take.
    """
    flags, parser = sys.argv[1:], get_args_parser()
    parser.error = lambda message: refuse(f"{message}; --help lists the flags")  # type: ignore[method-assign]
    overrides = parser.parse_intermixed_args(flags).overrides
    for word in overrides:
        flags.remove(word)
    # Hydra wants the words that are no flags in one place.
    forced = [f"++{word}" if word.startswith("attack.") else word for word in overrides]
    sys.argv[1:] = [*flags, *forced]
    speed_up_hydra()
    command_line(partial(check_groups, overrides, CONF), run)


if __name__ == "__main__":
    main()
