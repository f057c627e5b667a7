"""The smallest flipping budget, against closed forms and against attacks run again."""

from functools import partial

import numpy as np
import pytest
import torch
from src.diagnostics.diagnostic import DiagnosticInput

from src.attacks import bim, fgsm, mi_fgsm, pgd
from src.data import Batch
from src.diagnostics import Bisection
from src.diagnostics.minimum_budget import _brackets
from src.models import Ensemble

GRID = (0.25, 1.0, 2.0, 4.0, 8.0, 16.0)
ONLY = {"bisection": 6}
COLUMNS = [
    *("index", "label", "target", "below_eps_255", "eps_255", "predicted", "confidence"),
    *("true_confidence", "top5_classes", "top5_confidences"),
]


def smallest(dataset, batch_of, source, target):
    """Where a target of two classes flips along the source's sign: its margin over its slope."""
    clean, batch = batch_of(dataset)
    own, other = batch.labels, 1 - batch.labels
    along = (source[1].weight[other] - source[1].weight[own]).sign()
    slope = ((target[1].weight[other] - target[1].weight[own]) * along).sum(1)
    logits = target(clean)
    rows = torch.arange(len(own))
    return 255 * ((logits[rows, own] - logits[rows, other]) / slope).double().numpy()


@pytest.mark.parametrize("halvings", [1, 6, 12])
@pytest.mark.parametrize(
    "attack", [fgsm, partial(bim, steps=4), partial(mi_fgsm, steps=3)], ids=["fgsm", "bim", "mi"]
)
def test_linear_models_flip_where_the_closed_form_says(
    attack, halvings, images, linear, correct, batch_of, probed
):
    networks = {"a": linear(0, 2), "b": linear(5, 2)}
    dataset = correct(images(40, classes=2), networks["a"])
    found = probed(
        dataset, networks["a"], networks, attack, GRID, analysis={"bisection": halvings}
    ).flips
    assert list(found) == COLUMNS
    grid = np.array([0, *GRID])
    for name, network in networks.items():
        exact = smallest(dataset, batch_of, networks["a"], network)
        clean, batch = batch_of(dataset)
        right = (network(clean).argmax(1) == batch.labels).numpy()
        flips = right & (exact > 0) & (exact <= GRID[-1])
        rows = found[found["target"] == name].set_index("index")
        assert rows.index.tolist() == dataset.indices[flips].tolist() and flips.sum() > 5
        low, high = rows["below_eps_255"].to_numpy(), rows["eps_255"].to_numpy()
        assert (low <= exact[flips] + 1e-4).all() and (exact[flips] <= high + 1e-4).all()
        cell = np.searchsorted(grid, exact[flips])
        np.testing.assert_allclose(high - low, (grid[cell] - grid[cell - 1]) / 2**halvings)
        assert (low >= grid[cell - 1]).all() and (high <= grid[cell]).all()
    assert "b" in set(found["target"])
    assert (found.groupby("target")["index"].diff().dropna() > 0).all()


