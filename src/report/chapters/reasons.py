"""Why attacks transfer: frequencies, gradients, errors; as far as the jobs computed it."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from src.analysis import is_white_box
from src.analysis.frequency import filtered_rates, low_pass_accuracy
from src.analysis.frequency_words import (
    filter_sentences,
    low_pass_sentences,
    spectrum_sentences,
)
from src.analysis.similarity import (
    FEWEST_IMAGES,
    SimilarJob,
    image_level,
    pair_similarity,
    transfer_regression,
)
from src.analysis.similarity_words import similarity_sentences
from src.report.chapters.drawing import drawn
from src.report.content import Drawing, Section, Table
from src.report.frequency_figures import (
    filtered_figure,
    low_pass_figure,
    similarity_figure,
    spectra_figure,
)
from src.report.stored import StoredJob

_PARTS = {
    "flips": ("the budgets of flips are those of the grid, not refined", "analysis.bisection=6"),
    "spectra": ("power spectra of the perturbations", "analysis.spectra=true"),
    "filtered": ("transfer of filtered perturbations", "analysis.filters=true"),
    "low_passed": ("accuracy on low-passed clean images", "analysis.filters=true"),
    "similarity": ("gradient cosines of the models", "analysis.similarity=true"),
}
_ROUNDED = (
    "The headline is of images rounded to 8 bits. Bisection and filters do not round, so budgets "
    "of flips are those of the grid, and filtered perturbations are shown unrounded."
)


def missing(jobs: Sequence[StoredJob]) -> tuple[str, ...]:
    """Say which tables jobs did not compute, and how to have them."""
    sentences = []
    unseen = sum(not job.has_clean for job in jobs)
    if unseen:
        sentences.append(
            f"{unseen} of {len(jobs)} jobs do not know the answers on the clean images: nothing "
            "that compares with them is told of these."
        )
    without = sum(not job.examples for job in jobs)
    if without:
        sentences.append(
            f"No example images were stored by {without} of {len(jobs)} jobs; report.examples=4 "
            "stores four."
        )
    if any(job.record.config.get("storage", "float32") != "float32" for job in jobs):
        sentences.append(_ROUNDED)
    for name, (what, key) in _PARTS.items():
        without = sum(name not in job.files for job in jobs)
        if without:
            sentences.append(
                f"Not computed by {without} of {len(jobs)} jobs: {what}; run them with {key}, or "
                "with analysis=full for everything."
            )
    return tuple(sentences)


def reasons_section(jobs: Sequence[StoredJob]) -> Section | None:
    """Return what the jobs' own tables say about why their images transfer; None without any."""
    parts: list[tuple[str, Callable[[Sequence[StoredJob]], _Part]]] = [
        ("spectra", _spectra),
        ("filtered", _filtered),
        ("low_passed", _low_passed),
        ("similarity", _similarity),
    ]
    text: list[str] = []
    drawings: list[Drawing] = []
    tables: list[Table] = []
    for name, tell in parts:
        having = [job for job in jobs if name in job.files]
        if having:
            sentences, figures, found = tell(having)
            text.append(" ".join(sentences))
            drawings += figures
            tables += found
    if not drawings:
        return None
    return Section(
        id="why-it-transfers",
        title="Why it transfers",
        text=tuple(text),
        drawings=tuple(drawings),
        tables=tuple(tables),
    )


_Part = tuple[Sequence[str], list[Drawing], list[Table]]


def _stacked(jobs: Sequence[StoredJob], read: Callable[[StoredJob], pd.DataFrame]) -> pd.DataFrame:
    """Put a table of each job below the others, with the columns `source` and `attack`."""
    return pd.concat(
        [read(job).assign(source=job.record.source, attack=job.attack) for job in jobs],
        ignore_index=True,
    )


