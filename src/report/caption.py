"""Captions of tables: images, weights, budget, steps, denominator, seeds and versions."""

from collections.abc import Iterable, Sequence

import pandas as pd

from src.artifacts.record import JobRecord
from src.report.cells import AVERAGE, VALUES, Cells
from src.report.summary import JobSummary

PARTIAL = "\N{DOUBLE DAGGER}"
"""Mark of an average that lacks sources or targets of another one."""
_PACKAGES = ("transferability", "torch", "torchvision", "timm", "transferattack")


def caption_of(
    jobs: Sequence[JobSummary],
    cells: Cells,
    shown: pd.DataFrame,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    white_boxes: bool,
    intervals: bool,
    strongest: bool,
    white: str,
) -> str:
    """Return the caption of a table of jobs; the options are the table's, `white` a mark."""
    records, pairs = [one.job.record for one in jobs], cells.pairs
    seeds = [str(seed.job.record.seed) for one in jobs for seed in one.seeds or [one]]
    several = bool(shown["sd"].notna().any())
    sets = [f"{len(one.job.parts)} sets of images" for one in jobs if len(one.job.parts) > 1]
    of_images = cells.value in ("success", "accuracy", "confidence", "success_confidence")
    sizes = pairs.groupby("attack", sort=False)["rms_255"].mean() if "rms_255" in pairs else ()
    budgets = _distinct(
        f"{eps:g}/255 ({norm})" for eps, norm in zip(pairs["eps_255"], pairs["norm"], strict=True)
    )
    protocols, least, most = _distinct(pairs["protocol"]), shown["least"].min(), shown["most"].max()
    pooled = [axis for axis in ("source", "target") if axis not in (*rows, *columns)]
    pooled = [axis for axis in pooled if pairs[axis].nunique() > 1 and of_images]
    marked = bool(shown["undecided"].any())
    boxes = "white boxes" + " and related networks" * any(one.left_out for one in jobs)
    sentences = {
        f"{VALUES[cells.value].words} at eps = {budgets}": True,
        f"Of {_distinct(map(_images, records))}": True,
        f"Pooled from {_distinct(sets)}": bool(sets),
        f"Counted ({protocols}): {_span(least, most)} images per cell": of_images,
        f"Cells are means over {' and '.join(pooled)}s, {boxes} left out": bool(pooled),
        f"RMS change in 1/255: {_distinct(f'{k} {v:.2f}' for k, v in dict(sizes).items())}": (
            of_images and len(sizes) > 1
        ),
        "In L2 attacks differ at the same budget (not measured here)": of_images
        and not len(sizes)
        and pairs["attack"].nunique() > 1
        and "linf" in set(pairs["norm"]),
        f"Average: of the row's cells, {boxes} left out; the report's ranking is of the images'"
        " means, which differs": AVERAGE in set(shown[columns[0]]),
        f"{white}: {boxes}": white_boxes and bool(shown["white"].any()),
        f"{boxes.capitalize()} are left out": not white_boxes,
        "Bold: the best attack": bool(shown["best"].any()),
        "Italic: not distinguishable from it (all pairs tested together, 5 %)": marked,
        "In brackets: 95 % intervals": intervals,
        "Strongest: the attacker may use any of the attacks and sources, white boxes left out; per "
        "set the best one, per image any of them, over the images that all count"
        f"{'; of the first seed' * several}": strongest,
        f"Steps: {_distinct(filter(None, map(_steps, records)))}": any(map(_steps, records)),
        f"Weights: {_distinct(model for record in records for model in _weights(record))}": True,
        "\N{PLUS-MINUS SIGN}: standard deviation over the seeds": several,
        f"{PARTIAL}: mean over fewer sources or targets than others": shown["partial"].any(),
        f"Seed {_distinct(seeds)}": True,
        _distinct(map(_versions, records)): True,
    }
    return " ".join(f"{sentence}." for sentence, holds in sentences.items() if holds)


def _distinct(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _span(least: float, most: float) -> str:
    return f"{least:.0f}" if least == most else f"{least:.0f} to {most:.0f}"


def _images(record: JobRecord) -> str:
    return f"{record.images} images ({record.dataset}, digest {record.data})"


def _steps(record: JobRecord) -> str:
    steps = record.config["attack"]["settings"].get("steps")
    return f"{record.attack} {steps}" if steps else ""


def _weights(record: JobRecord) -> list[str]:
    """Return each model with the tag of its weights, if it has one, and their digest."""
    models = []
    for name, digest in record.weights.items():
        network = record.config["model"][name]["network"]
        tag = network.get("model_name") or network.get("weights")
        models.append(f"{name} ({f'{tag}, ' if tag else ''}{digest[:8]})")
    return models


def _versions(record: JobRecord) -> str:
    versions = [f"{name} {record.versions[name]}" for name in _PACKAGES if name in record.versions]
    return ", ".join([*versions, f"commit {record.commit[:12]}"])
