"""The choice of a source against loops."""

import numpy as np
import pytest

from src.analysis.outcomes import Outcomes
from src.analysis.source_choice import choices
from src.sources import main
from src.utils.model_names import ModelRef
from tests.conftest import REPOSITORY

MODELS = list("abcdef")
NEAR = 1e-12


def outcomes_of(sources, targets, fooled, counted):
    """Return outcomes from arrays of shape (A, S, T, N); a source does not attack itself."""
    attacks, *_, images = fooled.shape
    jobs = [(f"attack{number}", source) for number in range(attacks) for source in sources]
    evaluated = np.array([[source != target for target in targets] for _, source in jobs])
    counted = np.broadcast_to(counted, fooled.shape).reshape(len(jobs), len(targets), images)
    counted = counted & evaluated[..., None]
    fooled = fooled.reshape(counted.shape).astype(bool) & counted
    refs, index = [ModelRef.parse(target) for target in targets], np.arange(images)
    untargeted = np.zeros(len(jobs), bool)
    return Outcomes(jobs, refs, index, untargeted, evaluated, counted, fooled, counted & ~fooled)


def made_up(models=MODELS, images=60, attacks=2, seed=0):
    """Return the transfer among models, of random numbers with effects of both sides."""
    random = np.random.default_rng(seed)
    shares = random.uniform(0.1, 0.5, len(models))[:, None] + random.uniform(0, 0.4, len(models))
    shape = (attacks, len(models), len(models), images)
    fooled = random.random(shape) < shares[..., None]
    return outcomes_of(models, models, fooled, random.random(shape[1:]) < 0.98)


def rate(outcomes, source, target):
    """Return a success rate on the images that the target counts for every source, by a loop."""
    at = [str(its) for its in outcomes.targets].index(target)
    jobs = range(len(outcomes.jobs))
    chosen = [
        image
        for image in range(len(outcomes.index))
        if all(outcomes.counted[job, at, image] for job in jobs if outcomes.evaluated[job, at])
    ]
    mine = [job for job in jobs if outcomes.jobs[job][1] == source]
    return np.mean([outcomes.fooled[job, at, image] for job in mine for image in chosen])


def fitted(rates):
    """Return the sources' means of fitted rates, from a regression on indicators."""
    pairs = np.argwhere(np.isfinite(rates))
    sources, targets = rates.shape
    design = [[*(s == np.arange(sources)), *(t == np.arange(1, targets))] for s, t in pairs]
    effects = np.linalg.lstsq(np.array(design, float), rates[np.isfinite(rates)], rcond=None)[0]
    return effects[:sources] + effects[sources:].sum() / targets


def test_the_source_for_a_target_is_chosen_without_it():
    transfer = made_up()
    found = choices(transfer).set_index("target")
    for target in MODELS:
        able = [its for its in MODELS if its != target]
        rows = np.array(
            [
                [np.nan if one == other else rate(transfer, one, other) for other in able]
                for one in able
            ]
        )
        mine = {one: rate(transfer, one, target) for one in able}
        row = found.loc[target]
        chosen = able[int(np.argmax(fitted(rows)))]
        assert (row["chosen"], row["best"]) == (chosen, max(mine, key=mine.get))
        assert row["any"] == pytest.approx(np.mean(list(mine.values())), abs=0.03)
    assert (found["success"].iloc[:-1] <= found["best_2"].iloc[:-1]).all()
    assert (found["best_2"].iloc[:-1] <= found["best_3"].iloc[:-1]).all()
    mean = found.loc["mean"]
    assert mean["success"] == pytest.approx(found["success"].iloc[:-1].mean())
    assert mean["success_low"] < mean["success"] < mean["success_high"]


def test_a_source_is_judged_on_other_images_than_it_was_chosen_on():
    """All sources are equal, so that the largest of them is larger by chance alone."""
    found = []
    for seed in range(40):
        transfer = made_up(images=40, seed=seed)
        random = np.random.default_rng(seed)
        equal = random.random((6, 6, 40)) < 0.3  # for both attacks
        transfer.fooled[:] = transfer.counted & np.concatenate([equal, equal])
        rows = choices(transfer).iloc[:-1]
        hindsight = [max(rate(transfer, s, t) for s in MODELS if s != t) for t in MODELS]
        found.append(
            [*(rows[name].mean() for name in ("success", "most", "any")), np.mean(hindsight)]
        )
    assert np.mean(found, axis=0) == pytest.approx([0.3, 0.3, 0.3, 0.39], abs=0.02)


def test_of_sources_that_are_equal_but_for_rounding_the_first_is_chosen():
    for seed in range(12):
        random = np.random.default_rng(seed)
        scores = (random.random((1, 6, 6, 60)) < 0.5).astype(float)
        scores[0, 0] = np.maximum(scores[0, 0], random.random((6, 60)) < 0.6)
        scores[0, 1] = scores[0, 0, :, ::-1]
        transfer = outcomes_of(MODELS, list("ghijkl"), scores, np.True_)
        assert {*choices(transfer)["chosen"].dropna()} == {"a"}


def test_below_five_targets_there_is_no_interval():
    few, enough = (choices(made_up(MODELS[:count])).iloc[-1] for count in (4, 5))
    assert np.isnan(few["success_low"]) and np.isnan(few["most_high"]) and few["success"] > 0
    assert enough["success_low"] < enough["success"] < enough["success_high"]


def test_an_interval_is_for_new_targets_and_new_images():
    """Many images: the spread over targets, by t; equal targets: the spread over images."""
    transfer = made_up(images=4_000)
    mean = choices(transfer)
    rates = mean["any"].iloc[:-1]
    half = 2.5706 * rates.std() / np.sqrt(6)  # t with five degrees of freedom
    assert mean["any_high"].iloc[-1] - mean["any"].iloc[-1] == pytest.approx(half, rel=0.02)


def test_too_few_models_are_refused():
    with pytest.raises(ValueError, match="4 targets"):
        choices(made_up(MODELS[:3]))
    transfer = made_up(MODELS[:4])
    transfer.counted[:] = transfer.fooled[:] = False
    with pytest.raises(ValueError, match="other networks"):
        choices(transfer)


def test_the_command_prints_a_choice_or_why_there_is_none(capsys):
    demo = str(REPOSITORY / "docs" / "results" / "demo")
    assert main([demo]) == 0
    printed = capsys.readouterr().out
    assert "vit_small        resnet_small" in printed and "These trainings alone" in printed
    assert main([demo, "--no-related"]) == 0
    assert "without related pairs" in capsys.readouterr().out
    for words in ([demo, "--attack", "none"], [demo, "--eps", "3"], ["nowhere"]):
        assert main(words) == 2 and capsys.readouterr().err.count("\n") == 1