def _spectra(jobs: Sequence[StoredJob]) -> _Part:
    frame = _stacked(jobs, lambda job: job.table("spectra"))
    sentences = spectrum_sentences(frame)
    drawing = drawn(
        "spectra",
        "Power spectra of images and perturbations",
        "Share of the power at each spatial frequency, averaged over directions, channels and "
        f"images, constant part left out; perturbations at {jobs[0].record.standard:g}/255.",
        " ".join(sentences),
        lambda: spectra_figure(frame),
        frame,
    )
    return sentences, [drawing], []


def _filtered(jobs: Sequence[StoredJob]) -> _Part:
    def read(job: StoredJob) -> pd.DataFrame:
        record = job.record
        return filtered_rates(
            job.table("filtered"), job.predictions, record.source, record.targets, record.protocol
        )

    frame = _stacked(jobs, read)
    sentences = filter_sentences(frame)
    standard = f"{jobs[0].record.standard:g}/255"
    sizes = {
        "l2": ("filtered", "the same L2 norm as the whole"),
        "linf": ("filtered-linf", f"the same largest change, {standard}"),
    }
    drawings = [
        drawn(
            name,
            "Success of filtered perturbations",
            f"The low, middle and high spatial frequencies of the perturbation at {standard} "
            f"alone, scaled to {size}, and those of random-sign noise, scaled likewise.",
            " ".join(sentences),
            partial(filtered_figure, frame, norm),
            frame[frame["norm"] == norm],
        )
        for norm, (name, size) in sizes.items()
    ]
    return sentences, drawings, [_filtered_table(frame)]


def _filtered_table(frame: pd.DataFrame) -> Table:
    rows = frame[frame["norm"] == "l2"].sort_values(["attack", "source", "target"], kind="stable")
    shown = pd.DataFrame(
        {
            "attack": rows["attack"],
            "source": rows["source"],
            "target": _targets(rows),
            "frequencies": rows["band"]
            .map({"all": "whole", "band": "middle"})
            .fillna(rows["band"]),
            "images": rows["n"].astype(str),
            "success": rows["success"].astype(str),
            "noise": rows["noise_success"].astype(str),
            "excess": _with_intervals(rows, "excess", ".1%"),
        }
    )
    return Table(
        name="filtered-excess",
        title="Filtered perturbations against filtered noise, at equal L2 norm",
        caption="Images fooled by a part of the perturbation and by the same part of random-sign "
        "noise; the difference as a share of the images, with its 95 % interval for paired "
        "proportions (Tango 1998).",
        frame=shown,
        data=frame,
    )


def _low_passed(jobs: Sequence[StoredJob]) -> _Part:
    found: dict[str, tuple[StoredJob, pd.DataFrame]] = {}
    for job in jobs:  # a model's answers do not depend on the attack
        for target, rows in job.table("low_passed").groupby("target", sort=False):
            digest = job.record.weights.get(str(target), "")
            known = found.get(str(target))
            other = known is not None and known[0].record.weights.get(str(target), "") != digest
            found.setdefault(f"{target} ({digest[:6]})" if other else str(target), (job, rows))
    named = {name: rows.assign(target=name) for name, (_, rows) in found.items()}
    clean = {
        name: _clean(job, str(rows["target"].iloc[0])).assign(target=name)
        for name, (job, rows) in found.items()
    }
    frame = low_pass_accuracy(pd.concat(named.values()), pd.concat(clean.values()))
    sentences = low_pass_sentences(frame)
    drawing = drawn(
        "low-passed",
        "Accuracy on low-passed clean images",
        "Clean images that keep only the frequencies below a cutoff; 95 % Wilson intervals over "
        f"{int(frame['n'].max())} images.",
        " ".join(sentences),
        lambda: low_pass_figure(frame),
        frame,
    )
    return sentences, [drawing], []


def _clean(job: StoredJob, target: str) -> pd.DataFrame:
    rows = job.predictions
    return rows[(rows["target"] == target) & (rows["eps_255"] == 0)]


