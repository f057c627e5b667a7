"""The pictures of a pair: galleries of images found by definition, and examples."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from src.analysis.phenomena import KINDS
from src.report.chapters.drawing import drawn
from src.report.content import Drawing
from src.report.galleries import SHOWN, chosen
from src.report.gallery_figures import Entry, gallery_figure
from src.report.pictures import series, triple
from src.report.stored import StoredJob
from src.report.style import plain_text

_MOST_BUDGETS = 6  # in a series, beside the clean image


def galleries(job: StoredJob, target: str, stem: str, images: pd.DataFrame) -> list[Drawing]:
    """Draw the images that are the clearest cases of each kind."""
    names = job.record.class_names
    picked = chosen(images)
    drawings = []
    for kind in SHOWN:
        rows = picked[kind]
        total = int(images[kind].sum())
        if rows.empty:
            continue
        entries = _entries(job, target, rows, lowest=kind == "dip_and_recovery")
        drawings.append(
            drawn(
                f"gallery-{kind}-{stem}",
                f"Gallery: {KINDS[kind]}",
                f"{len(rows)} of the {total} such images among {len(images)} counted ones. Clean "
                "image; confidence over the budget; the five most probable classes of the clean "
                "image and at the budget named above the last panel.",
                "; ".join(
                    f"image {row['index']}: {names[row['label']]}, initial confidence "
                    f"{row['initial_confidence']:.1%}"
                    for row in rows.to_dict("records")
                ),
                partial(gallery_figure, entries, class_names=names, title=None),
                rows,
                picture=True,
            )
        )
    return drawings


def _entries(job: StoredJob, target: str, rows: pd.DataFrame, *, lowest: bool) -> list[Entry]:
    table = job.with_top_five
    table = table[table["target"] == target]
    entries = []
    for row in rows.to_dict("records"):
        one = table[table["index"] == row["index"]].sort_values("eps_255")
        tried = one["eps_255"].to_numpy()
        if lowest:
            key, words = one[tried == row["lowest_eps_255"]].iloc[0], "lowest confidence"
        else:
            key, words = _first_flip(job, target, one), "smallest flipping budget"
        clean = one.iloc[0]
        entries.append(
            Entry(
                image=job.images.get(row["index"]),
                index=row["index"],
                label=row["label"],
                eps_255=tried,
                predicted=one["predicted"].to_numpy(),
                confidence=one["confidence"].to_numpy(),
                true_confidence=one["true_confidence"].to_numpy(),
                clean_top5=(clean["top5_classes"], clean["top5_confidences"]),
                key_top5=(key["top5_classes"], key["top5_confidences"]),
                key_eps_255=float(key["eps_255"]),
                key_words=words,
            )
        )
    return entries


def _first_flip(job: StoredJob, target: str, rows: pd.DataFrame) -> pd.Series:
    """Return the answer at an image's smallest flipping budget, refined where the job did so."""
    if job.flips is not None:
        at = job.flips["target"].eq(target) & job.flips["index"].eq(rows["index"].iloc[0])
        if at.any():
            return job.flips[at].iloc[0]
    return rows[rows["predicted"] != rows["label"]].iloc[0]


def examples(
    job: StoredJob, target: str, stem: str, budgets: Sequence[float] | None
) -> list[Drawing]:
    """Draw the stored example images, their perturbations, and what the target says of them."""
    stored = job.examples
    if not stored:
        return []
    tried = stored["eps_255"].tolist()
    columns = _columns(tried, budgets)
    standard = tried.index(job.record.standard)
    rows = job.predictions
    rows = rows[(rows["target"] == target) & rows["index"].isin(stored["index"])]
    by_budget = rows.pivot(index="eps_255", columns="index", values=["predicted", "confidence"])
    clean = stored["clean"] / 255
    title = plain_text(f"{job.attack} made on {job.record.source}, shown to {target}")
    words: dict[str, Any] = {
        "labels": stored["label"].tolist(),
        "class_names": job.record.class_names,
        "title": title,
    }
    shown = [tried[column] for column in columns]
    largest = 255 * np.abs(stored["adversarial"][standard] - clean).max()
    scale = 255 / (2 * job.record.standard)
    return [
        drawn(
            f"triples-{stem}",
            "Image, perturbation, adversarial image",
            f"At {job.record.standard:g}/255. The perturbation is shown times {scale:.3g} around "
            f"grey; the largest change of a value is {largest:.3g}/255.",
            _verdicts(by_budget, stored, job.record.standard, job.record.class_names),
            lambda: triple(
                clean,
                stored["adversarial"][standard],
                job.record.standard,
                **_answers(by_budget, [job.record.standard]),
                **words,
            ),
            picture=True,
        ),
        drawn(
            f"series-{stem}",
            "The same images over the budget",
            f"Clean, then at {', '.join(f'{eps:g}' for eps in shown)} /255; under each the "
            "predicted class and its confidence.",
            _verdicts(by_budget, stored, shown[-1], job.record.class_names),
            lambda: series(
                clean,
                stored["adversarial"][columns],
                shown,
                **_answers(by_budget, shown),
                **words,
            ),
            picture=True,
        ),
    ]


def _columns(tried: Sequence[float], budgets: Sequence[float] | None) -> list[int]:
    """Return which of the tried budgets to draw.

    Raises:
        ValueError: One that is asked for was not tried.
    """
    if budgets is None:
        spread = np.linspace(0, len(tried) - 1, min(_MOST_BUDGETS, len(tried)))
        return sorted(set(spread.round().astype(int).tolist()))
    absent = [eps for eps in budgets if eps not in tried and eps != 0]
    if absent:
        raise ValueError(
            f"report.budgets names {absent[0]:g}, which is not among the budgets "
            f"{', '.join(f'{eps:g}' for eps in tried)}."
        )
    return [tried.index(eps) for eps in sorted(budgets) if eps != 0]


def _answers(by_budget: pd.DataFrame, budgets: Sequence[float]) -> dict[str, Any]:
    chosen_rows = by_budget.loc[[0.0, *budgets]]
    return {
        "predicted": chosen_rows["predicted"].to_numpy(dtype=int),
        "confidence": chosen_rows["confidence"].to_numpy(),
    }


def _verdicts(
    by_budget: pd.DataFrame, stored: Mapping[str, np.ndarray], eps: float, names: Sequence[str]
) -> str:
    words = []
    for index, label in zip(stored["index"].tolist(), stored["label"].tolist(), strict=True):
        said = by_budget.loc[eps]
        words.append(
            f"{names[label]} is taken for {names[int(said['predicted'][index])]} with "
            f"{said['confidence'][index]:.1%}"
        )
    return f"At {eps:g}/255: " + "; ".join(words)
