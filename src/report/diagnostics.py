"""Statistics of the diagnostics and of users' measurements, and how the page shows them.

Each entry of `DIAGNOSTICS` states the statistic and its charts. A record is data: nothing that it
names is imported.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype
from scipy.special import stdtrit

from ..analysis import OWN, TRANSFER
from ..analysis.confidence import initial_confidence_effect
from ..analysis.diagnostics import (
    filtered_rates,
    low_pass_accuracy,
    pair_similarity,
)
from ..artifacts.finished_job import FinishedJob
from ..config.errors import explain
from ..config.sections import ChartSettings
from ..utils.formats import span
from ..utils.model_names import NO_DEFENCE, ModelRef
from ..utils.vocabulary import CONTROLS
from . import charts
from .charts.theme import MEAN
from .page.html import ENOUGH, OF_ATTACK, OF_PAIR, PageFigure
from .results import JobResults, Results
from .view import View, pairs_of

Rename = Callable[[str], str]
"""Gives a model a unique name if another job has a different model with the same name."""
Tables = Mapping[str, pd.DataFrame]
"""Statistics of all jobs, by name."""
_NYQUIST = 0.5


@dataclass(frozen=True)
class Diagnostic:
    """A statistic, and how the page shows it.

    Attributes:
        title: Title of the figure.
        caption: Caption, including the denominators. `{COLUMN}` stands for the values in a column
            of the drawn rows: least and largest number, or how many rows have each text.
        panels: Charts of the rows, one below another; each draws one column of values.
        keys: Columns that select rows, with the key of the selection that each follows.
        of_job: Computes the rows of one job from its table of this name.
        of_results: Computes the rows from the results.
        arranged: Returns the rows of all jobs that are drawn, in their order; by default all.
    """

    title: str
    caption: str
    panels: Sequence[ChartSettings]
    keys: Mapping[str, str] = field(default_factory=lambda: OF_PAIR)
    of_job: Callable[[pd.DataFrame, FinishedJob], pd.DataFrame] | None = None
    of_results: Callable[[Results], pd.DataFrame] | None = None
    arranged: Callable[[pd.DataFrame, View], pd.DataFrame] = lambda rows, _: rows

    def figure(self, name: str, rows: pd.DataFrame) -> PageFigure:
        """Draw the rows that can be drawn."""
        for panel in self.panels:
            rows = _drawable(rows, panel)
        height = 180 if len(self.panels) > 1 else 220
        layers: list[Any] = [charts.statistic(rows, panel, height) for panel in self.panels]
        chart = alt.concat(*layers, columns=1, spacing=24) if len(layers) > 1 else layers[0]
        parts = re.split(r"\{(\w+)\}", self.caption)
        parts[1::2] = [_said(rows[text]) if text in rows else text for text in parts[1::2]]
        return PageFigure(
            name.replace("_", "-"), self.title, "".join(parts), chart, rows, self.keys
        )


def _said(values: pd.Series) -> str:
    """Return the least and largest number, or how many rows have each text."""
    if is_numeric_dtype(values):
        return span(values.dropna())
    return ", ".join(f"{name} for {n}" for name, n in values.value_counts().items())


def _drawable(rows: pd.DataFrame, panel: ChartSettings) -> pd.DataFrame:
    """Return the rows with a value; logarithmic axes have no place for 0 and below."""
    low = f"{panel.y}_low"
    if panel.x_scale == "log" and is_numeric_dtype(rows[panel.x]):
        rows = rows[rows[panel.x] > 0]
    if panel.y_scale == "log":
        rows = rows[rows[panel.y] > 0]
        rows = rows.assign(**{low: rows[low].where(rows[low] > 0)}) if low in rows else rows
    return rows.dropna(subset=[panel.y, panel.x])


def statistics_of(result: JobResults, images: pd.DataFrame, rename: Rename) -> Tables:
    """Compute the statistics of a job, by name, with the columns `attack` and `source`.

    Those of users' measurements are named `own-NAME`. `images` are the job's `described_images`.
    """
    job, record = result.job, result.job.record
    users = record.config.get("measurements", {})
    tables = {"effects": initial_confidence_effect(images)}
    for name, rows in {"visibility": result.sizes, "excess": result.excess}.items():
        if len(rows):
            tables[name] = rows[rows["eps_255"] == record.reference]
    for name, diagnostic in DIAGNOSTICS.items():
        # A table of this name may be the user's.
        if diagnostic.of_job and name in job.tables and name not in users:
            tables[name] = diagnostic.of_job(job.table(name), job)
    if "low_passed" in tables:  # of models, whatever attacks them
        names = tables["low_passed"]["target"].astype(str).map(rename)
        tables["low_passed"] = tables["low_passed"].assign(target=names)
    tables |= {f"own-{name}": rows for name, rows in own_statistics(job).items()}
    origin = {"attack": job.attack, "source": record.source}
    return {
        name: rows.assign(**{key: value for key, value in origin.items() if key not in rows})
        for name, rows in tables.items()
        if len(rows)
    }


def why_figures(results: Results, choice: View, tables: Tables) -> Iterator[PageFigure]:
    """Yield the figures of the part Why from the statistics of all jobs."""
    made = {name: kind.of_results for name, kind in DIAGNOSTICS.items() if kind.of_results}
    rows = {**tables, **{name: compute(results) for name, compute in made.items()}}
    users = [name for name in tables if name.startswith("own-")]
    of_users = {name: _own(results, name.removeprefix("own-"), tables[name]) for name in users}
    for name, diagnostic in {**DIAGNOSTICS, **of_users}.items():
        points = diagnostic.arranged(rows[name], choice) if name in rows else pd.DataFrame()
        if len(points) and len((figure := diagnostic.figure(name, points)).data):
            yield figure


def own_statistics(job: FinishedJob) -> dict[str, pd.DataFrame]:
    """Compute the means of a job's own tables that have a chart, by name.

    Returns:
        Rows with the columns of the chart, the mean of its values `Y`, the 95 % t interval `Y_low`
        and `Y_high`, and the number of `images`.

    Raises:
        ValueError: The chart in the record is none, or does not fit the table.
    """
    statistics = {}
    for name in job.record.config["measurements"]:
        try:
            if chart := _chart_of(job, name):
                statistics[name] = _means(job.table(name).assign(source=job.record.source), chart)
        except ValueError as error:
            raise ValueError(f"{job.folder / name}.parquet: its chart: {explain(error)}") from error
    return statistics


def _chart_of(job: FinishedJob, name: str) -> ChartSettings | None:
    """Return the chart of a user's table, if the job has both."""
    chart = job.record.config["measurements"].get(name, {}).get("chart")
    return ChartSettings.model_validate(chart) if chart and name in job.tables else None


