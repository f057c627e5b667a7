"""Recompute a random sample of a card's outcomes on this machine: `python -m src.verify CARD`.

exit codes:
  0          what was recomputed agrees
  1          outcomes, images, weights or stated facts differ
  2 or more  nothing was recomputed, or the command failed
"""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

from rich.console import Console

from .config.command_line import CommandParser, run_command
from .report.grid import Grid
from .utils.package import command
from .utils.refusals import printable, shortened

DIFFERS, NOTHING = 1, 2
"""Exit codes: some outcomes or digests differ; nothing could be recomputed."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, `DIFFERS` or `NOTHING`."""
    parser = CommandParser(command("verify"), description=__doc__)
    add = parser.add_argument
    add("card", type=Path, help="the card")
    add("words", nargs="*", metavar="KEY=VALUE", help="a file or code of yours that jobs may use")
    add("--images", type=int, default=16, help="images per job; default: 16")
    add("--jobs", type=int, default=20, help="jobs, drawn at random; default: 20")
    add("--seed", type=int, help="seed of the sample; default: a new one")
    return run_command(_verify, parser.parse_intermixed_args, words)


def _verify(card: Path, words: list[str], images: int, jobs: int, seed: int | None) -> int:
    """Print what a sample of a card's outcomes shows, and return the exit code."""
    from .analysis.agreement import most_wrong  # here: loading these takes seconds
    from .api.verification import check_jobs
    from .artifacts.card import described, read_card, read_facts

    if min(images, jobs) < 1 or (seed or 0) < 0:
        raise ValueError("--images and --jobs must be at least 1, and --seed at least 0.")
    if wrong_word := next((word for word in words if "=" not in word), None):
        raise ValueError(f"{wrong_word}: type KEY=VALUE.")
    every, seed = read_card(card), secrets.randbits(32) if seed is None else seed
    chosen = sorted(Random(seed).sample(range(len(every)), min(jobs, len(every))))
    stated = [every[number] for number in chosen]
    of = f"{len(stated)} of {len(every)}" if len(stated) < len(every) else len(every)
    print(f"{card}: {of} jobs, sampled with --seed {seed}", flush=True)
    # The confidences of the presets are in 16 steps, and those of version 0.5.0 in 1,000.
    step = 1 / 16 if (facts := read_facts(card)).get("coarse") else 0.001
    checks = check_jobs(stated, words, step, images, seed)
    checked = sum(len(job.wrong) > 0 for job in checks)
    rows, notes, results = list[list[str]](), dict[str, list[str]](), set[str]()
    for job in checks:
        # On one line, because a second one could read like a result of this program.
        name = printable(" ".join(f"{job.stated.record.label} {job.stated.record.source}".split()))
        count, bad = len(job.wrong), int(sum(job.wrong))
        result = "agrees" if count else "not checked"
        if job.differs or bad > most_wrong(job.honest, checked + 1):
            result = "differs"
        if note := job.differs or job.reason:
            notes.setdefault(f"{result}: {note}", []).append(name)
        results.add(result)
        size = sum(map(len, job.stated.tables.values()))
        rows.append([name, f"{count:,} of {size:,}", f"{bad:,}", result])
    total, wrong = (sum(map(of, (job.wrong for job in checks))) for of in (len, sum))
    most = most_wrong(sum(job.honest for job in checks), checked + 1)
    differ = wrong > most or "differs" in results
    console = Console(markup=False, highlight=False, soft_wrap=True)
    if total or differ:
        columns = ["job", "outcomes", "differ", "result"]
        grid = Grid(columns, rows, left=(0, 3))
        console.print(grid.terminal(ruled=False), soft_wrap=False)
    for note, names in notes.items():
        every_job = f"all {len(checks)} jobs" if len(names) == len(checks) > 1 else shortened(names)
        count_text = f" ({len(names)} jobs)" * (3 < len(names) < len(checks))
        console.print(printable(f"{every_job}{count_text}: {note}"))
    if not (total or differ):
        console.print(f"{described(facts)}No outcome can be recomputed here.")
        return NOTHING
    console.print(
        f"{'differs' if differ else 'agrees'}: {wrong:,} of {total:,} outcomes differ, in "
        f"{checked} of {len(checks)} jobs; rounding explains up to {most:,}."
    )
    return DIFFERS if differ else 0


if __name__ == "__main__":
    sys.exit(main())
