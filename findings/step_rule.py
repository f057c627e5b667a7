"""Numbers of the findings on the step rule `mdcs`: attacks with it, and with equal steps."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pandas as pd

from findings.paired_tests import holm
from src.analysis import MEAN_OF, Outcomes, joined, outcomes_of, rankings
from src.artifacts import find_jobs

EQUAL = "equal steps"
"""Name of the steps without a rule."""


def step_rule(card: Path) -> pd.DataFrame:
    """Compare attacks with a step rule with the same attacks without, at equal cost.

    Args:
        card: Jobs of attacks in pairs, with the rule and without, from equal sources.

    Returns:
        The rows of `rankings` with the rule, tested against equal steps, one per attack, the most
        helped first; `plain`, the mean without the rule; and `p_holm`, corrected for all attacks.
        The row `all` takes each attack from each source as a source of its own, so its mean is over
        attacks, sources and targets, and its interval is over images. Attacks that lack a source
        are left out.
    """
    parts = defaultdict[str, list[Outcomes]](list)
    for job in find_jobs([card]):
        record = job.record
        rule = record.config["attack"]["settings"]["step_rule"] or EQUAL
        place = record.attack, record.source, record.targets, "joint", record.reference
        part = outcomes_of(job.predictions, *place)
        parts[record.attack].append(
            replace(part, jobs=[(rule, f"{record.attack} {record.source}")])
        )
        job.forget()
    most = max(map(len, parts.values()))
    whole = {attack: its for attack, its in parts.items() if len(its) == most}
    whole = {"all": [part for its in whole.values() for part in its], **whole}
    rows = []
    for attack, its in whole.items():
        ranked = rankings(joined(its), against=EQUAL)
        mean = ranked[ranked["source"].str.startswith(MEAN_OF)].set_index("attack")
        plain = mean["mean"].pop(EQUAL)
        rows.append(mean.drop(EQUAL).assign(plain=plain, attack=attack))
    table = pd.concat(rows).set_index("attack").sort_values("difference", ascending=False)
    return table.assign(p_holm=holm(table["p"].where(table.index != "all")))
