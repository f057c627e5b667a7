"""A command line: its warnings, interrupts, refusals and exit codes."""

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable

from src.config.errors import INTERRUPTED, REFUSALS, REFUSED, explain
from src.utils import stopping

HARMLESS = (
    r".isinstance\(treespec, LeafSpec\). is deprecated",  # Lightning 2.6 with torch 2.15
    "The ``noload`` loader strategy is deprecated",  # MLflow 3.17 with SQLAlchemy 2.1
    "Checkpoint directory .* exists and is not empty",  # of a training that goes on
    ".*does not have many workers",  # attacks take far longer than decoding
)


def ignore_harmless_warnings() -> None:
    """Keep the libraries' known chatter off the terminal, also in a launcher's workers."""
    for harmless in HARMLESS:
        warnings.filterwarnings("ignore", message=harmless)


def command_line(*steps: Callable[[], None]) -> None:
    """Run the steps of a command line, or say why it cannot be in a sentence, with exit code 2.

    Ctrl-C or SIGTERM leaves what is finished and exits with 130.
    """
    ignore_harmless_warnings()
    logging.raiseExceptions = False  # a log that a full disk does not take stops nothing
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & {*os.environ}:
        # Threads sleep sooner while they wait: as soon as one of their cores has another process,
        # they otherwise wait for one another most of the time.
        os.environ["GOMP_SPINCOUNT"] = "10000"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them
    with stopping.handle_signals():
        try:
            for step in steps:
                step()
            sys.stdout.flush()
        except KeyboardInterrupt as interrupt:
            stopping.shut_down(interrupt)
            sys.exit(INTERRUPTED)
        except REFUSALS as error:
            print(explain(error), file=sys.stderr)
            sys.exit(REFUSED)
        except BrokenPipeError:  # the reader, `head` perhaps, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except (OSError, RuntimeError) as error:  # of Hydra's files, or of a launcher's workers
            stopping.shut_down(error)
            sys.exit(1)
        finally:
            gc.unfreeze()  # what `SweepCallback` froze