def _similarity(jobs: Sequence[StoredJob]) -> _Part:
    found = [
        SimilarJob(job.attack, job.record.source, job.predictions, job.table("similarity"))
        for job in jobs
    ]
    standard, protocol = jobs[0].record.standard, jobs[0].record.protocol
    frame = pair_similarity(found, standard, protocol)
    regression = transfer_regression(frame)
    sentences = similarity_sentences(frame, regression)
    drawing = drawn(
        "similarity",
        "Transfer, gradients and errors",
        f"Success at {standard:g}/255 over the mean cosine of the models' loss gradients on clean "
        "images, and over the agreement of their errors (Cohen's kappa).",
        " ".join(sentences),
        lambda: similarity_figure(frame),
        frame,
    )
    images = image_level(found, standard, protocol)
    tables = [_pair_table(frame), _regression_table(regression), _image_table(images)]
    return sentences, [drawing], tables


def _pair_table(frame: pd.DataFrame) -> Table:
    rows = frame.to_dict("records")
    shown = pd.DataFrame(
        {
            "attack": frame["attack"],
            "source": frame["source"],
            "target": _targets(frame),
            "images": [str(r["n"]) for r in rows],
            "gradient cosine": _with_intervals(frame, "cosine"),
            "equal signs": [_share(r["sign_agreement"]) for r in rows],
            "kappa of errors": [
                "n/a" if np.isnan(r["kappa"]) else f"{r['kappa']:.2f}" for r in rows
            ],
            "same wrong class": [_share(r["same_wrong"]) for r in rows],
            "success": [_share(r["success_rate"]) for r in rows],
        }
    )
    return Table(
        name="model-similarity",
        title="How alike the models are, pair by pair",
        caption="Mean cosine of the loss gradients on the clean images counted, with its 95 % t "
        f"interval (none for fewer than {FEWEST_IMAGES}); share of values whose gradients have "
        "equal signs; Cohen's kappa of being right, and share of the images that both get wrong on "
        "which they name the same class, over all clean images.",
        frame=shown,
        data=frame,
    )


def _targets(frame: pd.DataFrame) -> list[str]:
    return [
        f"{target} (white box)" if is_white_box(source, target) else str(target)
        for source, target in zip(frame["source"], frame["target"], strict=True)
    ]


def _share(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value:.1%}"


def _regression_table(regression: pd.DataFrame) -> Table:
    shown = pd.DataFrame(
        {
            "attack": regression["attack"],
            "predictor": regression["predictor"],
            "pairs": [str(int(n)) for n in regression["pairs"]],
            "of models": [str(int(n)) for n in regression["model_pairs"]],
            "slope": _with_intervals(regression, "slope"),
            "r": ["n/a" if pd.isna(r) else f"{r:.2f}" for r in regression["r"]],
            "p": ["n/a" if pd.isna(p) else f"{p:.2g}" for p in regression["p"]],
        }
    )
    return Table(
        name="transfer-regression",
        title="Regression of transfer on similarity, over pairs",
        caption="Least squares of the success rate over the pairs that are not white box, one "
        "predictor at a time; fewer than four different pairs of models give no line. Pairs share "
        "models and images, so these intervals are too narrow.",
        frame=shown,
        data=regression,
    )


def _with_intervals(frame: pd.DataFrame, name: str, form: str = ".2f") -> list[str]:
    rows = frame[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
    return [
        "n/a"
        if np.isnan(value)
        else f"{value:{form}}" + ("" if np.isnan(low) else f" [{low:{form}}, {high:{form}}]")
        for value, low, high in rows
    ]


def _image_table(images: pd.DataFrame) -> Table:
    shown = pd.DataFrame(
        {
            "attack": images["attack"],
            "source": images["source"],
            "target": images["target"],
            "successes": [
                f"{int(k)} of {int(n)}" for k, n in zip(images["success"], images["n"], strict=True)
            ],
            "odds ratio per 0.1 of cosine": _with_intervals(images, "odds_ratio"),
        }
    )
    return Table(
        name="transfer-by-image",
        title="Gradient cosine and success, image by image",
        caption="Logistic regression of success on an image's own gradient cosine within a pair, "
        "with its 95 % interval.",
        frame=shown,
        data=images,
    )
