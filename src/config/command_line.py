"""Arguments, refusals, interrupts, closed streams and exit codes, for all commands."""

import gc
import logging
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..utils import stopping
from .errors import INTERRUPTED, REFUSED, describe, refuse, tell
from .hydra_internals import flags_parser

HARMLESS = (
    r".isinstance\(treespec, LeafSpec\). is deprecated",  # Lightning 2.6 with torch 2.15
    "The ``noload`` loader strategy is deprecated",  # MLflow 3.17 with SQLAlchemy 2.1
    "Checkpoint directory .* exists and is not empty",  # a resumed training
    ".*does not have many workers",  # attacks take far longer than decoding
    "GPU available but not used",  # trainer=cpu asks for this
    "The `srun` command is available",  # on login nodes of SLURM; no job needs it
)


def ignore_harmless_warnings() -> None:
    """Suppress known, harmless warnings of libraries, also in a launcher's workers."""
    for harmless in HARMLESS:
        warnings.filterwarnings("ignore", message=harmless)


class CommandParser(ArgumentParser):
    """Parser of a command's arguments that refuses wrong ones in one sentence."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **options, formatter_class=RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        refuse(f"{message}; --help lists the arguments")


def parse_flags(words: Sequence[str] | None) -> Namespace:
    """Parse a command line of Hydra's; `flags` has the words that are not `overrides`."""
    parser = flags_parser()
    parser.error = lambda message: refuse(f"{message}; --help lists the flags")  # type: ignore[method-assign]
    flags = [*(sys.argv[1:] if words is None else words)]
    arguments = parser.parse_intermixed_args(flags)
    for word in arguments.overrides:
        flags.remove(word)
    arguments.flags = flags
    return arguments


def run_command(
    function: Callable[..., int | None],
    parse: Callable[[Sequence[str] | None], Namespace],
    words: Sequence[str] | None = None,
    *,
    at_once: bool = True,
) -> int:
    """Run a command and return its exit code: 0, or what the function returns.

    A refusal prints one sentence and returns 2. Any error returns 2, too, and so does an output
    that cannot be written: 1 has the meaning that the function gives it. Ctrl-C or SIGTERM returns
    130. `sys.exit` in the function is an error, unless it is not `at_once`.

    Args:
        function: The command, called with the parsed arguments as keywords.
        parse: Parser of the words.
        words: Words after the command's name; None: those of the process.
        at_once: Stop at the first Ctrl-C or SIGTERM. False: the function calls
            `stopping.raise_if_interrupted` where it can stop, and keeps what is finished.
    """
    ignore_harmless_warnings()
    logging.raiseExceptions = False  # do not fail if the disk is too full for the log
    # Lightning's advice on other products, until Hydra sets the levels of a job.
    logging.getLogger("pytorch_lightning.utilities").setLevel(logging.WARNING)
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & {*os.environ}:
        # Waiting threads go to sleep sooner. Otherwise they spend most of their time waiting for
        # each other as soon as another process uses one of their cores.
        os.environ["GOMP_SPINCOUNT"] = "10000"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    code: Any = REFUSED
    arguments: Namespace | None = None
    with stopping.handle_signals():
        stopping.set_shutdown_hook(_say)
        try:
            if at_once:
                stopping.interrupt_at_once()
            if "" in (sys.argv[1:] if words is None else words):  # as a path: the current folder
                refuse("One of the arguments is empty. Leave it out, or write what it stands for.")
            arguments = parse(words)
            code = function(**vars(arguments))
        except SystemExit as stop:
            code = stop.code
            closed = isinstance(stop.__context__, BrokenPipeError)  # rich exits with 1
            foreign = isinstance(code, str) or (at_once and arguments is not None)
            if foreign and not closed and code != REFUSED:  # a user's module ends the process
                tell(
                    code if isinstance(code, str) else f"A module ended the command: exit({code})."
                )
            if foreign or closed:
                code = REFUSED
        except KeyboardInterrupt as interrupt:
            stopping.shut_down(interrupt)
            code = INTERRUPTED
        except (OSError, RuntimeError) as error:  # of files, or of workers
            stopping.shut_down(error)
        except BaseException as error:
            _say(error)
        finally:
            gc.unfreeze()  # undo the freeze at the beginning of a sweep
    try:
        sys.stdout.flush()
    except OSError as error:  # the disk is full, or a pipe such as `| head` was closed
        if code != REFUSED:
            _say(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return REFUSED
    return int(code or 0)


def _say(error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt):
        print("\nInterrupted.")
    elif not isinstance(error, BrokenPipeError):
        tell(describe(error))
