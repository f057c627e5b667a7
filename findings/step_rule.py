"""Numbers of the findings on the step rule `mdcs`: attacks with it, and with equal steps."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pandas as pd

from findings.paired_tests import holm
from src.analysis import MEAN_OF, Outcomes, joined, outcomes_of, rankings
from src.artifacts import find_jobs

RULE = "mdcs"


def step_rule(card: Path) -> pd.DataFrame:
    """Compare attacks with equal steps with the same attacks with the rule, at equal cost.

    Args:
        card: Jobs of attacks from equal sources: with the rule, and with equal steps of one or more
            lengths.

    Returns:
        The rows of `rankings` tested against the rule, one per `of` and `steps`. `of` is an attack
        or `all`, which takes each attack from each source as a source of its own: its mean is over
        attacks, sources and other targets, and its interval is over images. `steps` is `mdcs`, or
        the length of equal steps as a multiple of the budget divided by the number of steps.
        `p_holm` is corrected for all attacks. Attacks that lack a job are left out.
    """
    parts = defaultdict[str, list[Outcomes]](list)
    for job in find_jobs([card]):
        record = job.record
        stated = record.config["attack"]["settings"]
        steps = stated["step_rule"] or f"{stated['relative_step_size'] * stated['steps']:g}"
        place = record.attack, record.source, record.targets, "joint", record.reference
        part = outcomes_of(job.predictions, *place)
        part = replace(part, evaluated=part.transfers)  # by its new name no source is a target
        parts[record.attack].append(
            replace(part, jobs=[(steps, f"{record.attack} {record.source}")])
        )
        job.forget()
    most = max(map(len, parts.values()))
    whole = {attack: its for attack, its in parts.items() if len(its) == most}
    whole = {"all": [part for its in whole.values() for part in its], **whole}
    ranked = {attack: rankings(joined(its), against=RULE) for attack, its in whole.items()}
    table = pd.concat(ranked, names=["of"]).reset_index("of").rename(columns={"attack": "steps"})
    table = table[table["source"].str.startswith(MEAN_OF)].reset_index(drop=True)
    single = table[table["of"] != "all"]
    return table.assign(p_holm=single.groupby("steps")["p"].transform(holm))
