import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def make_table():
    """Make a predictions table of images 0, 1, ... from each (target, eps_255)'s answers."""

    def make(answers, label=0, target_label=None, confidence=None, true_confidence=None):
        parts = []
        for (target, eps), predicted in answers.items():
            part = pd.DataFrame({"index": np.arange(len(predicted)), "label": label})
            part["target"] = target
            part["eps_255"] = float(eps)
            part["predicted"] = predicted
            part["confidence"] = (confidence or {}).get((target, eps), 0.5)
            part["true_confidence"] = (true_confidence or {}).get((target, eps), 0.5)
            if target_label is not None:
                aims = pd.Series(target_label, dtype="Int64")
                part["target_label"] = aims if eps else aims.mask(aims.notna())
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    return make
