"""Numbers of the stored tables, as the documentation words them."""

import json
from collections.abc import Sequence
from functools import cached_property
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from altair.typing import ChartType
from rich.console import Console

from findings.paired_tests import both_ways, holm, paired_tests
from src import analysis
from src.analysis import wilson_interval
from src.artifacts import FinishedJob
from src.report import (
    build_report,
    compute_page_data,
    open_results,
    print_matrices,
    results_of,
    theme,
)

WIDTH = 120
"""Characters of a line of a matrix."""
CLOSER = "flips"
"""Table of minimum budgets between those of the grid."""


class Sweep:
    """The results of the stored jobs of a folder of tables."""

    def __init__(self, folder: Path) -> None:
        self.results = open_results(folder)
        self.jobs = self.results.jobs

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The report's tables of statistics, and paired `tests`."""
        tests = [paired_tests(group) for group in self.results.outcomes().values()]
        tables = dict(compute_page_data(self.results).tables)
        if any(CLOSER in job.tables for job in self.jobs):
            images = {(job.attack, job.record.source): describe_images(job) for job in self.jobs}
            effects = {pair: analysis.initial_confidence_effect(images[pair]) for pair in images}
            tables["effects"] = pd.concat(effects, names=["attack", "source"]).reset_index()
        return {**tables, "tests": pd.concat(tests, ignore_index=True)}

    def row(self, table: str, **where: object) -> pd.Series:
        """Return the one row of a table where columns have these values."""
        rows = self.results.rates if table == "rates" else self.tables[table]
        for column, value in where.items():
            rows = rows[rows[column] == value]
        if len(rows) != 1:
            raise ValueError(f"{table} has {len(rows)} rows where {where}.")
        return rows.iloc[0]

    def rates(
        self, attack: str, source: str, target: str, eps_255: float | None = None
    ) -> pd.Series:
        """Return a pair's rates under the protocol `joint`; budget None: the reference."""
        pair = {"attack": attack, "source": source, "target": target, "protocol": "joint"}
        eps_255 = self.jobs[0].record.reference if eps_255 is None else eps_255
        return self.row("rates", **pair, eps_255=eps_255, variant="float32")

    def success(self, attack: str, source: str, target: str) -> str:
        """Write a pair's success with its denominator and 95 % interval."""
        row = self.rates(attack, source, target)
        low, high = 100 * row["success_rate_low"], 100 * row["success_rate_high"]
        counts = f"{row['success']} / {row['denominator']}"
        return f"{counts} = {row['success_rate']:.0%} ({low:.0f}-{high:.0f})"

    def matrix(self, attack: str) -> str:
        """Write an attack's matrix as the terminal shows it."""
        console = Console(file=StringIO(), width=WIDTH, record=True)
        print_matrices(results_of([job for job in self.jobs if job.attack == attack]), console)
        return "\n".join(line.rstrip() for line in console.export_text().strip().splitlines())

    def images(self, attack: str, source: str, target: str) -> pd.DataFrame:
        """Return the rows of `describe_images` of a pair."""
        job = next(job for job in self.jobs if (job.attack, job.record.source) == (attack, source))
        images = describe_images(job)
        return images[images["target"] == target]

    def attacks(self, *, targeted: bool = False) -> list[str]:
        """Return the names of the attacks, in the order of the jobs, with target labels or none."""
        rates = self.results.rates
        return list(dict.fromkeys(rates.loc[rates["targeted"] == targeted, "attack"]))

    def against(self, baseline: str, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
        """Compare every untargeted attack with one of them, of its norm, on the same images.

        Returns:
            A row per other attack and pair: `attack`, `source`, `target`, `difference` of the
            success rates with Tango's interval, and McNemar's exact `p` and `p_holm`, corrected
            for all of these rows.
        """
        rows = both_ways(self.tables["tests"])
        rows = rows[rows["second"] == baseline].rename(columns={"first": "attack"})
        rows = rows[[pair in pairs for pair in zip(rows["source"], rows["target"], strict=True)]]
        return rows.assign(p_holm=holm(rows["p"]))

    def chart(self, name: str) -> ChartType:
        """Return a chart of the report, with the rows that the page shows first."""
        figure = next(one for one in build_report(self.results).figures if one.name == name)
        rows = figure.data
        for column in figure.keys:
            rows = rows[rows[column] == rows[column].iloc[0]]
        records = json.loads(rows.to_json(orient="records"))
        return figure.chart.properties(datasets={"rows": records}).configure(**theme())


def describe_images(job: FinishedJob) -> pd.DataFrame:
    """Describe every image of a job over the budgets, by `trajectories`.

    A stored table `flips` has minimum budgets between those of the grid, which take their place.
    """
    record, pair = job.record, ["target", "index"]
    images = analysis.trajectories(job.predictions, record.source, record.targets, "joint")
    if CLOSER not in job.tables:
        return images
    closer = images[pair].merge(job.table(CLOSER)[[*pair, "eps_255"]], how="left")["eps_255"]
    first = images["first_flip_eps_255"].combine(closer, np.fmin)
    dips = images["dip_and_recovery"] & first.isna()
    return images.assign(first_flip_eps_255=first, dip_and_recovery=dips, below_8_bits=first < 1)


def beside_published(
    published: pd.DataFrame, sweep: Sweep, eps_255: float
) -> tuple[tuple[float, float], int]:
    """Compare what other models' FGSM images leave right with published counts.

    Returns:
        The smallest and the largest difference, ours minus theirs, in points; and of how many
        pairs Newcombe's 95 % interval of the difference of two independent rates leaves 0 out.
    """
    found = []
    for row in published[published["source"] != published["target"]].to_dict("records"):
        own = sweep.rates("fgsm", row["source"], row["target"], eps_255)
        pair = [(int(each["still_correct"]), int(each["denominator"])) for each in (own, row)]
        k, n = map(np.array, zip(*pair, strict=True))
        (p, q), (low, high) = k / n, wilson_interval(k, n)
        least = p - q - np.hypot(p - low[0], high[1] - q)
        most = p - q + np.hypot(q - low[1], high[0] - p)
        found.append((100 * (p - q), least > 0 or most < 0))
    differences, beyond = zip(*found, strict=True)
    return (min(differences), max(differences)), sum(beyond)


def span(row: pd.Series, name: str, scale: float = 1, form: str = ".2f") -> str:
    """Write a value with its 95 % interval, such as `0.84 [0.79, 0.88]`."""
    value, low, high = (f"{scale * row[f'{name}{end}']:z{form}}" for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def difference(against: pd.DataFrame, attack: str, source: str, target: str) -> str:
    """Write a row of `Sweep.against` in points; nothing for those not compared."""
    pair = (against["source"] == source) & (against["target"] == target)
    rows = against[pair & (against["attack"] == attack)]
    return "".join(
        f"{span(row, 'difference', 100, '.0f')}, {p_value(row['p_holm'])}"
        for _, row in rows.iterrows()
    )


def p_value(p: float) -> str:
    """Write a p-value.

    >>> p_value(0.00001), p_value(0.0312)
    ('p < 0.0001', 'p = 0.03')
    """
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.1g}"
