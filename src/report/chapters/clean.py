"""The clean data: classes, confidences, accuracy of every model."""

from collections.abc import Sequence

import pandas as pd

from src.analysis import format_cell
from src.analysis.exploration import class_confidence, class_counts, confidence_profiles, top_k
from src.report.chapters.drawing import drawn
from src.report.clean_figures import (
    class_confidence_figure,
    class_counts_figure,
    confidence_profiles_figure,
)
from src.report.content import Drawing, Section, Table
from src.report.stored import StoredJob


def clean_section(jobs: Sequence[StoredJob]) -> Section:
    """Describe the images and what each model says of them before any attack."""
    clean = _clean_rows(jobs)
    names = jobs[0].record.class_names
    dataset = jobs[0].record.dataset
    any_model = next(iter(clean.values()))
    counts = class_counts(any_model)
    text = (
        f"{len(any_model)} images of {dataset} show {len(counts)} of {len(names)} classes; "
        f"{_most(counts, names)}.",
    )
    drawings = [
        drawn(
            "class-counts",
            "Images per class",
            f"How many of the {len(any_model)} images each class has.",
            text[0],
            lambda: class_counts_figure(counts, names, dataset=dataset),
            counts.assign(name=[names[int(label)] for label in counts["label"]]),
        )
    ]
    for model, rows in clean.items():
        drawings += _of_model(model, rows, names)
    return Section(
        id="clean-data",
        title="The clean images",
        text=text,
        drawings=tuple(drawings),
        tables=(_top_table(clean),),
    )


def clean_answer(jobs: Sequence[StoredJob]) -> str:
    """Say how many clean images each model gets right, and how confident it is."""
    told = []
    for model, rows in _clean_rows(jobs).items():
        first = top_k(rows).iloc[0]
        cell = format_cell(int(first["correct"]), int(first["n"]))
        told.append(f"{model}: {cell} right, mean confidence {first['confidence']:.1%}.")
    return " ".join(told)


def _most(counts: pd.DataFrame, names: Sequence[str]) -> str:
    """Name the most frequent class, if it is one."""
    highest = int(counts["images"].iloc[0])
    first = counts[counts["images"] == highest]
    images = f"{highest} {'image' if highest == 1 else 'images'}"
    if len(first) > 1:
        return f"the {len(first)} most frequent ones have {images} each"
    return f"the most frequent is {names[int(first['label'].iloc[0])]} with {images}"


def _clean_rows(jobs: Sequence[StoredJob]) -> dict[str, pd.DataFrame]:
    """Return every model's rows on clean images, of the first job that has them.

    Models of one name with other weights, as side by side sweeps may have, are told apart.
    """
    found: dict[str, pd.DataFrame] = {}
    digests: dict[str, str] = {}
    for job in jobs:
        rows = job.with_top_five
        rows = rows[rows["eps_255"] == 0]
        for model in rows["target"].unique():
            digest = job.record.weights.get(model, "")
            known = digests.setdefault(model, digest)
            name = str(model) if known == digest else f"{model} ({digest[:6]})"
            found.setdefault(name, rows[rows["target"] == model].reset_index(drop=True))
    return found


def _of_model(model: str, rows: pd.DataFrame, names: Sequence[str]) -> list[Drawing]:
    profiles = confidence_profiles(rows)
    by_class = class_confidence(rows)
    highest, lowest = by_class.iloc[0], by_class.iloc[-1]
    return [
        drawn(
            f"confidence-profiles-{model}",
            f"Top five confidences of {model} by initial confidence",
            "Mean confidence in the first to fifth class of the clean images whose confidence lies "
            "within 2.5 percentage points of each level; whiskers: 10 % to 90 % of these images.",
            "; ".join(
                f"{row['level']:.0%}: {row['images']} images, first {row['confidence']:.1%}"
                for row in profiles[profiles["rank"] == 1].to_dict("records")
                if row["images"]
            ),
            lambda: confidence_profiles_figure(profiles, model=model),
            profiles,
        ),
        drawn(
            f"class-confidence-{model}",
            f"Mean confidence of {model} per class",
            f"Classes in descending order of {model}'s mean confidence in its prediction for their "
            f"{len(rows)} clean images.",
            f"From {highest['confidence']:.1%} ({names[int(highest['label'])]}) down to "
            f"{lowest['confidence']:.1%} ({names[int(lowest['label'])]}).",
            lambda: class_confidence_figure(by_class, names, model=model),
            by_class.assign(name=[names[int(label)] for label in by_class["label"]]),
        ),
    ]


def _top_table(clean: dict[str, pd.DataFrame]) -> Table:
    numbers = pd.concat(
        {model: top_k(rows) for model, rows in clean.items()}, names=["model"]
    ).reset_index("model")
    shown = pd.DataFrame(
        {
            "model": numbers["model"],
            "": [f"top {k}" for k in numbers["k"]],
            "accuracy": [
                f"{row['correct']} / {row['n']} = {row['accuracy']:.2%} "
                f"[{row['accuracy_low']:.1%}, {row['accuracy_high']:.1%}]"
                for row in numbers.to_dict("records")
            ],
            "confidence": [f"{value:.2%}" for value in numbers["confidence"]],
        }
    )
    return Table(
        name="clean-accuracy",
        title="Accuracy and confidence on clean images",
        caption="Top 1: the predicted class is the true one; mean confidence in the predicted "
        "class over all images. Top 5: the true class is among the five most probable; mean "
        "confidence in the true class over those images. Brackets: 95 % Wilson intervals.",
        frame=shown,
        data=numbers,
    )
