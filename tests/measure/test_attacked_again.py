"""Minimum budgets and iterates, against closed forms and against attacks run again."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from src.analysis.diagnostics import success_over_iterations
from src.attacks import bim, fgsm, pgd, vmi
from src.data import Batch
from src.models import Ensemble
from tests.measure.small import all_of, curved, diagnosed, linear, make_images

GRID = (0.25, 1.0, 2.0, 4.0, 8.0, 16.0)


def smallest(dataset, source, target):
    """Budget at which a target of two classes flips along the source's sign: margin over slope."""
    clean, batch = all_of(dataset)
    own, other = batch.labels, 1 - batch.labels
    along = (source[1].weight[other] - source[1].weight[own]).sign()
    slope = ((target[1].weight[other] - target[1].weight[own]) * along).sum(1)
    logits = target(clean)
    rows = torch.arange(len(own))
    return 255 * ((logits[rows, own] - logits[rows, other]) / slope).double().numpy()


@pytest.mark.parametrize(
    ("attack", "halvings"),
    [(fgsm, 12), (partial(bim, steps=4), 6)],
)
def test_linear_models_flip_where_the_closed_form_says(attack, halvings):
    networks = {"a": linear(0, 2), "b": linear(5, 2)}
    dataset = make_images(40, classes=2, model=networks["a"])
    arguments = (dataset, networks["a"], networks, attack, GRID)
    found = diagnosed(*arguments, only={"bisection": halvings}, batch_size=20).flips
    grid = np.array([0, *GRID])
    for name, network in networks.items():
        exact = smallest(dataset, networks["a"], network)
        clean, batch = all_of(dataset)
        correct = (network(clean).argmax(1) == batch.labels).numpy()
        flips = correct & (exact > 0) & (exact <= GRID[-1])
        rows = found[found["target"] == name].set_index("index")
        assert rows.index.tolist() == dataset.indices[correct].tolist() and flips.sum() > 5
        never = rows[rows["eps_255"].isna()]
        assert never.index.tolist() == dataset.indices[correct & ~flips].tolist()
        assert (never["below_eps_255"] == GRID[-1]).all()
        assert (never["predicted"] == never["label"]).all()
        rows = rows.dropna()
        low, high = rows["below_eps_255"].to_numpy(), rows["eps_255"].to_numpy()
        assert (low <= exact[flips] + 1e-4).all() and (exact[flips] <= high + 1e-4).all()
        cell = np.searchsorted(grid, exact[flips])
        np.testing.assert_allclose(high - low, (grid[cell] - grid[cell - 1]) / 2**halvings)
        assert (low >= grid[cell - 1]).all() and (high <= grid[cell]).all()
    assert (found.groupby("target")["index"].diff().dropna() > 0).all()


@pytest.mark.parametrize(
    ("attack", "average", "words"),
    [
        (fgsm, None, {}),
        (partial(pgd, steps=3), None, {"max_batch": 2, "target_label": "next"}),
        (partial(bim, steps=3), "loss", {}),
    ],
)
def test_the_upper_bound_flips_and_the_lower_does_not_when_run_again(attack, average, words):
    networks = {"a": curved(0), "b": curved(1)}
    source = Ensemble(list(networks.values()), average) if average else networks["a"]
    dataset, words = make_images(30, model=networks["a"]), {"only": {"bisection": 4}, **words}
    run = diagnosed(dataset, source, networks, attack, GRID, batch_size=15, **words)
    clean, whole = all_of(dataset)
    for name, network in networks.items():
        rows = run.flips[run.flips["target"] == name].dropna()
        assert len(rows) > 2
        index = rows["index"].tolist()
        batch = Batch(*(column[index] for column in whole))
        for bound, flips in (("below_eps_255", False), ("eps_255", True)):
            eps = torch.tensor(rows[bound].to_numpy())[None].float() / 255
            (adversarial,) = run.attacker.perturbed(clean[index], batch, eps)
            again = network(adversarial).softmax(1)
            assert ((again.argmax(1) != batch.labels) == flips).all()
        top = again.topk(3)
        true = again.gather(1, batch.labels[:, None])[:, 0]
        assert rows["top5_classes"].map(list).tolist() == top.indices.tolist()
        np.testing.assert_allclose(np.stack(rows["top5_confidences"]), top.values, atol=1e-5)
        np.testing.assert_allclose(rows["true_confidence"], true, atol=1e-5)


