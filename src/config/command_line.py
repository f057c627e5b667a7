"""Warnings, interrupts, refusals and exit codes of a command line."""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable

from src.config.errors import INTERRUPTED, REFUSALS, explain, refuse
from src.utils import stopping

HARMLESS = (
    r".isinstance\(treespec, LeafSpec\). is deprecated",  # Lightning 2.6 with torch 2.15
    "The ``noload`` loader strategy is deprecated",  # MLflow 3.17 with SQLAlchemy 2.1
    "Checkpoint directory .* exists and is not empty",  # a resumed training
    ".*does not have many workers",  # attacks take far longer than decoding
    "GPU available but not used",  # trainer=cpu asks for this
)


def ignore_harmless_warnings() -> None:
    """Suppress known, harmless warnings of libraries, also in a launcher's workers."""
    for harmless in HARMLESS:
        warnings.filterwarnings("ignore", message=harmless)


def command_line(*steps: Callable[[], None]) -> None:
    """Run the steps of a command line; on a refusal print one sentence and exit with code 2.

    Ctrl-C or SIGTERM keeps what is finished and exits with code 130.
    """
    ignore_harmless_warnings()
    logging.raiseExceptions = False  # do not fail if the disk is too full for the log
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & {*os.environ}:
        # Waiting threads go to sleep sooner. Otherwise they spend most of their time waiting for
        # each other as soon as another process uses one of their cores.
        os.environ["GOMP_SPINCOUNT"] = "10000"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    with stopping.handle_signals():
        try:
            for step in steps:
                step()
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            stopping.shut_down(interrupt)
            sys.exit(INTERRUPTED)
        except REFUSALS as error:
            refuse(explain(error))
        except BrokenPipeError:  # a pipe such as `| head` was closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (OSError, RuntimeError) as error:  # from Hydra's files or a launcher's workers
            stopping.shut_down(error)
            sys.exit(1)
        finally:
            gc.unfreeze()  # undo the freeze in `SweepCallback`