def _means(rows: pd.DataFrame, chart: ChartSettings) -> pd.DataFrame:
    """Compute the means over images of a table, by the columns of its chart."""
    y, keys = chart.y, [*dict.fromkeys(filter(None, (chart.x, chart.colour, chart.dash)))]
    chart.check(rows.columns)
    if y in keys or not is_numeric_dtype(rows[y]):
        raise ValueError(f"chart.y={y}: must be a column of numbers that the chart uses once")
    means = rows.groupby(keys, sort=False, observed=True)[y].agg(["mean", "sem", "count"])
    names = means.index.to_frame(index=False)
    half = means["sem"] * stdtrit((means["count"] - 1).clip(lower=1), 0.975)
    ends = {y: means["mean"], f"{y}_low": means["mean"] - half, f"{y}_high": means["mean"] + half}
    statistic = pd.DataFrame({"images": means["count"], **ends}).reset_index(drop=True)
    return statistic.assign(**{str(name): names[name] for name in names})


def _own(results: Results, name: str, rows: pd.DataFrame) -> Diagnostic:
    """Return the diagnostic of a user's table, as the first job with these rows draws it."""
    charts_ = filter(None, (_chart_of(job, name) for job in results.jobs))
    chart = next(c for c in charts_ if {c.x, c.y, c.colour, c.dash} <= {*rows, ""})
    keys = OF_ATTACK if "source" in (chart.x, chart.colour) else OF_PAIR
    caption = f"Mean of {chart.y} in the table {name}, over {{images}} images. 95 % t intervals."
    return Diagnostic(name.replace("_", " "), caption, [chart], keys)


def _effects(rows: pd.DataFrame, choice: View) -> pd.DataFrame:
    """Return the effects of enough images, attacks by rank; ticks of one attack show its source."""
    attacks = choice.options["attack"]
    rows = rows[rows["n"] >= ENOUGH]
    rows = rows.sort_values("attack", key=lambda x: x.map(attacks.index), kind="stable")
    return rows.assign(ticks=rows["attack" if len(attacks) > 1 else "source"])


