"""Captions for tables: images, weights, budget, steps, denominator, seeds and versions."""

from collections.abc import Iterable, Sequence

import pandas as pd

from src.artifacts.record import JobRecord
from src.report.cells import AVERAGE, DIFFERENCE, VALUES, TableCells
from src.report.summary import JobSummary

PARTIAL, DAGGER = "\N{DOUBLE DAGGER}", "\N{DAGGER}"
"""Marks of an average over fewer sources or targets than another average, and of white boxes."""
_OF_IMAGES = {name for name, quantity in VALUES.items() if quantity.of_predictions}
_PACKAGES = ("transferability", "torch", "torchvision", "timm", "transferattack")


def caption_of(jobs: Sequence[JobSummary], cells: TableCells, shown: pd.DataFrame) -> str:
    """Return the caption of the `shown` cells.

    The first sentence says what was measured, the second explains the marks.
    """
    spec, white = cells.spec, DAGGER if cells.spec.to == "markdown" else "grey"
    pairs, records = cells.pairs, [summary.job.record for summary in jobs]
    budgets = _distinct(
        f"{eps:g}/255 ({norm})" for eps, norm in zip(pairs["eps_255"], pairs["norm"], strict=True)
    )
    of = _distinct(map(_set_of_images, records))
    least, most = shown["least"].min(), shown["most"].max()
    counted = f"{_span(least, most)} counted per cell ({_distinct(pairs['protocol'])})"
    first = f"{VALUES[spec.value].title} at eps = {budgets}, {of}"
    boxes = "white boxes" + " and related networks" * any(summary.left_out for summary in jobs)
    pooled = _pooled(cells)
    marks = {
        "bold: the best attack": bool(shown["best"].any()),
        "italic: not significantly weaker (5 %)": bool(shown["undecided"].any()),
        f"{white}: {boxes}": spec.white_boxes and bool(shown["white"].any()),
        f"without {boxes}": not spec.white_boxes,
        f"cells: means over {' and '.join(pooled)}s without {boxes}": bool(pooled),
        f"average: over targets, each over its sources, without {boxes}": (
            AVERAGE in set(shown[spec.columns[0]])
        ),
        f"{DIFFERENCE}: from the first in the ranking, in points, simultaneous 95 % intervals": (
            DIFFERENCE in set(shown[spec.columns[0]])
        ),
        "in brackets: 95 % intervals": spec.intervals,
        "strongest: the best attack and source for the set or the image, no white boxes": (
            spec.strongest
        ),
        "\N{PLUS-MINUS SIGN}: standard deviation over the seeds": bool(shown["sd"].notna().any()),
        f"{PARTIAL}: mean over fewer sources or targets than others": bool(shown["partial"].any()),
    }
    second = "; ".join(mark for mark, holds in marks.items() if holds)
    sentences = [first + f", {counted}" * (spec.value in _OF_IMAGES)]
    sentences += [second[:1].upper() + second[1:]] * bool(second)
    return " ".join(f"{sentence}." for sentence in sentences)


def details_of(jobs: Sequence[JobSummary], cells: TableCells) -> list[str]:
    """Return what the numbers depend on, one line each: images, steps, weights, seeds, versions."""
    records, pairs = [summary.job.record for summary in jobs], cells.pairs
    seeds = [str(seed.job.record.seed) for summary in jobs for seed in summary.seeds or [summary]]
    sets = [
        f"{len(summary.job.parts)} sets of images" for summary in jobs if len(summary.job.parts) > 1
    ]
    sizes = pairs.groupby("attack", sort=False)["rms_255"].mean() if "rms_255" in pairs else ()
    lines = {
        f"Images: {_distinct(map(_images, records))}": True,
        f"Pooled from {_distinct(sets)}": bool(sets),
        f"RMS change in 1/255: {_distinct(f'{k} {v:.2f}' for k, v in dict(sizes).items())}": (
            cells.spec.value in _OF_IMAGES and len(sizes) > 1
        ),
        f"Steps: {_distinct(filter(None, map(_steps, records)))}": any(map(_steps, records)),
        f"Weights: {_distinct(model for record in records for model in _weights(record))}": True,
        f"Seed {_distinct(seeds)}": True,
        _distinct(map(_versions, records)): True,
    }
    return [line for line, holds in lines.items() if holds]


def _pooled(cells: TableCells) -> list[str]:
    """Return the axes over which a cell averages."""
    axes = [axis for axis in ("source", "target") if axis not in cells.spec.keys]
    images = cells.spec.value in _OF_IMAGES
    return [axis for axis in axes if images and cells.pairs[axis].nunique() > 1]


def _distinct(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _span(least: float, most: float) -> str:
    return f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"


def _set_of_images(record: JobRecord) -> str:
    of = f" of {record.dataset}" * (record.dataset != "images")  # tensors have no other name
    return f"{record.images} images{of}"


def _images(record: JobRecord) -> str:
    return f"{_set_of_images(record)} (digest {record.data})"


def _steps(record: JobRecord) -> str:
    """Return the attack with its number of steps and their size, as far as it states them."""
    stated = record.config["attack"]["settings"]
    if not (steps := stated.get("steps")):
        return ""
    size = f" x {stated.get('relative_step_size') or 1 / steps:.3g} eps"
    if fixed := stated.get("step_size_255"):
        size = f" x {fixed:g}/255"
    return f"{record.attack} {steps}{size if 'step_size_255' in stated else ''}"


def _weights(record: JobRecord) -> list[str]:
    """Return each model with the tag of its weights (if any) and their digest."""
    models = []
    for name, digest in record.weights.items():
        if name in record.config["model"]:  # an ensemble has no settings
            network = record.config["model"][name]["network"]
            tag = network.get("model_name") or network.get("weights")
            models.append(f"{name} ({f'{tag}, ' if tag else ''}{digest[:8]})")
    return models


def _versions(record: JobRecord) -> str:
    versions = [f"{name} {record.versions[name]}" for name in _PACKAGES if name in record.versions]
    return ", ".join([*versions, f"commit {record.commit[:12]}"])
