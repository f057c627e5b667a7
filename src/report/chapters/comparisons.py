"""Pairs against each other: areas, paired tests, asymmetry, Hypothesis 1 over all pairs."""

import math
from collections.abc import Sequence

import pandas as pd

from src.analysis import is_white_box
from src.analysis.areas import FEWEST_IMAGES, curve_areas
from src.analysis.comparisons import Compared, asymmetry, paired_tests
from src.analysis.hypothesis import Effect
from src.report.bin_figures import effects_figure
from src.report.chapters.drawing import drawn
from src.report.content import Section, Table
from src.report.stored import StoredJob

_TESTS_SHOWN = 60


def hypothesis_section(effects: Sequence[Effect]) -> Section:
    """Answer Hypothesis 1, images with a high initial confidence are harder to manipulate."""
    frame = pd.DataFrame([vars(effect) for effect in effects])
    frame["white_box"] = [is_white_box(effect.source, effect.target) for effect in effects]
    by_attack = [
        f"under {attack} it is {_counts(rows['verdict'])} of {len(rows)} pairs of source and target"
        for attack, rows in frame.groupby("attack", sort=False)
    ]
    text = (
        "Hypothesis 1: images with a high initial confidence are harder to manipulate. "
        f"{'; '.join(by_attack).capitalize()}. Each interval is of one pair; the intervals are not "
        "corrected for the number of pairs.",
    )
    return Section(
        id="hypothesis",
        title="Are confident images harder to manipulate?",
        text=text,
        drawings=(
            drawn(
                "hypothesis",
                "Rank correlation of initial confidence and smallest flipping budget",
                "Spearman's rho with its 95 % bootstrap interval for every pair; above 0, more "
                "confident images need a larger budget.",
                "; ".join(
                    f"{e.attack} from {e.source} to {e.target}: {e.rho:.2f} "
                    f"[{e.rho_low:.2f}, {e.rho_high:.2f}], n = {e.n}"
                    for e in effects
                    if not math.isnan(e.rho)
                ),
                lambda: effects_figure(frame),
                frame.drop(columns="sentence"),
            ),
        ),
    )


def _counts(verdicts: pd.Series) -> str:
    return ", ".join(f"{verdict} for {count}" for verdict, count in verdicts.value_counts().items())


def comparison_section(jobs: Sequence[StoredJob]) -> Section:
    """Compare pairs on the same images.

    Args:
        jobs: Of one data set, headline budget and protocol.
    """
    standard, protocol = jobs[0].record.standard, jobs[0].record.protocol
    compared = [Compared(job.attack, job.record.source, job.predictions) for job in jobs]
    tests = paired_tests(compared, standard, protocol)
    gaps = asymmetry(compared, standard, protocol)
    tables = [_area_table(jobs)]
    if len(tests):
        tables.append(_test_table(tests, standard))
    if len(gaps):
        tables.append(_asymmetry_table(gaps, standard))
    return Section(
        id="comparisons",
        title="Attacks, sources and directions compared",
        text=(
            "Differences are of the success rate on the same images, with Tango's 95 % interval "
            "for paired proportions; p is of the two-sided exact McNemar test, corrected by Holm "
            "over all tests of the same table and kind.",
        ),
        tables=tuple(tables),
    )


def _area_table(jobs: Sequence[StoredJob]) -> Table:
    parts = []
    for job in jobs:
        record = job.record
        areas = curve_areas(job.predictions, record.source, record.targets, record.protocol)
        parts.append(areas.assign(attack=job.attack, source=record.source))
    numbers = pd.concat(parts, ignore_index=True)
    first = ["attack", "source", "target", "n"]
    numbers = numbers[[*first, *(column for column in numbers if column not in first)]]
    shown = numbers[["attack", "source", "target"]].copy()
    shown["images"] = [str(int(n)) for n in numbers["n"]]
    for name, words in (
        ("robust_accuracy_area", "area under robust accuracy"),
        ("success_rate_area", "area under success rate"),
        ("true_confidence_area", "area under confidence in the true class"),
    ):
        shown[words] = [
            _with_interval(value, low, high)
            for value, low, high in numbers[[name, f"{name}_low", f"{name}_high"]].to_numpy(float)
        ]
    return Table(
        name="areas",
        title="Areas under the curves",
        caption="Mean over the budgets from 0 to the largest one, by trapezoids; brackets: 95 % "
        f"intervals over the images (Gaffke), none where n < {FEWEST_IMAGES}.",
        frame=shown,
        data=numbers,
    )


def _test_table(tests: pd.DataFrame, standard: float) -> Table:
    order = tests.sort_values("p_holm", kind="stable").head(_TESTS_SHOWN)
    cut = "" if len(order) == len(tests) else f" The {len(order)} smallest p of {len(tests)}."
    shown = pd.DataFrame(
        {
            "compared": order["kind"],
            "with the same": order["common"],
            "shown to": order["target"],
            "first": _marked(order, "first"),
            "second": _marked(order, "second"),
            "successes": [
                f"{a} and {b} of {n}"
                for a, b, n in zip(
                    order["first_success"], order["second_success"], order["n"], strict=True
                )
            ],
            "difference": _differences(order),
            "p (Holm)": [_p(value) for value in order["p_holm"]],
        }
    )
    return Table(
        name="paired-tests",
        title=f"Attacks and sources on the same images, {standard:g}/255",
        caption="Images counted for both sides, so with two sources those that both sources and "
        f"the target get right.{cut}",
        frame=shown,
        data=tests,
    )


def _marked(tests: pd.DataFrame, side: str) -> list[str]:
    """Return the names on one side, of a source that is the target's white box with that word."""
    return [
        f"{row[side]} (white box)"
        if row["kind"] == "source" and is_white_box(row[side], row["target"])
        else row[side]
        for row in tests.to_dict("records")
    ]


def _asymmetry_table(gaps: pd.DataFrame, standard: float) -> Table:
    shown = pd.DataFrame(
        {
            "attack": gaps["attack"],
            "from, to": [f"{a} to {b}" for a, b in zip(gaps["first"], gaps["second"], strict=True)],
            "there": [f"{k} of {n}" for k, n in zip(gaps["forward"], gaps["n"], strict=True)],
            "back": [f"{k} of {n}" for k, n in zip(gaps["backward"], gaps["n"], strict=True)],
            "difference": _differences(gaps),
            "p (Holm)": [_p(value) for value in gaps["p_holm"]],
        }
    )
    return Table(
        name="asymmetry",
        title=f"Asymmetry of transfer, {standard:g}/255",
        caption="Successes from the first model to the second (there) and from the second to the "
        "first (back), on the images counted both ways.",
        frame=shown,
        data=gaps,
    )


def _differences(frame: pd.DataFrame) -> list[str]:
    rows = frame[["difference", "difference_low", "difference_high"]].to_numpy(dtype=float)
    return [_with_interval(value, low, high, "+") for value, low, high in rows]


def _with_interval(value: float, low: float, high: float, sign: str = "") -> str:
    if pd.isna(value):
        return "n/a"
    if pd.isna(low):
        return f"{value:{sign}.1%}"
    return f"{value:{sign}.1%} [{low:{sign}.1%}, {high:{sign}.1%}]"


def _p(value: float) -> str:
    if pd.isna(value):
        return "n/a"
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"
