"""Curvature of the loss, against the eigenvalues of autograd's Hessian in float64."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from findings.measurements import Smoothness
from src.models import Ensemble
from tests.job_context import named

ONLY = {"only": {}, "measurements": named(Smoothness)}


@pytest.fixture
def gentle(curved):
    """A function that makes a network whose third derivatives are small."""

    def make(seed, classes=3):
        network = curved(seed, classes)
        network[1].weight.data *= 0.1
        return network

    return make


def largest_eigenvalues(model, batch_of, dataset):
    """Return the largest absolute eigenvalue of each image's Hessian; losses may be of several."""
    clean, batch = batch_of(dataset)
    values = []
    for image, label in zip(clean.double(), batch.labels, strict=True):

        def loss(flat, shape=image.shape, label=label):
            logits = model(flat.view(1, *shape)).flatten(0, -2)
            return functional.cross_entropy(logits, label.expand(len(logits)))

        hessian = torch.autograd.functional.hessian(loss, image.flatten())
        values.append(float(torch.linalg.eigvalsh(hessian).abs().max()))
    return values


def test_it_is_the_hessians_largest_eigenvalue(images, gentle, batch_of, diagnosed):
    networks, dataset = {"a": gentle(0), "b": gentle(1)}, images(11)
    found = diagnosed(dataset, networks["a"], networks, **ONLY, max_batch=3).smoothness
    assert found["index"].tolist() == list(range(11)) and set(found["target"]) == {"a"}
    wanted = largest_eigenvalues(gentle(0).double(), batch_of, dataset)
    np.testing.assert_allclose(found["curvature"], wanted, rtol=1e-2)


@pytest.mark.parametrize(
    "average",
    ["logits", *(pytest.param(name, marks=pytest.mark.slow) for name in ("probabilities", "loss"))],
)
def test_an_ensemble_is_differentiated_as_it_is_attacked(
    average, images, gentle, batch_of, diagnosed
):
    # Of two classes, so that one eigenvalue is far above the others.
    networks, dataset = {"a": gentle(0, 2), "b": gentle(1, 2)}, images(5, classes=2)
    source = Ensemble([*networks.values()], average)
    found = diagnosed(dataset, source, networks, **ONLY).smoothness
    double = Ensemble([gentle(0, 2), gentle(1, 2)], average).double()
    wanted = largest_eigenvalues(double.attacked, batch_of, dataset)
    np.testing.assert_allclose(found["curvature"], wanted, rtol=1e-2)


def test_a_constant_loss_has_none(images, linear, diagnosed):
    constant = linear(0)
    constant[1].weight.data.zero_()
    found = diagnosed(images(), constant, {"a": constant}, **ONLY).smoothness
    assert (found["curvature"] == 0).all()


def test_starts_belong_to_the_image_and_the_seed(images, gentle, diagnosed):
    networks = {"a": gentle(0)}
    arguments = (images(11), networks["a"], networks)
    runs = [diagnosed(*arguments, **ONLY, batch_size=size) for size in (2, 11)]
    runs += [diagnosed(*arguments, **ONLY, seed=1)]
    first, other, seeded = (run.smoothness["curvature"] for run in runs)
    np.testing.assert_allclose(first, other, rtol=1e-4)
    assert not np.array_equal(seeded, first)
