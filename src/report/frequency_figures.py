"""Figures about why attacks transfer: frequencies of images and perturbations."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from src.analysis import is_white_box
from src.analysis.frequency import BANDS, SPLIT
from src.report.low_pass_figure import low_pass_figure
from src.report.similarity_figure import similarity_figure
from src.report.style import (
    INK,
    LINE_STYLES,
    MARKERS,
    PALETTE,
    SMALL_SIZE,
    TEXT_SIZE,
    WHISKER,
    add_title,
    budget,
    count_range,
    drawable,
    model_name,
    percent_axis,
    percents,
    tidy,
)

__all__ = ["filtered_figure", "low_pass_figure", "similarity_figure", "spectra_figure"]

_IMAGE = "#8A8A8A"
_BAND_WORDS = {"all": "whole", "low": "low", "band": "middle", "high": "high"}
_NORM_WORDS = {"linf": "equal largest change (L-infinity)", "l2": "equal L2 norm"}
_SHORT = 20  # characters of names beside the panels
_KEPT = "frequencies kept (cycles per pixel)"
_FREQUENCY = "spatial frequency (cycles per pixel)"


def spectra_figure(frame: pd.DataFrame) -> Figure:
    """Draw at which spatial frequencies images and perturbations have their power.

    Args:
        frame: Tables `spectra` of jobs below each other: columns `source`, `attack`, `kind`
            ("image" or "perturbation"), `eps_255`, `frequency_low`, `frequency_high` (cycles per
            pixel), `coefficients`, `n` and `share` in [0, 1].

    Returns:
        Figure with the share of power per frequency bin on a logarithmic axis, in per cent: the
        images in grey, perturbations coloured by source with a line style for each attack, and
        dotted what white noise would have. Bins without power are left out.

    Raises:
        ValueError: If no bin has power, or a column is missing.
    """
    columns = ["source", "attack", "kind", "frequency_low", "frequency_high", "coefficients", "n"]
    rows = drawable(frame, columns, ["eps_255", "share"])
    rows = rows[rows["share"] > 0]
    if rows.empty:
        raise ValueError("there is nothing to draw: no spectrum has power at any frequency.")
    figure = Figure(figsize=(8.6, 4.6), layout="constrained")
    axes = figure.subplots()
    tidy(axes)
    axes.set_yscale("log")
    narrow = rows["share"].max() < 1000 * rows["share"].min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    _image_lines(axes, rows[rows["kind"] == "image"])
    made = rows[rows["kind"] == "perturbation"]
    budgets = sorted(made["eps_255"].unique())
    _perturbation_lines(axes, made, several=len(budgets) > 1)
    _white_noise(axes, frame)
    split = f"{SPLIT:g} cycles per pixel"
    axes.axvline(SPLIT, color=INK, linewidth=0.9, linestyle=(0, (6, 4)), label=split)
    axes.set_xlim(left=0)
    axes.set_xlabel(_FREQUENCY, fontsize=TEXT_SIZE)
    axes.set_ylabel("share of the power in each bin (%)", fontsize=TEXT_SIZE)
    figure.legend(loc="outside right center", fontsize=SMALL_SIZE, frameon=False, handlelength=2.8)
    at = f"perturbations at $\\epsilon$ = {budget(budgets[0])}" if len(budgets) == 1 else None
    add_title(figure, "power spectra", at)
    return figure


def filtered_figure(frame: pd.DataFrame, norm: str = "l2") -> Figure:
    """Draw how often parts of the perturbations succeed, and by how much more often than noise.

    Args:
        frame: Results of `src.analysis.frequency.filtered_rates` below each other, with the
            columns `attack` and `source`.
        norm: In which the parts have the size of the whole, one of `NORMS`.

    Returns:
        Figure with a row per attack and source: success rates in per cent, grouped by band, with
        95 % Wilson intervals and a bar across at the rate of noise; beside them the excess over
        noise with its 95 % interval. White boxes are hatched or hollow.

    Raises:
        ValueError: If no pair has a success rate, or a column is missing.
    """
    columns = ["attack", "source", "target", "band", "norm", "frequency_low", "frequency_high"]
    columns += ["n", "success_rate_low", "success_rate_high", "noise_success_rate"]
    columns += ["excess", "excess_low", "excess_high"]
    known = drawable(frame, columns, ["success_rate"])
    jobs = list(dict.fromkeys(zip(frame["attack"], frame["source"], strict=True)))
    known = known[known["norm"] == norm]
    bands = [band for band in BANDS if (known["band"] == band).any()]
    if not bands:
        raise ValueError(
            f"there is nothing to draw: no row has the norm {norm} and one of the bands "
            f"{', '.join(BANDS)}."
        )
    targets = list(dict.fromkeys(frame["target"]))
    bounds = known[["band", "frequency_low", "frequency_high"]].drop_duplicates()
    figure = Figure(figsize=(8.6, 1.9 + 1.5 * len(jobs)), layout="constrained")
    ratios = [3.3, 3.3, 1.8]
    grid = figure.subplots(len(jobs), 3, squeeze=False, sharey="col", width_ratios=ratios)
    for line, (attack, source) in enumerate(jobs):
        panels = grid[line]
        job = known[(known["attack"] == attack) & (known["source"] == source)]
        for axes in panels[:2]:
            tidy(axes)
            axes.grid(visible=False, axis="x")
            axes.set_xlim(-0.6, len(bands) - 0.4)
            axes.set_xticks(range(len(bands)), [_band_label(job, band) for band in bands])
            if line == len(jobs) - 1:
                axes.set_xlabel(_KEPT, fontsize=TEXT_SIZE)
            elif len(bounds) == len(bands):
                axes.tick_params(labelbottom=False)
        _band_bars(panels[0], job, source, bands, targets)
        _band_excess(panels[1], job, source, bands, targets)
        _job_legend(panels[2], job, attack, source, targets)
    for axes, title in zip(grid[0], ("success", "excess over noise"), strict=False):
        axes.set_title(title, fontsize=TEXT_SIZE)
    _filter_legend(figure)
    add_title(figure, f"success of filtered perturbations, {_NORM_WORDS[norm]}")
    return figure


def _image_lines(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw the spectrum of the images once, unless jobs have different images."""
    drawn: dict[tuple[float, ...], pd.DataFrame] = {}
    for _, line in rows.groupby(["attack", "source"], sort=False):
        ordered = line.sort_values("frequency_low")
        drawn.setdefault(tuple(ordered["share"].round(6)), ordered)
    for place, line in enumerate(drawn.values()):
        label = f"images, n = {count_range(rows['n'])}" if place == 0 else None
        axes.plot(_middles(line), percents(line, "share"), color=_IMAGE, linewidth=3, label=label)


