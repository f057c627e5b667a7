"""Iterates of one run against separate runs of fewer steps, and the targets on them."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from src import attacks
from src.analysis.diagnostics import success_over_iterations

BATCH = 6


@pytest.mark.parametrize(
    "attack",
    [
        partial(attacks.bim, relative_step_size=0.25),
        partial(attacks.mi, step_size_255=1.6),
        partial(attacks.pgd, step_size_255=2.0),
        partial(attacks.ni, step_size_255=1.0),
        partial(attacks.vmi, step_size_255=1.0, neighbours=2),
        partial(attacks.bim, norm="l2", relative_step_size=0.5),
        partial(attacks.di, step_size_255=1.0),
    ],
)
def test_an_iterate_is_the_result_of_as_many_equal_steps(attack, curved):
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


def test_restarts_keep_the_iterates_of_the_best_one(curved):
    images, labels = torch.rand(BATCH, 3, 8, 8), torch.arange(BATCH) % 3
    attack = partial(attacks.pgd, curved(0), images, labels, 8 / 255, steps=4, restarts=3)
    found = attack(iterates=[2, 4])
    assert torch.equal(found[1], attack()) and len(found) == 2
    size = attacks.Settings(steps=4).step_size(torch.tensor(8 / 255))
    assert (found[1] - found[0]).abs().max() <= 2 * size + 1e-6


@pytest.mark.parametrize("iterates", [[0], [6], [1, 9]])
def test_no_iterate_lies_beyond_the_run(iterates, curved):
    images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=rf"iterates={iterates[-1]}: .*steps=5"):
        attacks.bim(curved(0), images, labels, 8 / 255, steps=5, iterates=iterates)


def test_targets_see_the_iterates_and_the_last_is_the_attacks_result(images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = images(model=networks["a"])
    attack = partial(attacks.bim, steps=4)
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

    what = {"eps_255": 0.0, "defence": "none"}
    clean = [rows("a", [0, 1, 0, 0], **what), rows("b", [0, 1, 1, 1], **what)]
    how = {"eps_255": 8.0, "step_255": 2.0}
    moved = [
        rows("b", predicted, iteration=iteration, **how)
        for iteration, predicted in {1: [0, 1, 1, 1], 5: [1, 1, 0, 0], 9: [1, 0, 0, 0]}.items()
    ]
    found = success_over_iterations(pd.concat(moved), pd.concat(clean), "a", ["b"], "joint")
    assert found["iteration"].tolist() == [0, 1, 5, 9] and set(found["denominator"]) == {2}
    assert found["success_rate"].tolist() == [0, 0, 0.5, 1]
    assert set(found["eps_255"]) == {8} and set(found["step_255"]) == {2}
    part = pd.concat(moved).query("index < 2")  # `diagnostics.n_images`
    found = success_over_iterations(part, pd.concat(clean), "a", ["b"], "all")
    assert found["denominator"].tolist() == [2] * 4
    assert found["success_rate"].tolist() == [0, 0, 0.5, 1]
