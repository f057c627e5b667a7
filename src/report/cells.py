"""Cells of a table by attack, source, target and defence, with marks for the best attacks."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from src.analysis import TRANSFER
from src.analysis.image_outcomes import ImageOutcomes, image_outcomes, joined
from src.analysis.quantities import QUANTITIES
from src.analysis.ranking import rankings
from src.analysis.strongest import strongest_attackers
from src.analysis.visibility import mean_visibility
from src.report.summary import JobSummary, mean_over_seeds, primary_rates

AXES = ("attack", "source", "target", "defence")
_DEFAULT_FIRST = sorted(QUANTITIES.values(), key=lambda quantity: quantity.value != "success")
VALUES = {quantity.value: quantity for quantity in _DEFAULT_FIRST if quantity.value}
"""The quantities that cells can show, by the name that users type."""
AVERAGE, DIFFERENCE = "average", "difference"
_NEAR = 1e-9
_ENDS = [DIFFERENCE, f"{DIFFERENCE}_low", f"{DIFFERENCE}_high"]
STRONGEST = {"strongest per set": "best", "strongest per image": "any"}
"""Rows for the strongest attacker, and the columns of `strongest_attackers` that they show."""


@dataclass(frozen=True)
class Cells:
    """The numbers of jobs at one budget and under one protocol, for a table.

    Attributes:
        pairs: One row per attack, source, target and defence, with the columns of rates and, if
            there are several seeds, `seed=N`: the value for each seed.
        outcomes: Outcomes per image, for each group of comparable jobs.
        value: One of `VALUES`.
    """

    pairs: pd.DataFrame
    outcomes: Sequence[ImageOutcomes]
    value: str

    def behind(self, defence: str) -> "Cells":
        """Return the cells for targets behind one defence."""
        if defence not in (known := list(self.pairs["defence"].unique())):
            raise ValueError(f"defence={defence}: choose from {', '.join(known)}.")
        pairs = self.pairs[self.pairs["defence"] == defence]
        outcomes = [outcome.select(defence=defence) for outcome in self.outcomes]
        return replace(self, pairs=pairs, outcomes=outcomes)

    def table(self, keys: Sequence[str]) -> pd.DataFrame:
        """Compute one row per cell of these axes: means over the pairs of different networks.

        The columns are `keys` and `value`; `low` and `high` for a single pair; `white`, whether
        there are only white boxes; `least` and `most`, the range of image counts; `seed=N`, the
        value for each seed; `partial`, whether the mean lacks sources or targets that another cell
        has; `best` and `undecided` (not significantly weaker) attacks, see `rankings`.
        """
        cell_rows, seeds = [], seeds_of(self.pairs)
        for place, rows in self.pairs.groupby(list(keys), sort=False):
            transfer = rows[rows["relation"] == TRANSFER]
            used = transfer if len(transfer) else rows
            single = ~used["source"].str.contains("+", regex=False)
            used = used[single] if single.any() else used  # ensembles are ranked apart
            column, first = VALUES[self.value].column, used.iloc[0]
            if column not in used:
                raise ValueError(f"value={self.value}: run the jobs with diagnostics=full.")
            ends = [first.get(f"{column}_{end}", np.nan) for end in ("low", "high")]
            known = used[[column, *seeds]].notna()
            # Targets weigh equally. A seed that lacks a pair has no mean.
            means = used.groupby("target")[[column, *seeds]].mean().mean()
            mean, *of_seeds = means.where(known.all() | (means.index == column))
            numbers = (mean, *(ends if len(used) == 1 else (np.nan, np.nan)))
            counts = (not len(transfer), used["denominator"].min(), used["denominator"].max())
            cell_rows.append((*place, *numbers, *counts, *of_seeds))
        names = ["value", "low", "high", "white", "least", "most", *seeds]
        cells = pd.DataFrame(cell_rows, columns=[*keys, *names])
        averaged = [axis for axis in ("source", "target") if axis not in keys]
        return self.marked(with_partial(cells, self.pairs, keys, averaged), keys)

    def marked(self, cells: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
        """Mark the best of the comparable attacks in each group of cells that agree on `keys`.

        Add the `difference` from the first in the group's ranking with its simultaneous interval. A
        mean over targets is that of the ranking, which counts the same images for all attacks.
        """
        cells = cells.assign(best=False, undecided=False, **dict.fromkeys(_ENDS, np.nan))
        if "attack" not in keys or self.value not in ("success", "accuracy"):
            return cells
        sign, shared = 1 if self.value == "success" else -1, [k for k in keys if k != "attack"]
        shown = cells[~cells["white"]]
        for place in shown[shared].drop_duplicates().to_dict("records") if shared else [{}]:
            group, done = _where(shown, place), set[int]()
            for outcomes in self.outcomes:
                ranked = rankings(
                    outcomes.select(**{str(key): name for key, name in place.items()})
                )
                for _, rows in ranked.groupby(["kind", "defence"], sort=False):
                    first = rows[rows["source"] == rows["source"].iloc[0]]  # the mean over sources
                    first = first[first["rank"].notna()]
                    its = group[group["attack"].isin(first["attack"]) & ~group.index.isin(done)]
                    if its.empty:
                        continue
                    row_of = first.set_index("attack").loc[its["attack"]]
                    means = row_of["mean"].to_numpy(np.float64)
                    if first["kind"].iloc[0].startswith("untargeted"):
                        means = means if sign == 1 else 1 - means
                        if np.abs(its["value"] - means).max() > _NEAR:
                            continue  # the cells are of other pairs than the ranking
                    elif sign == -1:
                        continue  # tests are of success, which is not its complement
                    elif "target" not in keys:
                        cells.loc[its.index, "value"] = means
                    done |= {*its.index}  # ensembles, if there are single sources
                    cells.loc[its.index, _ENDS] = row_of[_ENDS].to_numpy()
                    values = sign * cells.loc[its.index, "value"]
                    if np.ptp(values) > _NEAR:
                        cells.loc[its.index[values > values.max() - _NEAR], "best"] = True
                        tested = first["p"].notna().any()
                        undecided = first.loc[first["undecided"] & tested, "attack"]
                        cells.loc[its.index[its["attack"].isin(undecided)], "undecided"] = True
        return cells.assign(undecided=cells["undecided"] & ~cells["best"])

    def strongest(self) -> pd.DataFrame:
        """Return one row per target and defence for each of the `STRONGEST` untargeted attackers.

        The rows come from `strongest_attackers`; `attack` is the name in `STRONGEST`, and the other
        columns are those of `pairs` that a cell shows.
        """
        if len(self.outcomes) > 1:
            raise ValueError("strongest needs jobs on the same images, with one norm and budget.")
        attackers = strongest_attackers(self.outcomes[0].of_first_seeds())
        if attackers.empty:
            raise ValueError("strongest needs a target other than the source.")
        attackers = attackers[~attackers["targeted"]]
        parts = []
        for name, value in STRONGEST.items():
            ends = [attackers[f"{value}{end}"] for end in ("", "_low", "_high")]
            if self.value == "accuracy":
                ends = [1 - ends[0], 1 - ends[2], 1 - ends[1]]
            numbers = dict(zip(("value", "low", "high"), ends, strict=True))
            common = {"least": attackers["images"], "most": attackers["images"], "white": False}
            names = {"target": attackers["target"], "defence": attackers["defence"]}
            place = {"attack": name, "source": "", **names}
            parts.append(pd.DataFrame({**place, **numbers, **common}))
        return pd.concat(parts, ignore_index=True).assign(
            **dict.fromkeys(("partial", "best", "undecided"), False)
        )


def seeds_of(cells: pd.DataFrame) -> list[str]:
    """Return the columns with the values for single seeds."""
    return [name for name in cells.columns.unique(0) if name.startswith("seed=")]


def with_partial(
    cells: pd.DataFrame, rows: pd.DataFrame, keys: Sequence[str], averaged: Sequence[str]
) -> pd.DataFrame:
    """Add `partial`: whether a mean over the `averaged` axes lacks names that another mean has."""
    if not averaged:
        return cells.assign(partial=False)
    lacking = rows.groupby([*keys, *averaged]).size().unstack([*averaged]).isna().any(axis=1)
    return cells.join(lacking.rename("partial"), on=[*keys])


def _where(rows: pd.DataFrame, place: Mapping[Hashable, str]) -> pd.DataFrame:
    """Return the rows with these values in these columns."""
    for key, name in place.items():
        rows = rows[rows[key] == name]
    return rows


def cells_of(
    jobs: Sequence[JobSummary], value: str, eps_255: float | None, protocol: str | None
) -> Cells:
    """Collect the cells of attacked jobs; None means each job's own budget or protocol."""
    pairs, outcomes = [], defaultdict[str, list[ImageOutcomes]](list)
    for summary in jobs:
        parts, column = [], VALUES[value].column
        for seed in summary.seeds or [summary]:
            parts.append(_at(seed, eps_255, protocol))
            record = seed.job.record
            eps = record.reference if eps_255 is None else eps_255
            names = (summary.job.attack, record.source, record.targets, protocol or record.protocol)
            outcome = image_outcomes(seed.job.defended, *names)[eps]
            outcome.leave_out(summary.left_out)
            outcomes[summary.group].append(outcome)
            seed.job.forget()
        rows = mean_over_seeds(parts) if summary.seeds else parts[0]
        for seed, part in zip(summary.seeds, parts, strict=False):
            rows[f"seed={seed.job.record.seed}"] = part.get(column)
        pairs.append(rows)
    return Cells(pd.concat(pairs, ignore_index=True), list(map(joined, outcomes.values())), value)


def _at(summary: JobSummary, eps_255: float | None, protocol: str | None) -> pd.DataFrame:
    """Return the rates of a job with one seed, and the size of its perturbations if known."""
    job, record = summary.job, summary.job.record
    eps = record.reference if eps_255 is None else eps_255
    counted, rates = protocol or record.protocol, primary_rates([summary])
    rates = rates[rates["eps_255"] > 0]
    at = rates[(rates["eps_255"] == eps) & (rates["protocol"] == counted)]
    if at.empty:
        known = [", ".join(map(str, rates[key].unique())) for key in ("eps_255", "protocol")]
        raise ValueError(
            f"eps_255={eps:g}, protocol={counted}: {job.attack} on {record.source} has the "
            f"budgets {known[0]} and the protocols {known[1]}."
        )
    if "visibility" in job.files:
        at = at.merge(mean_visibility(job.table("visibility")).drop(columns="images"), on="eps_255")
    return at.reset_index(drop=True)
