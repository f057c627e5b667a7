"""Gradients compared, against autograd and by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from src.models import Ensemble

ONLY = {"tables": ["similarity"]}


def gradient(loss, clean: torch.Tensor) -> np.ndarray:
    variable = clean.double().requires_grad_()
    (found,) = torch.autograd.grad(loss(variable), variable)
    return found.flatten(1).numpy()


def entropy(model: nn.Module, labels: torch.Tensor):
    double = torch.nn.Sequential(*model).double()
    return lambda x: nn.functional.cross_entropy(double(x), labels, reduction="sum")


def expected(first: np.ndarray, second: np.ndarray):
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(1) / norms


def test_rows_compare_the_source_with_each_target(images, curved, batch_of, diagnosed):
    make = {"b": 1, "a": 0}
    networks = {name: curved(seed) for name, seed in make.items()}
    dataset = images()
    found = diagnosed(dataset, networks["a"], networks, only=ONLY, max_batch=3).similarity
    clean, batch = batch_of(dataset)
    each = {n: gradient(entropy(curved(s), batch.labels), clean) for n, s in make.items()}
    for name in networks:
        rows = found[found["target"] == name]
        assert rows["index"].tolist() == list(range(11))
        assert rows["label"].tolist() == batch.labels.tolist()
        np.testing.assert_allclose(rows["cosine"], expected(each["a"], each[name]), atol=1e-4)
    white = found[found["target"] == "a"]
    np.testing.assert_allclose(white["cosine"], 1, atol=1e-12)
    assert found.loc[found["target"] == "b", "cosine"].abs().max() < 0.9


@pytest.mark.parametrize("average", ["logits", "probabilities", "loss"])
def test_an_ensemble_is_differentiated_as_it_is_attacked(
    average, images, curved, batch_of, diagnosed
):
    networks = {"a": curved(0), "b": curved(1), "c": curved(2)}
    source = Ensemble([networks["a"], networks["b"]], average)
    dataset = images()
    found = diagnosed(dataset, source, networks, only=ONLY).similarity
    clean, batch = batch_of(dataset)
    double = Ensemble([torch.nn.Sequential(*curved(seed)).double() for seed in (0, 1)], average)

    def loss(x: torch.Tensor) -> torch.Tensor:
        each = double.member_logits(x) if average == "loss" else double(x)[None]
        return sum(nn.functional.cross_entropy(z, batch.labels, reduction="sum") for z in each)

    own = gradient(loss, clean)
    for number, name in enumerate(networks):
        other = gradient(entropy(curved(number), batch.labels), clean)
        rows = found[found["target"] == name]
        np.testing.assert_allclose(rows["cosine"], expected(own, other), atol=1e-4)


def test_a_zero_gradient_gives_nan(images, linear, diagnosed):
    networks = {"a": linear(0), "dead": linear(1)}
    networks["dead"][1].weight.data.zero_()
    found = diagnosed(images(), networks["a"], networks, only=ONLY).similarity
    dead = found["target"] == "dead"
    assert found.loc[dead, ["cosine"]].isna().all(axis=None)
    np.testing.assert_allclose(found.loc[~dead, ["cosine"]], 1, atol=1e-12)
