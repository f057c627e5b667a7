"""Recompute a random sample of a card's outcomes on this machine: `python -m src.verify CARD`.

exit codes:
  0          what was recomputed agrees
  1          outcomes, images, weights or stated facts differ
  2 or more  nothing was recomputed, or not every job in time, or the command failed
"""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from .config.command_line import CommandParser, run_command
from .utils.package import command
from .utils.refusals import printable, shortened
from .utils.terminal import text_table

MOST_MINUTES = 10_000
DIFFERS, NOTHING = 1, 2
"""Exit codes: some outcomes or digests differ; nothing, or too little, could be recomputed."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, `DIFFERS` or `NOTHING`."""
    parser = CommandParser(command("verify"), description=__doc__)
    add = parser.add_argument
    add("card", type=Path, help="the card")
    add("words", nargs="*", metavar="KEY=VALUE", help="a file or code of yours that jobs may use")
    add("--minutes", type=float, default=5, help="time; default: 5")
    add("--seed", type=int, help="seed of the sample; default: a new one")
    return run_command(_verify, parser.parse_intermixed_args, words)


def _verify(card: Path, words: list[str], minutes: float, seed: int | None) -> int:
    """Print what a sample of a card's outcomes shows, and return the exit code."""
    from .analysis.agreement import found_share, most_wrong  # here: loading these takes seconds
    from .api.verification import CheckedJob, check_jobs
    from .artifacts.card import described, read_card, read_facts

    if not 0 < minutes <= MOST_MINUTES:
        raise ValueError(f"--minutes {minutes:g}: it must be above 0, and at most {MOST_MINUTES}.")
    if wrong_word := next((word for word in words if "=" not in word), None):
        raise ValueError(f"{wrong_word}: type KEY=VALUE.")
    if seed is not None and seed < 0:
        raise ValueError(f"--seed {seed}: it must be at least 0.")
    stated, seed = read_card(card), secrets.randbits(32) if seed is None else seed
    print(f"{card}: {len(stated)} jobs, sampled with --seed {seed}", flush=True)
    # The confidences of the presets are in 16 steps, and those of version 0.5.0 in 1,000.
    step = 1 / 16 if (facts := read_facts(card)).get("coarse") else 0.001
    jobs = check_jobs(stated, words, step, minutes, seed)
    total, wrong = (sum(map(of, (job.wrong for job in jobs))) for of in (len, sum))
    checked = sum(len(job.wrong) > 0 for job in jobs)
    most, rows = most_wrong(sum(job.honest for job in jobs), checked + 1), []
    notes = dict[str, list[str]]()
    differ = wrong > most or any(job.differs for job in jobs)
    for job in jobs:
        # On one line, because a second one could read like a result of this program.
        name = " ".join(f"{job.stated.record.label} {job.stated.record.source}".split())
        count, bad = len(job.wrong), int(sum(job.wrong))
        result = "agrees" if bad <= most_wrong(job.honest, checked + 1) else "differs"
        if job.differs or not count:
            result = "differs" if job.differs else "not checked"
            notes.setdefault(f"{result}: {job.differs or job.reason}", []).append(name)
        differ |= result == "differs"
        every = sum(map(len, job.stated.tables.values()))
        rows.append([printable(name), f"{count:,} of {every:,}", f"{bad:,}", result])
    console = Console(markup=False, highlight=False, soft_wrap=True)
    columns = ["job", "outcomes", "differ", "result"]
    if total or differ:
        console.print(text_table(columns, rows, left=["job", "result"]), soft_wrap=False)
    for note, names in notes.items():
        console.print(printable(f"{_listed(names, len(jobs))}: {note}"))
    late = len(notes.get(f"not checked: {CheckedJob.reason}", ()))
    if not (total or differ):
        within = " within --minutes" * (late > 0)
        console.print(f"{described(facts)}No outcome can be recomputed here{within}.")
        return NOTHING
    console.print(
        f"{'differs' if differ else 'agrees'}: {wrong:,} of {total:,} outcomes differ, in "
        f"{checked} of {len(jobs)} jobs; rounding explains up to {most:,}."
    )
    if total:
        console.print(
            f"A card in which more than {found_share(total, most):.2%} of these outcomes were "
            "changed by more than rounding, scattered at random, would differ in 95 % of such "
            "samples."
        )
    if late and not differ:
        console.print(f"Time was up after {len(jobs) - late} of {len(jobs)} jobs. Raise --minutes.")
        return NOTHING
    return DIFFERS if differ else 0


def _listed(names: Sequence[str], jobs: int) -> str:
    """Return the names of some of a card's jobs as text."""
    if len(names) == jobs > 1:
        return f"all {jobs} jobs"
    return shortened(names) + f" ({len(names)} jobs)" * (len(names) > 3)


if __name__ == "__main__":
    sys.exit(main())