def _perturbation_lines(axes: Axes, rows: pd.DataFrame, *, several: bool) -> None:
    sources, attacks = list(dict.fromkeys(rows["source"])), list(dict.fromkeys(rows["attack"]))
    for _, line in rows.groupby(["attack", "source", "eps_255"], sort=False):
        ordered = line.sort_values("frequency_low")
        attack, source, eps = ordered[["attack", "source", "eps_255"]].iloc[0]
        at = f" at {budget(eps)}" if several else ""
        label = f"{model_name(str(attack))} on {model_name(str(source))}{at}"
        place = sources.index(source)
        axes.plot(
            _middles(ordered),
            percents(ordered, "share"),
            color=PALETTE[place % len(PALETTE)],
            linestyle=LINE_STYLES[attacks.index(attack) % len(LINE_STYLES)],
            marker=MARKERS[place % len(MARKERS)],
            markersize=3.5,
            markevery=(place, 5),
            linewidth=1.5,
            label=f"{label}, n = {count_range(line['n'])}",
        )


def _white_noise(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw the shares that equal power at every frequency would give."""
    key = ["attack", "source", "kind", "eps_255"]
    first = frame[(frame[key] == frame[key].iloc[0]).all(axis=1)].sort_values("frequency_low")
    coefficients = first["coefficients"].to_numpy(dtype=np.float64)
    if not coefficients.sum() > 0:
        return
    shares = 100 * np.where(coefficients > 0, coefficients, np.nan) / coefficients.sum()
    axes.plot(_middles(first), shares, ":", color=INK, linewidth=1.6, label="white noise")


def _middles(rows: pd.DataFrame) -> NDArray[np.float64]:
    middles: NDArray[np.float64] = (
        rows[["frequency_low", "frequency_high"]].to_numpy(dtype=np.float64).mean(axis=1)
    )
    return middles


def _places(
    rows: pd.DataFrame, target: str, bands: list[str], targets: list[str]
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return the rows of one target, and where they stand, grouped by band."""
    chosen = rows[(rows["target"] == target) & rows["band"].isin(bands)]
    x = np.array([bands.index(band) for band in chosen["band"]], dtype=np.float64)
    return chosen, x + (targets.index(target) - (len(targets) - 1) / 2) * _group(targets)


def _group(targets: list[str]) -> float:
    return 0.8 / len(targets)


def _band_bars(
    axes: Axes, rows: pd.DataFrame, source: str, bands: list[str], targets: list[str]
) -> None:
    """Draw the success rates of one job as bars, and those of noise across them."""
    width = 0.92 * _group(targets)
    for place, target in enumerate(targets):
        bars, x = _places(rows, target, bands, targets)
        look = _bar_look(place, is_white_box(source, target))
        axes.bar(x, percents(bars, "success_rate"), width=width, **look)
        low, high = percents(bars, "success_rate_low"), percents(bars, "success_rate_high")
        axes.vlines(x, low, high, color=WHISKER, linewidth=1.3)
        noise = percents(bars, "noise_success_rate")
        axes.hlines(noise, x - width / 2, x + width / 2, color="white", linewidth=4)
        axes.hlines(noise, x - width / 2, x + width / 2, color=WHISKER, linewidth=2)
    percent_axis(axes, "success rate")


def _band_excess(
    axes: Axes, rows: pd.DataFrame, source: str, bands: list[str], targets: list[str]
) -> None:
    """Draw the excess of one job over noise as points."""
    axes.axhline(0, color=INK, linewidth=1)
    for place, target in enumerate(targets):
        points, x = _places(rows, target, bands, targets)
        colour = PALETTE[place % len(PALETTE)]
        low, high = percents(points, "excess_low"), percents(points, "excess_high")
        axes.vlines(x, low, high, color=colour, linewidth=1.5)
        axes.plot(
            x,
            percents(points, "excess"),
            linestyle="",
            marker=MARKERS[place % len(MARKERS)],
            color=colour,
            markerfacecolor="white" if is_white_box(source, target) else colour,
            markersize=5,
        )
    axes.set_ylabel("excess (points)", fontsize=TEXT_SIZE)


def _filter_legend(figure: Figure) -> None:
    """Say below a figure what its marks mean."""
    figure.legend(
        handles=[
            Line2D([], [], color=WHISKER, linewidth=2, label="noise of the same frequencies"),
            Line2D(
                [], [], color=INK, linestyle="", marker="|", ms=11, mew=1.5, label="95 % interval"
            ),
            Patch(
                facecolor="white", edgecolor=INK, hatch="////", label="white box (point: hollow)"
            ),
        ],
        loc="outside lower center",
        ncols=3,
        fontsize=SMALL_SIZE,
        frameon=False,
    )


def _bar_look(place: int, white_box: bool) -> dict[str, Any]:
    colour = PALETTE[place % len(PALETTE)]
    if white_box:
        return {"facecolor": "white", "edgecolor": colour, "hatch": "////", "linewidth": 1.2}
    return {"facecolor": colour, "edgecolor": colour, "linewidth": 1.2}


def _band_label(rows: pd.DataFrame, band: str) -> str:
    bounds = rows.loc[rows["band"] == band, ["frequency_low", "frequency_high"]]
    if bounds.empty:
        return f"{_BAND_WORDS[band]}\nnot made"
    low, high = bounds.iloc[0]
    words = {"low": f"< {high:.3g}", "high": f"$\\geq$ {low:.3g}", "all": f"0 to {high:.3g}"}
    return f"{_BAND_WORDS[band]}\n{words.get(band, f'{low:.3g} to {high:.3g}')}"


def _job_legend(
    axes: Axes, job: pd.DataFrame, attack: str, source: str, targets: list[str]
) -> None:
    """Say in an empty panel what the colours of one row mean, with numbers of images."""
    axes.set_axis_off()
    handles = []
    for place, target in enumerate(targets):
        rows = job[job["target"] == target]
        count = count_range(rows["n"]) if len(rows) else "0"
        label = f"{model_name(target, _SHORT)}, n = {count}"
        handles.append(Patch(label=label, **_bar_look(place, is_white_box(source, target))))
    axes.legend(
        handles=handles,
        title=f"{model_name(attack, _SHORT)} made on\n{model_name(source, _SHORT)}, shown to",
        loc="center left",
        fontsize=SMALL_SIZE,
        title_fontsize=SMALL_SIZE,
        alignment="left",
        frameon=False,
    )
