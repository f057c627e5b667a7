import numpy as np
import pandas as pd
import pytest

from src.analysis.outcomes import Outcomes, joined
from src.utils.model_names import ModelRef


def rows_of(success: dict[tuple[str, str, str], list[int]], aimed: bool = False) -> pd.DataFrame:
    """Return outcomes of images by (attack, source, target); -1 is an image not counted."""
    parts = [
        pd.DataFrame(
            {
                "attack": attack,
                "source": source,
                "target": [target] * len(values),
                "index": range(len(values)),
                "target_label": 3.0 if aimed else np.nan,
                "counted": [value >= 0 for value in values],
                "success": [value == 1 for value in values],
            }
        )
        for (attack, source, target), values in success.items()
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="session")
def make_table():
    """Make a predictions table of images 0, 1, ... from the classes of each (target, eps_255)."""

    def make(classes, label=0, target_label=None, confidence=None, true_confidence=None):
        parts = []
        for (target, eps), predicted in classes.items():
            part = pd.DataFrame({"index": np.arange(len(predicted)), "label": label})
            part["target"] = target
            part["eps_255"] = float(eps)
            part["predicted"] = predicted
            part["confidence"] = (confidence or {}).get((target, eps), 0.5)
            part["true_confidence"] = (true_confidence or {}).get((target, eps), 0.5)
            if target_label is not None:
                labels = pd.Series(target_label, dtype="Int64")
                part["target_label"] = labels if eps else labels.mask(labels.notna())
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    return make


@pytest.fixture(scope="session")
def outcomes_of():
    """Lay out rows of images: attack, source, target, index, target_label, counted, success.

    Targets are pairs of model and defence, or models behind none.
    """

    def pair_of(target):
        return ModelRef.parse(target) if isinstance(target, str) else ModelRef.parse(*target)

    def layout(rows):
        parts = []
        for (attack, source), job in rows.groupby(["attack", "source"], sort=False):
            index, targets = np.unique(job["index"]), [*map(pair_of, job["target"].unique())]
            counted, fooled = np.zeros((2, 1, len(targets), len(index)), bool)
            for row in job.itertuples():
                place = 0, targets.index(pair_of(row.target)), np.searchsorted(index, row.index)
                counted[place], fooled[place] = row.counted, row.counted and row.success
            parts.append(
                Outcomes(
                    [(attack, source)],
                    targets,
                    index,
                    np.array([job["target_label"].notna().any()]),
                    np.ones((1, len(targets)), bool),
                    counted,
                    fooled,
                    counted & ~fooled,
                )
            )
        return joined(parts)

    return layout
