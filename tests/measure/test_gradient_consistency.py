"""Gradients around an image, against autograd and a network whose gradient is known."""

import numpy as np
import pytest
import torch
from torch import nn

from findings.measurements import GradientConsistency
from tests.job_context import named

ONLY = {"only": {}, "measurements": named(GradientConsistency)}


class Wave(nn.Module):
    """Logits (0, cos(250 sum of x)): the gradient's sign turns within 1/255 of an image."""

    def forward(self, images):
        value = torch.cos(250 * images.flatten(1).sum(dim=1))
        return torch.stack([torch.zeros_like(value), value], dim=1)


@pytest.mark.slow
def test_a_linear_source_is_consistent_and_a_rapid_one_is_not(images, linear, diagnosed):
    smooth, rapid = linear(0, 2), Wave()
    dataset = images(40, classes=2)
    found = diagnosed(dataset, smooth, {"a": smooth, "b": rapid}, **ONLY).gradient_consistency
    assert found["index"].tolist() == list(range(40)) and set(found["target"]) == {"a"}
    np.testing.assert_allclose(found["consistency"], 1, atol=1e-9)
    found = diagnosed(dataset, rapid, {"a": smooth, "b": rapid}, **ONLY).gradient_consistency
    cosines = found["consistency"] * 5  # each of them 1 or -1
    np.testing.assert_allclose(cosines, np.rint(cosines), atol=1e-6)
    assert abs(found["consistency"].mean()) < 0.4 and found["consistency"].min() < 0


@pytest.mark.slow
def test_points_belong_to_the_image_and_the_seed(images, curved, diagnosed):
    networks = {"a": curved(0), "b": curved(1)}
    arguments = (images(11), networks["a"], networks)
    one, other = (diagnosed(*arguments, **ONLY, batch_size=size) for size in (2, 11))
    columns = [run.gradient_consistency["consistency"] for run in (one, other)]
    np.testing.assert_allclose(*columns, atol=1e-6)
    seeded = diagnosed(*arguments, **ONLY, seed=1).gradient_consistency["consistency"]
    assert not np.allclose(seeded, columns[0], atol=1e-6)