BATCH = 6


@pytest.mark.parametrize(
    "attack",
    [
        partial(pgd, step_size_255=2.0),
        partial(vmi, step_size_255=1.0, neighbours=2),
        partial(bim, norm="l2", relative_step_size=0.5),
    ],
)
def test_an_iterate_is_the_result_of_as_many_equal_steps(attack):
    model, random = curved(0), torch.Generator().manual_seed(0)
    images = torch.rand(BATCH, 3, 8, 8, generator=random)
    labels, eps = torch.arange(BATCH) % 3, torch.tensor([4 / 255, 8 / 255])
    given = (model, images, labels, eps)
    found = attack(*given, steps=5, iterates=[1, 3, 5])
    assert found.shape == (3, 2, BATCH, 3, 8, 8)
    for steps, iterate in zip((1, 3, 5), found, strict=True):
        assert torch.equal(iterate, attack(*given, steps=steps))
    parts = attack(*given, steps=5, iterates=[3], max_batch=4)
    torch.testing.assert_close(parts[0], found[1])
    assert attack(*given[:3], 8 / 255, steps=5, iterates=[2]).shape == (1, BATCH, 3, 8, 8)


def test_targets_see_the_iterates_and_the_last_is_the_attacks_result():
    networks = {"a": curved(0), "b": curved(1)}
    dataset = make_images(model=networks["a"])
    attack = partial(bim, steps=4)
    only = {"only": {"iterations": (1, 2, 4)}, "keys": {"steps": 4}}
    run = diagnosed(dataset, networks["a"], networks, attack, batch_size=11, **only)
    rows, whole = run.iterations, run.tables["float32"]
    assert set(rows["eps_255"]) == {8.0} and rows.groupby("iteration").size().tolist() == [22] * 3
    last = rows[rows["iteration"] == 4].sort_values(["target", "index"]).reset_index(drop=True)
    wanted = whole[whole["eps_255"] == 8].sort_values(["target", "index"]).reset_index(drop=True)
    assert last["predicted"].tolist() == wanted["predicted"].tolist()
    np.testing.assert_allclose(last["confidence"], wanted["confidence"], atol=1e-5)
    assert (whole["gradients"] == 1 + 3 * 3).all()


def test_rates_are_counted_by_hand():
    def rows(target, predicted, **more):
        numbers = {"label": [0, 1, 0, 1], "index": range(4), "confidence": 0.5}
        return pd.DataFrame(
            {**numbers, "predicted": predicted, "true_confidence": 0.5, "target": target, **more}
        )

    clean = [rows("a", [0, 1, 0, 0]), rows("b", [0, 1, 1, 1])]
    clean = pd.concat(clean).assign(eps_255=0.0, defence="none")
    moved = {1: [0, 1, 1, 1], 5: [1, 1, 0, 0], 9: [1, 0, 0, 0]}
    moved = pd.concat([rows("b", classes, iteration=each) for each, classes in moved.items()])
    moved = moved.assign(eps_255=8.0, step_255=2.0)
    part = moved.query("index < 2")  # `diagnostics.n_images`
    for chosen, protocol in ((moved, "joint"), (part, "all")):
        found = success_over_iterations(chosen, clean, "a", ["b"], protocol)
        assert found["iteration"].tolist() == [0, 1, 5, 9] and set(found["denominator"]) == {2}
        assert found["success_rate"].tolist() == [0, 0, 0.5, 1]
        assert set(found["eps_255"]) == {8} and set(found["step_255"]) == {2}