def _similarity(table: pd.DataFrame, job: FinishedJob) -> pd.DataFrame:
    """Compute the similarity of each pair of enough images, and its success."""
    record = job.record
    pair = record.source, record.targets
    rows = pair_similarity(job.predictions, table, *pair, record.reference, record.protocol)
    return rows[(rows["relation"] == TRANSFER) & (rows["n"] >= ENOUGH)]


def _filtered(table: pd.DataFrame, job: FinishedJob) -> pd.DataFrame:
    """Compute the success of each frequency band, and its excess over the same band of noise."""
    record = job.record
    rows = filtered_rates(table, job.predictions, record.source, record.targets, record.protocol)
    rows = rows[rows["denominator"] >= ENOUGH]
    return rows.assign(band=rows["band"].replace("all", "whole"))


def _spectra(table: pd.DataFrame, job: FinishedJob) -> pd.DataFrame:
    """Return the means over images that the table holds, with the centre of each band."""
    centre = (table["frequency_low"] + table["frequency_high"]) / 2
    of = np.where(table["kind"] == "image", "(clean images)", job.record.source)
    return table.assign(frequency=centre, of=of)


def _low_passed(table: pd.DataFrame, job: FinishedJob) -> pd.DataFrame:
    """Compute each model's accuracy on clean images without high frequencies, by cutoff."""
    rows = job.predictions
    clean = rows[(rows["eps_255"] == 0) & (rows["defence"] == NO_DEFENCE)]
    accuracies = low_pass_accuracy(table, clean)
    return accuracies.assign(at=accuracies["cutoff"].clip(upper=_NYQUIST))  # inf: unfiltered


def _visibility(rows: pd.DataFrame, choice: View) -> pd.DataFrame:
    """Return the ranked attacks with the similarity of clean and adversarial images."""
    means = choice.overall[choice.overall["reference"] & (choice.overall["source"] == MEAN)]
    columns = [*_JOB, "psnr", "ssim", "rms_255"]
    both = pd.concat([rows[columns], means[columns].dropna(subset="ssim")])
    points = choice.first_ranking.merge(both, on=_JOB).dropna(subset="mean")
    points = points.assign(rms_255=points["rms_255"].round(2), n=rows["images"].max())
    return points.rename(columns={"low": "mean_low", "high": "mean_high"})


def _defences(results: Results) -> pd.DataFrame:
    """Return the accuracy behind each defence, clean and attacked, if there are defences."""
    rates = pairs_of(results.primary_rows)
    if (rates["defence"] == NO_DEFENCE).all():
        return rates.iloc[:0]
    clean = rates[(rates["protocol"] == "all") & (rates["eps_255"] == 0)].assign(images="clean")
    rows = pd.concat([clean, rates[rates["reference"]].assign(images="attacked")])
    mark = rows["relation"].map({OWN: " (own)"}).fillna("")
    pairs = map(ModelRef.parse, rows["target"], rows["defence"])
    rows = rows.assign(target=list(map(str, pairs)) + mark)
    return rows.sort_values("target", kind="stable")


def _variants(results: Results) -> pd.DataFrame:
    """Return the success in each storage format and of the controls, if there are several."""
    rates = pairs_of(results.over_seeds)
    rows = rates[rates["reference"] & (rates["defence"] == NO_DEFENCE)]
    rows = rows.assign(variant=rows["variant"].replace(CONTROLS))
    return rows if rows["variant"].nunique() > 1 else rows.iloc[:0]


def panel_of(y: str, x: str, colour: str, more: Mapping[str, Any], **titles: str) -> ChartSettings:
    """Return the chart of shares; `more` are further settings, and `titles` those of columns."""
    settings = {"y": y, "x": x, "colour": colour, "percent": True, "titles": titles}
    return ChartSettings(**{**settings, **more})


_JOB = ["attack", "source"]
_ROWS, _POINTS = {"marks": "rows"}, {"marks": "points"}
_TICKS = {"marks": "ticks", "percent": False}
_CUTOFF = "frequencies kept (cycles per pixel; last: everything)"
_SPECTRA = {"share": "share of power", "of": "perturbations from"}
_SPECTRA |= {"frequency": "spatial frequency (cycles per pixel)"}