ATTACKS = {
    "fgsm": (fgsm, {}),
    "pgd": (partial(pgd, steps=3), {}),
    "pgd in small batches": (partial(pgd, steps=3), {"max_batch": 2}),
    "fixed step": (partial(bim, steps=3, step_size_255=3), {}),
    "l2": (partial(pgd, steps=3, norm="l2"), {"norm": "l2"}),
    "aimed": (partial(pgd, steps=3), {"aim": "random"}),
    "aimed by the data": (fgsm, {"aim": "data", "known": {n: n % 3 for n in range(30)}}),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_the_upper_bound_flips_and_the_lower_does_not_when_run_again(
    case, images, curved, correct, batch_of, probed
):
    attack, words = ATTACKS[case]
    networks = {"a": curved(0), "b": curved(1)}
    dataset = correct(images(30), networks["a"])
    if words.get("aim") == "data":
        known = {n: int(c + 1) % 3 for n, c in enumerate(dataset.labels)}
        words = words | {"known": known}
    run = probed(dataset, networks["a"], networks, attack, GRID, analysis=ONLY, **words)
    clean, whole = batch_of(dataset)
    assert len(run.flips) > 10 and set(run.flips["target"]) == {"a", "b"}
    for row in run.flips.itertuples():
        one = slice(row.index, row.index + 1)
        batch, model = Batch(*(column[one] for column in whole)), networks[row.target]
        goal = run.maker(clean[one], batch).target_labels
        for eps, flips in ((row.below_eps_255, False), (row.eps_255, True)):
            again = run.maker.at(clean[one], batch, goal, torch.tensor([eps]))
            said = model(again).softmax(1)[0]
            assert (int(said.argmax()) != row.label) == flips
        top = said.topk(3)
        assert row.predicted == int(top.indices[0]) and row.confidence == pytest.approx(
            float(top.values[0]), abs=1e-5
        )
        assert row.true_confidence == pytest.approx(float(said[row.label]), abs=1e-5)
        assert row.top5_classes.tolist() == top.indices.tolist()
        np.testing.assert_allclose(row.top5_confidences, top.values, atol=1e-5)


def test_rows_are_the_images_that_flip_in_the_grid(images, curved, correct, batch_of, probed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = correct(images(30), networks["a"])
    run = probed(dataset, networks["a"], networks, partial(pgd, steps=3), GRID, analysis=ONLY)
    rows = run.result.table.to_pandas()
    clean, batch = batch_of(dataset)
    for name, network in networks.items():
        right = (network(clean).argmax(1) == batch.labels).numpy()
        own = rows[(rows["target"] == name) & (rows["predicted"] != rows["label"])]
        first = own.groupby("index")["eps_255"].min()
        first = first[right[first.index]]
        found = run.flips[run.flips["target"] == name].set_index("index")
        assert found.index.tolist() == first.index.tolist()
        assert (found["eps_255"] <= first).all()
        cell = {high: low for low, high in zip((0, *GRID), GRID, strict=False)}
        assert (found["below_eps_255"] >= first.map(cell)).all()


def test_gradients_are_not_counted(images, linear, probed):
    networks = {"a": linear(0), "b": linear(1)}
    attack = partial(bim, steps=4)
    plain = probed(images(), networks["a"], networks, attack, analysis={})
    full = probed(images(), networks["a"], networks, attack)
    assert plain.result.gradients == full.result.gradients == 1 + 3 * 3
    assert set(full.result.diagnostics) == {
        *("flips", "spectra", "filtered", "low_passed", "similarity")
    }
    assert plain.result.diagnostics == {}


def test_nothing_flips(images, linear, correct, probed):
    networks = {"a": linear(0)}
    dataset = correct(images(), networks["a"])
    found = probed(dataset, networks["a"], networks, fgsm, (1e-4,), 1e-4, ONLY).flips
    assert list(found) == COLUMNS and len(found) == 0


def test_images_that_are_wrong_when_clean_have_no_row(images, linear, correct, probed):
    model = linear(0)
    dataset = correct(images(), model)
    dataset.labels = (dataset.labels + 1) % 3
    run = probed(dataset, model, {"a": model}, fgsm, GRID, analysis=ONLY)
    assert len(run.flips) == 0 and len(run.result.table) == 11 * 6


def test_bracket_is_about_the_first_flip_in_any_order_of_the_grid():
    flips = torch.tensor([[0, 1, 0, 1], [1, 1, 0, 0], [0, 1, 1, 1]]).bool()
    low, high, first = _brackets(flips, (1.0, 2.0, 4.0))
    assert low.tolist() == [1, 0, 2, 0]
    assert high.tolist() == [2, 1, 4, 1]
    assert first.tolist() == [1, 0, 2, 0]
    order = torch.tensor([2, 0, 1])
    low, high, first = _brackets(flips[order], (4.0, 1.0, 2.0))
    assert low.tolist() == [1, 0, 2, 0] and high.tolist() == [2, 1, 4, 1]
    assert first.tolist() == [2, 1, 0, 1]


def test_halves_towards_one_crossing_by_hand():
    """A target that flips in [3, 3.5] and from 5 on, of the grid 2, 6 where only 6 flips."""
    asked = []

    def attack(rows, eps_255):
        asked.append(eps_255.tolist())
        return eps_255.float().reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    def target(images):
        eps = images[:, 0, 0, 0]
        flips = ((eps >= 3) & (eps <= 3.5)) | (eps >= 5)
        return torch.stack([torch.where(flips, -eps, 1.0), torch.zeros_like(eps)], dim=1)

    diagnostic = Bisection(["t"], 4)
    index = torch.tensor([7, 4])
    made = torch.tensor([2.0, 6.0]).reshape(2, 1, 1, 1, 1).expand(2, 2, 3, 2, 2)
    seen = DiagnosticInput(
        clean=torch.zeros(2, 3, 2, 2),
        made=made,
        batch=Batch(torch.zeros(2, 3, 2, 2).byte(), torch.tensor([0, 1]), index),
        budgets=(2.0, 6.0),
        source=torch.nn.Identity(),
        networks={"t": target},
        logits={"t": torch.stack([target(images) for images in made])},
        attack=attack,
    )
    diagnostic.update(seen)
    rows = diagnostic.compute().to_pandas()  # image 4 is wrong when clean
    assert asked == [[4.0], [5.0], [4.5], [4.75]]
    assert rows[["index", "label", "below_eps_255", "eps_255"]].to_numpy().tolist() == [
        [7, 0, 4.75, 5]
    ]
    assert rows["predicted"].tolist() == [1]
    expected = torch.tensor([-5.0, 0]).softmax(0)
    assert rows["confidence"][0] == pytest.approx(float(expected[1]), rel=1e-6)
    assert rows["true_confidence"][0] == pytest.approx(float(expected[0]), rel=1e-6)
    assert rows["top5_classes"][0].tolist() == [1, 0]


@pytest.mark.parametrize("average", ["logits", "probabilities", "loss"])
def test_ensembles_are_attacked_as_they_are(average, images, curved, correct, batch_of, probed):
    networks = {"a": curved(0), "b": curved(1)}
    source = Ensemble(list(networks.values()), average)
    dataset = correct(images(20), networks["a"])
    run = probed(dataset, source, networks, partial(bim, steps=3), GRID, analysis=ONLY)
    clean, whole = batch_of(dataset)
    rows = run.flips[run.flips["target"] == "b"]
    assert len(rows) > 2
    places = rows["index"].tolist()
    batch = Batch(*(column[places] for column in whole))
    for column, flips in (("below_eps_255", False), ("eps_255", True)):
        again = run.maker.at(clean[places], batch, None, torch.tensor(rows[column].tolist()))
        assert ((networks["b"](again).argmax(1) != batch.labels) == flips).all()
