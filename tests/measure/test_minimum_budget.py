"""The minimum adversarial budget, against closed forms and against attacks run again."""

from functools import partial

import numpy as np
import pytest
import torch

from src.attacks import bim, fgsm, pgd
from src.data import Batch
from src.models import Ensemble

GRID = (0.25, 1.0, 2.0, 4.0, 8.0, 16.0)
ONLY = {"bisection": 4}


def smallest(dataset, batch_of, source, target):
    """Budget at which a target of two classes flips along the source's sign: margin over slope."""
    clean, batch = batch_of(dataset)
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
def test_linear_models_flip_where_the_closed_form_says(
    attack, halvings, images, linear, batch_of, diagnosed
):
    networks = {"a": linear(0, 2), "b": linear(5, 2)}
    dataset = images(40, classes=2, model=networks["a"])
    arguments = (dataset, networks["a"], networks, attack, GRID)
    found = diagnosed(*arguments, only={"bisection": halvings}, batch_size=20).flips
    grid = np.array([0, *GRID])
    for name, network in networks.items():
        exact = smallest(dataset, batch_of, networks["a"], network)
        clean, batch = batch_of(dataset)
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


ATTACKS = {
    "fgsm": (fgsm, {}),
    "pgd in small batches": (partial(pgd, steps=3), {"max_batch": 2}),
    "l2": (partial(pgd, steps=3, norm="l2"), {"norm": "l2"}),
    "random target labels": (partial(pgd, steps=3), {"target_label": "random"}),
    "ensemble": (partial(bim, steps=3), {"average": "loss"}),
}
RARE = ("l2", "random target labels")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow if case in RARE else []) for case in ATTACKS]
)
def test_the_upper_bound_flips_and_the_lower_does_not_when_run_again(
    case, images, curved, batch_of, diagnosed
):
    attack, words = ATTACKS[case]
    words = dict(words)
    networks = {"a": curved(0), "b": curved(1)}
    average = words.pop("average", None)
    source = Ensemble(list(networks.values()), average) if average else networks["a"]
    dataset = images(30, model=networks["a"])
    run = diagnosed(dataset, source, networks, attack, GRID, only=ONLY, batch_size=15, **words)
    clean, whole = batch_of(dataset)
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
