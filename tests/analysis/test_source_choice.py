"""The choice of a source and its predictors against loops and exhaustive permutations."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy, spearmanr

from findings.predictors import mutual_information
from src.analysis.source_choice import Transfer, choices, profiles
from src.analysis.source_measures import clean_measures, predictors
from src.sources import main
from tests.conftest import REPOSITORY

MODELS = list("abcdef")
NEAR = 1e-12


def made_up(models=MODELS, images=60, attacks=2, seed=0):
    """Return the transfer among models, of random numbers with effects of both sides."""
    random = np.random.default_rng(seed)
    shares = random.uniform(0.1, 0.5, len(models))[:, None] + random.uniform(0, 0.4, len(models))
    shape = (attacks, len(models), len(models), images)
    scores = (random.random(shape) < shares[..., None]).astype(float)
    counts = random.random(shape[1:]) < 0.98
    scores[:, ~counts] = np.nan
    scores[:, np.eye(len(models), dtype=bool)] = np.nan
    names = [f"attack{number}" for number in range(attacks)]
    return Transfer(models, models, names, scores, counts, random.random(len(models)))


def related(one, other):
    return one == other or {one, other} == {"a", "b"}


def rate(transfer, source, target, images=None):
    """Return a success rate on the images that the target counts for every source, by a loop."""
    mine, other = transfer.sources.index(source), transfer.targets.index(target)
    chosen = range(transfer.counts.shape[-1]) if images is None else images
    chosen = [image for image in chosen if transfer.counts[:, other, image].all()]
    return np.mean([attack[mine, other, image] for attack in transfer.scores for image in chosen])


def fitted(rates):
    """Return the sources' means of fitted rates, from a regression on indicators."""
    pairs = np.argwhere(np.isfinite(rates))
    sources, targets = rates.shape
    design = [[*(s == np.arange(sources)), *(t == np.arange(1, targets))] for s, t in pairs]
    effects = np.linalg.lstsq(np.array(design, float), rates[np.isfinite(rates)], rcond=None)[0]
    return effects[:sources] + effects[sources:].sum() / targets


