"""Recompute a sample of a card's outcomes on this machine: `python -m src.verify CARD`."""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from .config.command_line import CommandParser, run_command
from .utils.package import command

DIFFERS, NOTHING = 1, 2
"""Exit codes: some outcomes or digests differ; nothing could be recomputed."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, `DIFFERS` or `NOTHING`."""
    parser = CommandParser(
        command("verify"),
        description="Recompute a random sample of a card's outcomes on this machine. Exit codes: "
        "0 if they agree, 1 if they differ, 2 if nothing can be recomputed or there is no card.",
    )
    add = parser.add_argument
    add("card", type=Path, help="a card, see `card`")
    add("words", nargs="*", metavar="KEY=VALUE", help="a file or code of yours that a job may use")
    add("--minutes", type=float, default=5, help="time; default: 5")
    add("--seed", type=int, help="seed of the sample; default: a new one")
    return run_command(_verify, parser.parse_intermixed_args, words)


def _verify(card: Path, words: list[str], minutes: float, seed: int | None) -> int:
    """Print what a sample of a card's outcomes shows, and return the exit code."""
    from .analysis.agreement import TOLERANCE, allowed, found_share
    from .artifacts.card import COARSE_STEPS, STEPS, read_card, read_facts
    from .run.verification import check_jobs

    stated = read_card(card)
    seed = secrets.randbits(32) if seed is None else seed
    print(f"{card}: {len(stated)} jobs, seed {seed}", flush=True)
    limit = TOLERANCE + 0.5 / (COARSE_STEPS if read_facts(card)["coarse"] else STEPS)
    jobs = check_jobs(stated, words, minutes, seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
