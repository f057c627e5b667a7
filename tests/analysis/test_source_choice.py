"""The choice of a source and its predictors against loops and exhaustive permutations."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy, spearmanr

from src.analysis.source_choice import (
    Transfer,
    advantages,
    choices,
    clean_measures,
    predictors,
    profiles,
    transfer_similarity,
)
from src.sources import main
from tests.conftest import REPOSITORY

MODELS = list("abcdef")


def made_up(models=MODELS, images=60, attacks=2, seed=0):
    """Return the transfer among models, of random numbers with effects of both sides."""
    random = np.random.default_rng(seed)
    shares = random.uniform(0.1, 0.5, len(models))[:, None] + random.uniform(0, 0.4, len(models))
    shape = (attacks, len(models), len(models), images)
    scores = (random.random(shape) < shares[..., None]).astype(float)
    scores[random.random(shape) < 0.1] = np.nan
    scores[:, np.eye(len(models), dtype=bool)] = np.nan
    names = [f"attack{number}" for number in range(attacks)]
    return Transfer(models, models, names, scores, random.random(len(models)))


def related(one, other):
    return one == other or {one, other} == {"a", "b"}


def rate(transfer, source, target):
    """Return a success rate by a loop over the attacks."""
    places = transfer.sources.index(source), transfer.targets.index(target)
    rows = [attack[places] for attack in transfer.scores]
    return np.mean([row[~np.isnan(row)].mean() for row in rows])


def test_advantages_are_effects_whatever_cells_are_missing():
    source, target = np.array([0.1, 0.4, 0.2]), np.array([0.0, 0.3, 0.1, 0.2])
    rates = source[:, None] + target
    rates[[0, 1, 2], [0, 1, 2]] = np.nan
    np.testing.assert_allclose(advantages(rates), source - source.mean())


def test_the_source_for_a_target_is_chosen_without_it_and_its_relatives():
    transfer = made_up()
    found = choices(transfer, related).set_index("target")
    for target in MODELS:
        able = [its for its in MODELS if not related(its, target)]
        seen = [its for its in MODELS if not related(its, target)]
        rows = np.array(
            [
                [np.nan if related(one, other) else rate(transfer, one, other) for other in seen]
                for one in able
            ]
        )
        chosen = able[int(np.argmax(advantages(rows)))]
        mine = {one: rate(transfer, one, target) for one in able}
        row = found.loc[target]
        assert (row["chosen"], row["best"]) == (chosen, max(mine, key=mine.get))
        numbers = (mine[chosen], max(mine.values()), np.mean(list(mine.values())))
        np.testing.assert_allclose(row[["success", "most", "any"]].astype(float), numbers)
        second = able[int(np.argsort(-advantages(rows))[1])]
        pair = [MODELS.index(chosen), MODELS.index(second)]
        both = transfer.scores[:, pair, MODELS.index(target)]
        counted = ~np.isnan(both).any(axis=1)
        assert row["best_2"] == pytest.approx(both.max(axis=1)[counted].mean())
    mean = found.loc["mean"]
    assert mean["success"] == pytest.approx(found["success"].iloc[:-1].mean())
    assert mean["success_low"] < mean["success"] < mean["success_high"]


def test_profiles_rank_the_sources_and_name_epochs():
    models = ["m", "m.epoch2", "other", "another"]
    transfer = made_up(models)
    found = profiles(transfer, lambda one, other: {one, other} <= {"m", "m.epoch2"} or one == other)
    assert found["success"].is_monotonic_decreasing
    rows = found.set_index("source").loc[models]
    np.testing.assert_array_equal(rows["own"], transfer.own)
    assert rows["model"].tolist() == ["m", "m", "other", "another"]
    np.testing.assert_array_equal(rows["epoch"], [np.nan, 2, np.nan, np.nan])
    rates = transfer.rates
    rates[:2, :2] = np.nan
    np.testing.assert_allclose(rows["success"], advantages(rates) + np.nanmean(rates))


def test_models_between_which_more_transfers_are_side_by_side():
    transfer = made_up(list("abcd"), images=400)
    rates = np.full((4, 4), 0.1)
    for one, other, rate in (("a", "c", 0.8), ("b", "d", 0.6)):
        places = [transfer.sources.index(one), transfer.sources.index(other)]
        rates[tuple(places)], rates[tuple(places[::-1])] = rate, rate - 0.2
    random = np.random.default_rng(0).permuted(np.linspace(0, 1, 400, endpoint=False), axis=0)
    transfer.scores[:] = random < rates[..., None]
    transfer.scores[:, np.eye(4, dtype=bool)] = np.nan
    found = transfer_similarity(transfer)
    assert found.loc["a", "c"] == pytest.approx(np.log(70), abs=0.01) == found.loc["c", "a"]
    assert found.loc["a", "b"] == pytest.approx(np.log(10), abs=0.05) and np.isnan(
        found.loc["a", "a"]
    )
    pairs = {frozenset(found.columns[:2]), frozenset(found.columns[2:])}
    assert pairs == {frozenset("ac"), frozenset("bd")}


def test_too_few_models_are_refused():
    with pytest.raises(ValueError, match="4 targets"):
        choices(made_up(MODELS[:3]), related)
    with pytest.raises(ValueError, match="related to every target"):
        choices(made_up(MODELS[:4]), lambda one, other: True)


def test_clean_measures_are_those_of_their_definitions():
    from statsmodels.stats.inter_rater import cohens_kappa

    right = pd.DataFrame(
        np.random.default_rng(0).random((50, 3)) < [0.5, 0.8, 1], columns=["a", "b", "c"]
    )
    found = clean_measures(right)
    counts = np.histogram2d(right["a"], right["b"], bins=2)[0]
    parts = [counts.sum(axis=1), counts.sum(axis=0), counts.ravel()]
    one, other, both = (entropy(part, base=2) for part in parts)
    assert found["information"].loc["a", "b"] == pytest.approx(one + other - both)
    assert found["kappa"].loc["a", "b"] == pytest.approx(cohens_kappa(counts).kappa)
    assert found["information"].loc["a", "c"] == pytest.approx(0)
    assert (found["source accuracy"].loc["a"] == right["a"].mean()).all()
    assert (found["target accuracy"]["a"] == right["a"].mean()).all()


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
        exact = np.mean([abs(rho(values[order])) >= abs(rho(values)) - 1e-12 for order in orders])
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
    few = predictors(made_up(MODELS[:5]), lambda places: frames, related)
    assert few["p"].isna().all()


def test_the_command_prints_a_choice_or_why_there_is_none(capsys, monkeypatch):
    demo = str(REPOSITORY / "docs" / "results" / "demo")
    monkeypatch.setattr("sys.argv", ["src.sources", demo])
    main()
    printed = capsys.readouterr().out
    assert "vit_small        resnet_small" in printed and "that needs 6 sources" in printed
    for words in ([demo, "--attack", "none"], [demo, "--eps", "3"], ["nowhere"]):
        monkeypatch.setattr("sys.argv", ["src.sources", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