def test_the_source_for_a_target_is_chosen_without_it_and_its_relatives():
    transfer = made_up()
    found = choices(transfer, related).set_index("target")
    for target in MODELS:
        able = [its for its in MODELS if not related(its, target)]
        rows = np.array(
            [
                [np.nan if related(one, other) else rate(transfer, one, other) for other in able]
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
        transfer.scores[:] = np.where(
            np.isnan(transfer.scores), np.nan, random.random((1, 6, 6, 40)) < 0.3
        )
        rows = choices(transfer, str.__eq__).iloc[:-1]
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
        targets, counts = list("ghijkl"), np.ones((6, 6, 60), bool)
        transfer = Transfer(MODELS, targets, ["any"], scores, counts, np.full(6, np.nan))
        assert {*choices(transfer, str.__eq__)["chosen"].dropna()} == {"a"}


def test_below_five_targets_there_is_no_interval():
    few, enough = (choices(made_up(MODELS[:count]), str.__eq__).iloc[-1] for count in (4, 5))
    assert np.isnan(few["success_low"]) and np.isnan(few["most_high"]) and few["success"] > 0
    assert enough["success_low"] < enough["success"] < enough["success_high"]


def test_an_interval_is_for_new_targets_and_new_images():
    """Many images: the spread over targets, by t; equal targets: the spread over images."""
    transfer = made_up(images=4_000)
    mean = choices(transfer, str.__eq__)
    rates = mean["any"].iloc[:-1]
    half = 2.5706 * rates.std() / np.sqrt(6)  # t with five degrees of freedom
    assert mean["any_high"].iloc[-1] - mean["any"].iloc[-1] == pytest.approx(half, rel=0.02)


def test_profiles_rank_the_sources_and_name_epochs():
    models = ["m", "m.epoch2", "other", "another", "third"]
    transfer = made_up(models)
    found = profiles(transfer, lambda one, other: {one, other} <= {"m", "m.epoch2"} or one == other)
    assert found["success"].is_monotonic_decreasing
    rows = found.set_index("source").loc[models]
    np.testing.assert_array_equal(rows["own"], transfer.own)
    assert rows["model"].tolist() == ["m", "m", *models[2:]]
    np.testing.assert_array_equal(rows["epoch"], [np.nan, 2, np.nan, np.nan, np.nan])
    rates = transfer.rates
    rates[:2, :2] = np.nan
    np.testing.assert_allclose(rows["success"], fitted(rates))
    assert not rows["lacks"].any()


def test_profiles_without_enough_common_targets_say_what_to_add():
    found = profiles(made_up(list("abc")), str.__eq__)
    assert found["success"].isna().all()
    assert found["lacks"].eq("1 more target besides a, b, c").all()


def test_too_few_models_are_refused():
    with pytest.raises(ValueError, match="4 targets"):
        choices(made_up(MODELS[:3]), related)
    with pytest.raises(ValueError, match="unrelated"):
        choices(made_up(MODELS[:4]), lambda one, other: True)


def test_clean_measures_are_those_of_their_definitions():
    from statsmodels.stats.inter_rater import cohens_kappa

    right = pd.DataFrame(
        np.random.default_rng(0).random((50, 3)) < [0.5, 0.8, 1], columns=["a", "b", "c"]
    )
    found, information = clean_measures(right), mutual_information(right)
    counts = np.histogram2d(right["a"], right["b"], bins=2)[0]
    parts = [counts.sum(axis=1), counts.sum(axis=0), counts.ravel()]
    one, other, both = (entropy(part, base=2) for part in parts)
    assert information.loc["a", "b"] == pytest.approx(one + other - both)
    assert found["kappa"].loc["a", "b"] == pytest.approx(cohens_kappa(counts).kappa)
    assert information.loc["a", "c"] == pytest.approx(0)
    assert (found["source accuracy"].loc["a"] == right["a"].mean()).all()
    assert (found["target accuracy"]["a"] == right["a"].mean()).all()


@pytest.mark.slow
def test_predictors_are_measured_on_other_images_and_tested_over_models():
    transfer, seen = made_up(), []
    names = ["source accuracy", "target accuracy", "chance"]
    random = np.random.default_rng(1)
    fixed = {name: pd.DataFrame(random.random((6, 6)), MODELS, MODELS) for name in names}

    def measure(places):
        seen.append(places)
        return fixed

    found = predictors(transfer, measure, related).set_index("measure")
    assert seen == [list(range(1, 60, 2)), list(range(0, 60, 2))]
    used = np.array([[not related(one, other) for other in MODELS] for one in MODELS])
    halves = [transfer.of_images(slice(start, None, 2)).rates for start in (0, 1)]

    def rho(values):
        return np.mean([spearmanr(values[used], rates[used]).statistic for rates in halves])

    for name, frame in fixed.items():
        values = frame.to_numpy()
        assert found.loc[name, "rho"] == pytest.approx(rho(values))
        orders = [np.ix_(order, order) for order in permutations(range(6))]
        exact = np.mean(np.abs([rho(values[order]) for order in orders]) >= abs(rho(values)) - NEAR)
        assert found.loc[name, "p"] == pytest.approx(exact, abs=0.05)
    assert (found["pairs"] == 28).all()


def test_what_a_measure_adds_is_beyond_the_accuracies():
    transfer = made_up(images=400)
    rates = pd.DataFrame(transfer.rates, MODELS, MODELS)
    source = pd.DataFrame(np.tile(np.nanmean(transfer.rates, 1)[:, None], 6), MODELS, MODELS)
    target = pd.DataFrame(np.tile(np.nanmean(transfer.rates, 0), (6, 1)), MODELS, MODELS)
    frames = {"source accuracy": source, "target accuracy": target}
    frames |= {"the same": source**2, "rates": rates.fillna(0)}
    found = predictors(transfer, lambda places: frames, related).set_index("measure")
    assert found.loc["the same", "rho"] == found.loc["source accuracy", "rho"] > 0.5
    assert np.isnan(found.loc["the same", "added"]) and found.loc["rates", "added"] > 0.9
    assert found.loc["rates", "p"] < 0.01
    constant = predictors(transfer, lambda places: frames | {"one": rates * 0}, related)
    assert np.isnan(constant.set_index("measure").loc["one", "p"])
    few = predictors(made_up(MODELS[:5]), lambda places: frames, related)
    assert few["p"].isna().all()


def test_the_command_prints_a_choice_or_why_there_is_none(capsys):
    demo = str(REPOSITORY / "docs" / "results" / "demo")
    assert main([demo]) == 0
    printed = capsys.readouterr().out
    assert "vit_small        resnet_small" in printed and "that needs 6 sources" in printed
    for words in ([demo, "--attack", "none"], [demo, "--eps", "3"], ["nowhere"]):
        assert main(words) == 2 and capsys.readouterr().err.count("\n") == 1