DIAGNOSTICS = {
    "effects": Diagnostic(
        "Initial confidence and minimum budget, all pairs",
        "Spearman's correlation between initial confidence and minimum adversarial budget, over "
        "{n} initially correct images. Right of 0, more confident images need a larger budget. "
        "Pairs: {verdict} (95 % intervals, not corrected).",
        [panel_of("rho", "target", "ticks", _TICKS, rho="rank correlation", ticks="")],
        {},
        arranged=_effects,
    ),
    "similarity": Diagnostic(
        "Transfer and similarity of models",
        "Share fooled at the reference budget, over the mean cosine between the loss gradients of "
        "source and target on {n} clean images, and over the consistency of their errors. 95 % "
        "Wilson intervals. Pairs share models and images.",
        [
            panel_of("success_rate", x, "source", _POINTS, **{x: title, "success_rate": "fooled"})
            for x, title in (
                ("cosine", "mean cosine of gradients"),
                ("kappa", "error consistency (Cohen's kappa)"),
            )
        ],
        OF_ATTACK,
        of_job=_similarity,
    ),
    "filtered": Diagnostic(
        "Frequency bands compared with noise",
        "Share of images fooled by the low, mid and high frequencies of a perturbation, minus the "
        "share fooled by the same band of random-sign noise. Each band is scaled to the L2 norm of "
        "the noise; the whole perturbation is not scaled. {denominator} images; 95 % intervals "
        "(Tango).",
        [panel_of("excess", "target", "band", _ROWS, excess="fooled beyond filtered noise")],
        of_job=_filtered,
    ),
    "spectra": Diagnostic(
        "Power spectra of images and perturbations",
        "Mean share of power by spatial frequency, for {n} images and for the perturbations at the "
        "reference budget. The constant part is left out.",
        [panel_of("share", "frequency", "of", {"y_scale": "log"}, **_SPECTRA)],
        OF_ATTACK,
        of_job=_spectra,
        arranged=lambda rows, _: rows.sort_values("kind", ascending=False, kind="stable"),
    ),
    "low_passed": Diagnostic(
        "Accuracy on low-passed clean images",
        "Accuracy on clean images without frequencies above the cutoff. {n} images, 95 % Wilson "
        "intervals.",
        [panel_of("accuracy", "at", "target", {}, accuracy="", at=_CUTOFF, target="model")],
        {},
        of_job=_low_passed,
        arranged=lambda rows, _: rows.drop_duplicates(["target", "cutoff"]).drop(columns=_JOB),
    ),
    "visibility": Diagnostic(
        "Success over visibility",
        "Mean share fooled at the reference budget, over the similarity of up to {n} clean "
        "and adversarial images. RMS of the changes: {rms_255} / 255.",
        [
            panel_of("mean", x, "attack", {**_POINTS, "names": True}, **{x: title, "mean": ""})
            for x, title in (("ssim", "SSIM (1: unchanged)"), ("psnr", "PSNR in dB"))
        ],
        {},
        arranged=_visibility,
    ),
    "defences": Diagnostic(
        "Behind defences",
        "Accuracy behind each defence, on clean images and at the reference budget; 95 % Wilson "
        "intervals. A plain transfer attack says little about attackers who know the defence: set "
        "source_defence=NAME to attack the source behind it. (own): the source's network behind "
        "another defence.",
        [panel_of("robust_accuracy", "target", "images", _ROWS, robust_accuracy="still correct")],
        of_results=_defences,
    ),
    "variants": Diagnostic(
        "Storage and controls",
        "Share fooled at the reference budget, in each storage format and by the controls. "
        "{denominator} images; 95 % Wilson intervals.",
        [panel_of("success_rate", "target", "variant", _ROWS, success_rate="success rate")],
        of_results=_variants,
    ),
    "excess": Diagnostic(
        "Beyond the controls",
        "Share fooled by the attack minus share fooled by the control, at the reference budget, on "
        "the same images ({denominator}); 95 % intervals (Tango).",
        [panel_of("excess", "target", "control", _ROWS, excess="fooled beyond the control")],
        arranged=lambda rows, _: rows.assign(control=rows["control"].replace(CONTROLS)),
    ),
}
"""Diagnostics by the name of their table or statistic, in the order of the page."""
