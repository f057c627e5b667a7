"""The classes of TransferAttack beside this program's attacks, on the embedded networks."""

import sys
from functools import cache
from pathlib import Path

import pandas as pd

from findings.costs import COLUMNS, packed_rows, unpacked
from src.analysis.ranking import rankings
from src.artifacts.jobs import find_jobs
from src.utils.files import atomic_write

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "results" / "zoos.parquet"
REFERENCES = ROOT / "tests" / "attacks" / "references" / "references.csv"
PREFIX = "transferattack."
TWINS = {
    **{"fgsm": "fgsm", "bim": "ifgsm", "mi": "mifgsm", "ni": "nifgsm", "di": "dim", "ti": "tim"},
    **{"gi": "gifgsm", "emi": "emifgsm", "pi_patchwise": "pifgsm", "dem": "dem", "ila": "ila"},
    **{"admix": "admix", "usmm": "usmm", "bsr": "bsr", "sia": "sia", "gra": "gra"},
    **{"vmi": "vmifgsm", "vni": "vnifgsm"},
}
"""Attacks by their names here, with the classes of the same method."""


def pack(folders: list[Path]) -> None:
    """Store the outcomes of the finished jobs in some folders."""
    rows = [row for job in find_jobs(folders) for row in packed_rows(job, job.attack, "own")]
    table = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(COLUMNS[:6])
    with atomic_write(TABLE) as temporary:
        table.to_parquet(temporary, compression="zstd", index=False)


@cache
def _table() -> pd.DataFrame:
    """Return the stored rows of attacks that take gradients."""
    table = pd.read_parquet(TABLE)
    return table[table["gradients"] > 0]


def ranked() -> pd.DataFrame:
    """Return the ranking of all attacks, with `gradients` per image."""
    rows = rankings(unpacked(_table())).dropna(subset="rank")
    costs = _table().groupby("attack")["gradients"].first()
    return rows.assign(gradients=rows["attack"].map(costs))


def twins() -> pd.DataFrame:
    """Return both attacks of each method, the most different first.

    Columns are `ours`, `theirs`, their means `mean_ours` and `mean_theirs`, `difference` with its
    95 % interval (of the two alone), `p`, the `gradients` of both, and `why`, from the comparison
    with the same random numbers.
    """
    reasons = pd.read_csv(REFERENCES).set_index("attack")["explanation"]
    rows = []
    for ours, short in TWINS.items():
        theirs = PREFIX + short
        part = _table()[_table()["attack"].isin([ours, theirs])]
        both = rankings(unpacked(part), against=theirs).set_index("attack")
        cost = part.groupby("attack")["gradients"].first()
        row: dict[str, object] = {"ours": ours, "theirs": short, "why": reasons[ours]}
        row |= {"mean_ours": both["mean"][ours], "mean_theirs": both["mean"][theirs]}
        for name in ("difference", "difference_low", "difference_high", "p"):
            row[name] = both[name][ours]
        row |= {"gradients_ours": cost[ours], "gradients_theirs": cost[theirs]}
        rows.append(row)
    found = pd.DataFrame(rows)
    return found.sort_values("difference", key=abs, ascending=False, ignore_index=True)


if __name__ == "__main__":
    pack(list(map(Path, sys.argv[1:])))
