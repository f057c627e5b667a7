"""Diagnostics inside the pass: they change no prediction, and work wherever an attack does."""

from functools import partial

import numpy as np
import pytest
import torch

from src.attacks import fgsm, pgd
from src.utils.vocabulary import CONTROLS
from tests.own_measurement import OWN

TABLES = ["flips", "spectra", "filtered", "visibility", "low_passed", "similarity"]
GRID = (0.5, 2.0, 8.0)
MORE = [*TABLES, *OWN]
FULL = {"bisection": 1, "tables": ["all"]}


@pytest.mark.parametrize("primary", ["float32", pytest.param("uint8", marks=pytest.mark.slow)])
def test_predictions_stay_the_same_to_the_last_bit(primary, images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = images(model=networks["a"])
    variants = {"storage": primary, "variants": ["float32"], "controls": True}
    arguments = (dataset, networks["a"], networks, partial(pgd, steps=2), GRID)
    plain, full = (diagnosed(*arguments, only=only, **variants) for only in ({}, None))
    for name, table in plain.results.predictions.items():
        assert full.results.predictions[name].equals(table)
    assert list(plain.results.predictions) == [*dict.fromkeys([primary, "float32"]), *CONTROLS]
    assert plain.results.gradients == full.results.gradients
    assert plain.results.diagnostics == {} and set(full.results.diagnostics) == set(TABLES)
    assert len(full.flips) > 0  # attacks were run in between


def assert_close(first, second, name):
    for column in first.columns.difference(["top5_classes", "top5_confidences"]):
        if first[column].dtype.kind == "f":
            np.testing.assert_allclose(first[column], second[column], atol=1e-4, err_msg=name)
        else:
            assert first[column].tolist() == second[column].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("attack", [fgsm, partial(pgd, steps=2)])
def test_batches_do_not_matter(attack, images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = images(model=networks["a"])
    arguments = (dataset, networks["a"], networks, attack, GRID)
    runs = [diagnosed(*arguments, only=FULL, measurements=OWN, batch_size=size) for size in (2, 11)]
    for name in MORE:
        first, second = (getattr(run, name) for run in runs)
        assert_close(first, second, name)


@pytest.mark.slow
def test_a_part_of_the_images_has_the_rows_that_it_has_among_all(images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    dataset = images(model=networks["a"])
    arguments = (dataset, networks["a"], networks, partial(pgd, steps=2), GRID)
    words = {"controls": True, "batch_size": 2}
    whole, part = (
        diagnosed(*arguments, only=FULL | {"n_images": n}, measurements=OWN, **words)
        for n in (99, 3)
    )
    chosen = dataset.subset(3).indices.tolist()  # of six batches: some have none
    assert len(chosen) == 3
    for name, table in whole.results.predictions.items():
        assert part.results.predictions[name].equals(table)
    assert (part.spectra["n"] == 3).all() and (whole.spectra["n"] == 11).all()
    for name in set(MORE) - {"spectra"}:
        first, second = (getattr(run, name) for run in (whole, part))
        first = first[first["index"].isin(chosen)].reset_index(drop=True)
        assert len(second) > 0 and set(second["index"]) <= set(chosen), name
        assert_close(first, second, name)


class Watched(torch.nn.Module):
    """A network that counts the images that it sees."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seen = network, 0

    def forward(self, images):
        self.seen += len(images)
        return self.network(images)


@pytest.mark.slow
def test_what_needs_no_attack_is_computed_once(images, curved, diagnosed, tmp_path):
    def attack(model, images, labels, eps):
        return images.expand(len(eps), *images.shape)

    networks = {name: Watched(curved(seed)) for seed, name in enumerate("abc")}
    settings = {"only": {"tables": ["filtered", "low_passed", "similarity"]}, "cache": tmp_path}
    first, other = (
        diagnosed(images(), networks[name], networks, attack, GRID, **settings) for name in "ab"
    )
    attacked = len(GRID) + 3  # budgets, and bands at one of them
    once = 1 + 4 + 5  # clean, bands of the noise, cutoffs
    gradients = {"a": 1, "b": 2, "c": 2}  # of the second job for its pairs with b and c
    seen = {name: network.seen / 11 for name, network in networks.items()}
    assert seen == {name: 2 * attacked + once + gradients[name] for name in networks}
    assert first.low_passed.equals(other.low_passed)
    of_a, of_b = (run.similarity for run in (first, other))
    pair = of_a[of_a["target"] == "b"], of_b[of_b["target"] == "a"]
    assert pair[0]["cosine"].tolist() == pair[1]["cosine"].tolist()
