"""The pictures of a pair: galleries of images found by definition, and examples."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from src.analysis.phenomena import KINDS
from src.report.chapters.drawing import drawn
from src.report.content import Drawing
from src.report.galleries import chosen
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
    for kind, rows in picked.items():
        total = int(images[kind].sum())
        if rows.empty:
            continue
        entries = _entries(job, target, rows, lowest=kind == "dip_and_recovery")
        drawings.append(
            drawn(
                f"gallery-{kind}-{stem}",
                f"Gallery: {KINDS[kind]}",
                f"{len(rows)} of the {total} such images among {len(images)} that are counted and "
                "initially right. Clean "
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
            key, words = _first_flip(job, target, one, row["first_flip_eps_255"])
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


def _first_flip(
    job: StoredJob, target: str, rows: pd.DataFrame, eps_255: float
) -> tuple[pd.Series, str]:
    """Return the answer at an image's smallest flipping budget, and what to call the budget."""
    if job.flips is not None:
        at = job.flips["target"].eq(target) & job.flips["index"].eq(rows["index"].iloc[0])
        at &= job.flips["eps_255"].eq(eps_255)
        if at.any():
            return job.flips[at].iloc[0], "smallest flipping budget"
    return rows[rows["eps_255"] == eps_255].iloc[0], "smallest flipping budget tried"


def examples(
    job: StoredJob, target: str, stem: str, budgets: Sequence[float] | None
) -> list[Drawing]:
    """Draw the stored example images, their perturbations, and what the target says of them."""
    stored = job.examples
    if not stored:
        return []
    tried = stored["eps_255"].tolist()
    rows = job.predictions
    rows = rows[(rows["target"] == target) & rows["index"].isin(stored["index"])]
    by_budget = rows.pivot(index="eps_255", columns="index", values=["predicted", "confidence"])
    words: dict[str, Any] = {
        "labels": stored["label"].tolist(),
        "class_names": job.record.class_names,
        "title": plain_text(f"{job.attack} made on {job.record.source}, shown to {target}"),
    }
    wanted = [eps for eps in budgets or [job.record.standard] if eps in tried]
    triples = [_triple(job, stem, eps, by_budget, words) for eps in wanted]
    return [*triples, _series(job, stem, _shown(tried, budgets), by_budget, words)]


def _triple(
    job: StoredJob, stem: str, eps: float, by_budget: pd.DataFrame, words: Mapping[str, Any]
) -> Drawing:
    stored = job.examples
    clean = stored["clean"] / 255
    changed = stored["adversarial"][stored["eps_255"].tolist().index(eps)]
    return drawn(
        f"triples-{stem}-{eps:g}",
        "Image, perturbation, adversarial image",
        f"At {eps:g}/255. The perturbation is shown times {255 / (2 * eps):.3g} around grey; the "
        f"largest change of a value is {255 * np.abs(changed - clean).max():.3g}/255.",
        _verdicts(by_budget, stored, eps, job.record.class_names),
        lambda: triple(clean, changed, eps, **_answers(by_budget, [eps]), **words),
        picture=True,
    )


def _series(
    job: StoredJob,
    stem: str,
    shown: Sequence[float],
    by_budget: pd.DataFrame,
    words: Mapping[str, Any],
) -> Drawing:
    stored = job.examples
    columns = [stored["eps_255"].tolist().index(eps) for eps in shown]
    return drawn(
        f"series-{stem}",
        "The same images over the budget",
        f"Clean, then at {', '.join(f'{eps:g}' for eps in shown)} /255; under each the predicted "
        "class and its confidence.",
        _verdicts(by_budget, stored, shown[-1], job.record.class_names),
        lambda: series(
            stored["clean"] / 255,
            stored["adversarial"][columns],
            shown,
            **_answers(by_budget, shown),
            **words,
        ),
        picture=True,
    )


def _shown(tried: Sequence[float], budgets: Sequence[float] | None) -> list[float]:
    """Return which of the tried budgets a series shows: those asked for, else some of them."""
    wanted = [eps for eps in sorted(budgets or []) if eps in tried]
    if wanted:
        return wanted
    spread = np.linspace(0, len(tried) - 1, min(_MOST_BUDGETS, len(tried)))
    return [tried[place] for place in sorted(set(spread.round().astype(int).tolist()))]


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
