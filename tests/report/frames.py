"""Frames whose counts are chosen by hand, and what tables and pages show of them."""

import csv
import io
from typing import Any

import numpy as np
import pandas as pd

import src
from src.report.results import COLUMNS
from src.utils.model_names import TARGET_COLUMNS, ModelRef
from tests.records import JOBS, make_record, results_of_frame

IMAGES = 40
BUDGETS = (0.0, 4.0, 8.0)
NAMES = {
    "plain": ("vgg", "vit", "fgsm", "mi", "di"),
    "hostile": ("a_b", "=b%", "&x", "-y#", "@\\z"),
}


def frame_of(fooled: dict[tuple[str, str, str], int]) -> pd.DataFrame:
    """Return a frame in which so many of 20 images are fooled by attack, source and target.

    That is at 8/255; at 4/255 half as many are, on the clean images none; fooled are the first.
    """
    parts, records = [], []
    targets = list(dict.fromkeys(target for *_, target in fooled))
    rows = {"norm": "linf", "protocol": "joint", "variant": "float32", "draws": 1, "label": 0}
    rows |= {"index": np.arange(IMAGES), "confidence": 0.75, "true_confidence": 0.5}
    for attack, source in dict.fromkeys(job[:2] for job in fooled):
        for target in dict.fromkeys((source, *targets)):
            there = (attack, source, target) in fooled
            for eps in BUDGETS if there else BUDGETS[:1]:
                count = fooled.get((attack, source, target), 0) * eps // 8 * IMAGES // 20
                own = {"attack": attack, "source": source, "eps_255": eps}
                own |= dict(zip(TARGET_COLUMNS, ModelRef.parse(target).columns, strict=True))
                own |= {"predicted": (np.arange(IMAGES) < count).astype(int)}
                own |= {"gradients": 7.0 * (eps > 0), "forwards": 9.0 * (eps > 0)}
                parts.append(pd.DataFrame(rows | own))
        record = make_record(
            **{"key": attack + source, "data": "0123456789abcdef", "images": IMAGES},
            **{"class_names": ("cat", "dog"), "weights": dict.fromkeys(targets, "fedcba9876")},
            **{"source": source, "targets": targets, "attack": attack},
            **{"budgets": BUDGETS, "reference": 8.0},
        )
        records.append(record.model_dump(mode="json"))
    return as_predictions(pd.concat(parts, ignore_index=True), records)


def as_predictions(rows: pd.DataFrame, records: list[dict[str, Any]]) -> pd.DataFrame:
    """Return rows as untargeted predictions of the jobs with these records."""
    rows = rows.assign(target_label=pd.NA, draws_correct=pd.NA)
    rows = rows.astype({"target_label": "Int64", "draws_correct": "Int64"})[[*COLUMNS]]
    rows.attrs[JOBS] = records
    return rows


def ordinary(kind: str = "plain") -> pd.DataFrame:
    """Two sources, three attacks; MI fools most, DI one image fewer, FGSM far fewer."""
    a, b, *attacks = NAMES[kind]
    counts = {(a, a): (20, 20, 20), (a, b): (2, 20, 19), (b, a): (4, 16, 16), (b, b): (18, 18, 18)}
    return frame_of(
        {
            (attack, *pair): its[number]
            for pair, its in counts.items()
            for number, attack in enumerate(attacks)
        }
    )


def table(frame: pd.DataFrame, **options: Any) -> Any:
    return src.table(results_of_frame(frame), **options)


def cells_of(text: str) -> list[list[str]]:
    """Return the cells of a table in Markdown, without the line below its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [rows[0], *rows[2:]]


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the rows of a table as CSV."""
    return list(csv.DictReader(io.StringIO(str(text))))
