import numpy as np
import pandas as pd

from src.analysis.outcomes import Outcomes
from src.utils.model_names import ModelRef


def source_means(pairs, rates):
    """Return the effect of each source plus the mean one of all targets, by least squares."""
    sources, targets = (dict.fromkeys(names) for names in zip(*pairs, strict=True))
    design = [[s == one for one in sources] + [t == one for one in targets] for s, t in pairs]
    effects = np.linalg.lstsq(np.array(design, float), np.array(rates), rcond=None)[0]
    means = effects[: len(sources)] + effects[len(sources) :].mean(axis=0)
    return dict(zip(sources, means, strict=True))


def make_table(classes, label=0, target_label=None, confidence=None, true_confidence=None):
    """Make a predictions table of images 0, 1, ... from the classes of each (target, eps_255)."""
    parts = []
    for (target, eps), predicted in classes.items():
        part = pd.DataFrame({"index": np.arange(len(predicted)), "label": label})
        part = part.assign(target=target, eps_255=float(eps), predicted=predicted)
        part["confidence"] = (confidence or {}).get((target, eps), 0.5)
        part["true_confidence"] = (true_confidence or {}).get((target, eps), 0.5)
        if target_label is not None:
            labels = pd.Series(target_label, dtype="Int64")
            part["target_label"] = labels if eps else labels.mask(labels.notna())
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def outcomes_of_arrays(jobs, targets, fooled, counted=None, evaluated=None, aimed=()) -> Outcomes:
    """Return outcomes from successes of shape (J, T, N); by default all pairs and images count."""
    fooled = np.asarray(fooled, bool)
    evaluated = np.ones(fooled.shape[:2], bool) if evaluated is None else evaluated
    counted = np.ones_like(fooled) if counted is None else np.broadcast_to(counted, fooled.shape)
    counted = counted & evaluated[..., None]
    return Outcomes(
        jobs,
        [ModelRef.parse(target) for target in targets],
        np.arange(fooled.shape[2]),
        np.array([attack in aimed for attack, _ in jobs]),
        evaluated,
        counted,
        fooled & counted,
        ~fooled & counted,
    )


def outcomes_of(values, aimed=()) -> Outcomes:
    """Return outcomes of images by (attack, source, target): fooled 1 or 0; -1 is not counted.

    The attacks in `aimed` have target labels.
    """
    jobs = [*dict.fromkeys(key[:2] for key in values)]
    targets = [*dict.fromkeys(target for *_, target in values)]
    images = max(map(len, values.values()))
    found = np.full((len(jobs), len(targets), images), -2)
    for (*job, target), its in values.items():
        found[jobs.index(tuple(job)), targets.index(target)] = its
    evaluated = (found > -2).any(axis=2)
    return outcomes_of_arrays(jobs, targets, found == 1, found >= 0, evaluated, aimed)
