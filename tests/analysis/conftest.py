import numpy as np
import pandas as pd
import pytest


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
