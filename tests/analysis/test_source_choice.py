"""The choice of a source against loops over halves of the images."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import t as student

from src.analysis.source_choice import choices
from src.sources import main
from tests.analysis.conftest import outcomes_of_arrays, source_means
from tests.conftest import REPOSITORY

MODELS = list("abcdef")
NUMBERS = ["success", "most", "any", "best_2", "best_3"]


def transfer_of(fooled, counted=True, targets=None):
    """Return outcomes from arrays of shape (A, S, T, N); a source does not attack itself."""
    attacks, sources, count, images = fooled.shape
    sources, targets = MODELS[:sources], targets or MODELS[:count]
    jobs = [(f"attack{number}", source) for number in range(attacks) for source in sources]
    evaluated = np.array([[source != target for target in targets] for _, source in jobs])
    counted = np.broadcast_to(counted, fooled.shape).reshape(-1, count, images)
    return outcomes_of_arrays(jobs, targets, fooled.reshape(-1, count, images), counted, evaluated)


def made_up(models=6, images=60):
    """Return the random transfer among models, with effects of both sides, and what counts."""
    random = np.random.default_rng(0)
    shares = random.uniform(0.1, 0.5, models)[:, None] + random.uniform(0, 0.4, models)
    fooled = random.random((2, models, models, images)) < shares[..., None]
    return fooled, random.random(fooled.shape[1:]) < 0.98


def chosen(fooled, counted, target, half):
    """Return the other sources by their success on other targets, and the best one on this."""
    able = [its for its in range(len(MODELS)) if its != target]
    rates = np.full((len(MODELS), len(MODELS)), np.nan)
    for source, other in np.argwhere(~np.eye(len(MODELS), dtype=bool)):
        rates[source, other] = fooled[:, source, other, half & counted[other]].mean()
    pairs = list(permutations(able, 2))
    values = source_means(pairs, [rates[pair] for pair in pairs])
    return sorted(able, key=lambda s: -values[s]), max(able, key=lambda s: rates[s, target])


def test_a_source_is_chosen_on_other_targets_and_judged_on_other_images():
    fooled, counts = made_up()
    # Images that a target counts for every source.
    counted = np.array([counts[np.arange(6) != target, target].all(axis=0) for target in range(6)])
    found, every = choices(transfer_of(fooled, counts)), []
    first = np.tile(np.arange(60) % 2 == 0, (10, 1))
    first = np.random.default_rng(0).permuted(first, axis=1)
    for target, row in enumerate(found.iloc[:-1].itertuples()):
        order, best = chosen(fooled, counted, target, np.ones(60, bool))
        assert (row.chosen, row.best) == (MODELS[order[0]], MODELS[best])
        parts = []
        for half in (*first, *~first):
            order, best = chosen(fooled, counted, target, half)
            groups = (order[:1], [best], order[:2], order[:3])
            numbers = [fooled[:, its, target].any(axis=1).mean(axis=0) for its in groups]
            numbers.insert(2, fooled[:, order, target].mean(axis=(0, 1)))
            judged = counted[target] & ~half
            parts.append(judged * [*numbers, np.ones(60)] / judged.sum())
        every.append(np.mean(parts, axis=0))
        assert [getattr(row, name) for name in NUMBERS] == pytest.approx(every[-1][:-1].sum(axis=1))
        assert row.candidates == 5
    last, rates = found.iloc[-1], np.sum(every, axis=2)[:, :-1]
    *parts, weights = np.mean(every, axis=0)
    for name, its, part in zip(NUMBERS, rates.T, parts, strict=True):
        over_images = np.square(part - its.mean() * weights).sum() * 60 / 59
        half = student.ppf(0.975, 5) * np.sqrt(its.var(ddof=1) / 6 + over_images)
        ends = [its.mean(), its.mean() - half, its.mean() + half]
        assert last[[name, f"{name}_low", f"{name}_high"]].tolist() == pytest.approx(ends)


def test_few_models_have_no_interval_and_too_few_are_refused():
    few, enough = (choices(transfer_of(*made_up(count))).iloc[-1] for count in (4, 5))
    assert np.isnan([few["success_low"], few["most_high"]]).all() and few["success"] > 0
    assert enough["success_low"] < enough["success"] < enough["success_high"]
    for arrays, said in ((made_up(3), "4 targets"), ((made_up(4)[0], False), "other networks")):
        with pytest.raises(ValueError, match=said):
            choices(transfer_of(*arrays))


def test_the_command_prints_a_choice_or_why_there_is_none(capsys):
    demo = str(REPOSITORY / "docs" / "results" / "demo")
    for words in ([demo, "--attack", "none"], [demo, "--eps", "3"], ["nowhere"]):
        assert main(words) == 2 and capsys.readouterr().err.count("\n") == 1
