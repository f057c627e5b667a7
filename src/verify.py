"""Recompute a sample of a card's outcomes on this machine: `python -m src.verify CARD`."""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from .config.command_line import CommandParser, run_command
from .utils.package import command
from .utils.refusals import printable
from .utils.terminal import LastingConsole, text_table

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
    add("--config-dir", type=Path, help="folder of your config files, which the jobs may use")
    add("--minutes", type=float, default=5, help="time; default: 5")
    add("--seed", type=int, help="seed of the sample; default: a new one")
    return run_command(_verify, parser.parse_intermixed_args, words)


def _verify(
    card: Path, words: list[str], config_dir: Path | None, minutes: float, seed: int | None
) -> int:
    """Print what a sample of a card's outcomes shows, and return the exit code."""
    import numpy as np  # here: loading these takes seconds

    from .analysis.agreement import TOLERANCE, agreement
    from .api.verification import check_jobs
    from .artifacts.card import COARSE_STEPS, STEPS, read_card, read_facts
    from .run.recompute import section_with

    stated = read_card(card)
    for word in words:
        if not any(section_with(job.record.config, word.partition("=")[0]) for job in stated):
            raise ValueError(f"{word}: no job of {card} has such a setting. Type KEY=VALUE.")
    seed = secrets.randbits(32) if seed is None else seed
    print(f"{card}: {len(stated)} jobs, sampled with --seed {seed}", flush=True)
    jobs = check_jobs(stated, words, config_dir, minutes, seed)
    rounding = TOLERANCE + 0.5 / (COARSE_STEPS if read_facts(card)["coarse"] else STEPS)
    tests, texts, notes, differ = 1 + sum(len(job.rows) > 0 for job in jobs), [], [], False
    for job in jobs:
        record, total = job.stated.record, sum(map(len, job.stated.tables.values()))
        name = " ".join(filter(None, [record.label, record.source]))
        its = agreement(job.distance, rounding, tests)
        result = "agrees" if its.holds else "differs"
        if job.differs or not its.outcomes:
            result = "differs" if job.differs else "not checked"
            notes.append(f"{name}: {result}: {job.differs or job.reason}")
        differ |= result == "differs"
        texts.append([name, f"{its.outcomes:,} of {total:,}", f"{its.wrong:,}", result])
    console = LastingConsole(markup=False, highlight=False, soft_wrap=True)
    texts = [[printable(text) for text in row] for row in texts]
    columns = ["job", "outcomes", "differ", "result"]
    console.print(text_table(columns, texts, left=["job", "result"]), soft_wrap=False)
    console.print(*map(printable, notes), sep="\n")
    every = agreement(np.concatenate([job.distance for job in jobs]), rounding, tests)
    if not every.outcomes and not differ:
        console.print("No outcome could be recomputed here.")
        return NOTHING
    differ |= not every.holds
    console.print(
        f"{'differs' if differ else 'agrees'}: {every.wrong:,} of {every.outcomes:,} outcomes of "
        f"{tests - 1} of {len(jobs)} jobs differ; rounding explains up to {every.most:,}."
    )
    console.print(
        f"If more than {every.found:.1%} of these jobs' outcomes were changed, such a sample would "
        "differ with a probability of 95 %."
    )
    return DIFFERS if differ else 0


if __name__ == "__main__":
    sys.exit(main())
