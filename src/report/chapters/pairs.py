"""What is told of one attack, source and target."""

from collections.abc import Sequence

import pandas as pd

from src.analysis import format_cell, is_white_box
from src.analysis.confidence_bins import by_initial_confidence
from src.analysis.hypothesis import Effect
from src.analysis.phenomena import KINDS, kind_shares, kind_summary, phenomena
from src.report.bin_figures import confidence_bins_figure, kind_shares_figure
from src.report.chapters.drawing import drawn, file_name
from src.report.chapters.pair_pictures import examples, galleries
from src.report.content import Drawing, Pair, Table
from src.report.figures import curves
from src.report.stored import StoredJob
from src.report.sweep_files import job_rates


def pair(job: StoredJob, target: str, effect: Effect, budgets: Sequence[float] | None) -> Pair:
    """Return what is told of a job's images shown to one target.

    Args:
        job: The job.
        target: One of its targets.
        effect: What `src.analysis.hypothesis` found of the pair.
        budgets: At which examples are drawn; None chooses.
    """
    record = job.record
    stem = file_name(job.attack, record.source, target)
    rows = job_rates(job)
    rows = rows[rows["target"] == target].reset_index(drop=True)
    images = phenomena(
        job.with_top_five, record.source, target, record.protocol, job.flips, record.norm
    )
    summary = kind_summary(images)
    return Pair(
        attack=job.attack,
        source=record.source,
        target=target,
        white_box=is_white_box(record.source, target),
        text=(effect.sentence, _flip_sentence(summary)),
        drawings=(
            _curves(job, stem, rows),
            _bins(job, target, stem),
            *_kinds(job, target, stem, images),
            *galleries(job, target, stem, images),
            *examples(job, target, stem, budgets),
        ),
        tables=(_rate_table(stem, rows), _kind_table(stem, summary)),
    )


def _curves(job: StoredJob, stem: str, rows: pd.DataFrame) -> Drawing:
    record = job.record
    first, last = rows.iloc[0], rows.iloc[-1]
    return drawn(
        f"curves-{stem}",
        "Accuracy and confidence over the budget",
        f"Left: share of the {int(last['denominator'])} counted images that are still classified "
        "correctly, with 95 % Wilson intervals. Right: mean confidence in the predicted and in the "
        "true class over the same images.",
        f"From {first['robust_accuracy']:.1%} at {first['eps_255']:g}/255 to "
        f"{last['robust_accuracy']:.1%} at {last['eps_255']:g}/255.",
        lambda: curves(
            rows, record.source, job.attack, dataset=record.dataset, protocol=record.protocol
        ),
        rows,
    )


def _bins(job: StoredJob, target: str, stem: str) -> Drawing:
    record = job.record
    bins = by_initial_confidence(job.predictions, record.source, target, record.protocol)
    groups = bins.drop_duplicates("bin_low")
    return drawn(
        f"bins-{stem}",
        "Accuracy and confidence by initial confidence",
        f"The {int(groups['n'].sum())} images counted that {target} classifies correctly when "
        f"clean, split into {len(groups)} bins of 5 percentage points of their initial confidence. "
        "Bands: 95 % (Wilson; Gaffke for the mean confidence), none for fewer than 10 images.",
        "; ".join(
            f"{row['bin_low']:.0%} to {row['bin_high']:.0%}: {row['n']} images"
            for row in groups.to_dict("records")
        ),
        lambda: confidence_bins_figure(
            bins, attack=job.attack, source=record.source, target=target
        ),
        bins,
    )


def _kinds(job: StoredJob, target: str, stem: str, images: pd.DataFrame) -> list[Drawing]:
    shares = kind_shares(images)
    return [
        drawn(
            f"kinds-{stem}",
            "Kinds of images by initial confidence",
            f"Share of the {len(images)} images counted and initially right, in bins of initial "
            "confidence, that are of each kind; an image can be of several. Whiskers: 95 % "
            "Wilson intervals.",
            f"{len(images)} images.",
            lambda: kind_shares_figure(
                shares, KINDS, attack=job.attack, source=job.record.source, target=target
            ),
            shares,
        )
    ]


def _rate_table(stem: str, rows: pd.DataFrame) -> Table:
    shown = pd.DataFrame(
        {
            "budget (1/255)": [f"{eps:g}" for eps in rows["eps_255"]],
            "still correct": [
                format_cell(int(k), int(n))
                for k, n in zip(rows["still_correct"], rows["denominator"], strict=True)
            ],
            "95 % interval": [
                _interval(low, high)
                for low, high in zip(
                    rows["robust_accuracy_low"], rows["robust_accuracy_high"], strict=True
                )
            ],
            "attack succeeds": [
                format_cell(int(k), int(n))
                for k, n in zip(rows["success"], rows["denominator"], strict=True)
            ],
            "confidence": [_percent(value) for value in rows["confidence"]],
            "true class": [_percent(value) for value in rows["true_confidence"]],
        }
    )
    return Table(
        name=f"rates-{stem}",
        title="The numbers behind the curves",
        caption="Counts with their denominators; the last columns are mean confidences in the "
        "predicted and in the true class over the images of the denominator.",
        frame=shown,
        data=rows,
    )


def _kind_table(stem: str, summary: pd.DataFrame) -> Table:
    shown = pd.DataFrame(
        {
            "kind": [KINDS[kind] for kind in summary["kind"]],
            "images": [
                format_cell(int(k), int(n))
                for k, n in zip(summary["images"], summary["n"], strict=True)
            ],
            "95 % interval": [
                _interval(low, high)
                for low, high in zip(summary["share_low"], summary["share_high"], strict=True)
            ],
            "median initial confidence": [
                _percent(value) for value in summary["median_initial_confidence"]
            ],
            "median gap, first to second": [_percent(value) for value in summary["median_gap_1_2"]],
            "median gap, second to third": [_percent(value) for value in summary["median_gap_2_3"]],
        }
    )
    return Table(
        name=f"kinds-{stem}-summary",
        title="Kinds of images",
        caption="An image can be of several kinds. The gaps are differences of confidence between "
        "the first, second and third class at the smallest flipping budget; where that was refined "
        "by bisection, the first gap is small by construction and the second alone tells "
        "something.",
        frame=shown,
        data=summary,
    )


def _flip_sentence(summary: pd.DataFrame) -> str:
    by_kind = summary.set_index("kind")
    n = int(by_kind["n"].iloc[0]) if len(by_kind) else 0
    if not n:
        return "No image is counted."
    images = by_kind["images"].to_dict()
    below = images.get("below_8_bits")  # of L-infinity alone
    return (
        f"Of {n} images that are counted and initially right {images['never_flips']} never lose "
        "their class within the grid, "
        f"{images['bounce_back']} lose it and get it back at a larger budget"
        + ("." if below is None else f", and {below} lose it at a budget below 1/255.")
    )


def _percent(value: float) -> str:
    return "n/a" if pd.isna(value) else f"{value:.1%}"


def _interval(low: float, high: float) -> str:
    return "n/a" if pd.isna(low) else f"[{low:.1%}, {high:.1%}]"
