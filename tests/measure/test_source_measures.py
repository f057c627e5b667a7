"""Tables of `diagnostics=sources`, against autograd, hooks of their own and loops."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import center_crop

from src.attacks import fgsm


def only(table):
    return {"only": {"tables": [table]}}


def curvature(network, image, label):
    """Return the largest absolute eigenvalue of the Hessian in float64."""

    def loss(pixels):
        logits = network(pixels.reshape(1, *image.shape))
        return functional.cross_entropy(logits, label[None])

    hessian = torch.autograd.functional.hessian(loss, image.double().flatten())
    return torch.linalg.eigvalsh(hessian).abs().max().item()


def test_smoothness_is_the_largest_eigenvalue_of_the_hessian(images, curved, diagnosed, batch_of):
    dataset, network = images(7, side=4), curved(0, side=4)
    found = diagnosed(dataset, network, {"a": network}, **only("smoothness")).smoothness
    clean, batch = batch_of(dataset)
    network.double()
    expected = [curvature(network, *pair) for pair in zip(clean, batch.labels, strict=True)]
    assert found["index"].tolist() == list(range(7)) and set(found["target"]) == {"a"}
    np.testing.assert_allclose(found["curvature"], expected, rtol=0.05)
    assert max(expected) > 5 * min(expected)


def test_a_loss_without_curvature_has_none_and_batches_do_not_matter(images, curved, diagnosed):
    class Constant(nn.Module):
        def forward(self, batch):
            return 0 * batch.flatten(1)[:, :3]

    flat, bent = Constant(), curved(0)
    networks = {"a": flat, "b": bent}
    found = diagnosed(images(5), flat, networks, **only("smoothness")).smoothness
    assert (found["curvature"] == 0).all()
    one, other = (
        diagnosed(images(5), bent, networks, batch_size=size, **only("smoothness")).smoothness
        for size in (2, 5)
    )
    np.testing.assert_allclose(one["curvature"], other["curvature"], rtol=1e-3)


class Layered(nn.Module):
    """A small network with a map, tokens and a vector."""

    def __init__(self, layer, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.map = nn.Conv2d(3, 5, 3, padding=1)
        self.tokens = nn.Linear(64, 7)
        self.vector = nn.Linear(35, 6)
        self.head = nn.Linear(6, 3)
        self.feature_layer = layer

    def stages(self, batch):
        first = self.map(batch).relu()
        second = self.tokens(first.flatten(2)).tanh()
        third = self.vector(second.flatten(1))
        return first, second, third

    def forward(self, batch):
        return self.head(self.stages(batch)[-1])


def test_features_are_means_over_positions(images, diagnosed, batch_of):
    dataset = images(5)
    networks = {name: Layered(name).eval() for name in ("map", "tokens", "vector")}
    networks["none"] = Layered(None).eval()
    found = diagnosed(dataset, networks["map"], networks, **only("features")).features
    assert set(found["target"]) == {"map", "tokens", "vector"}
    clean, _ = batch_of(dataset)
    with torch.no_grad():
        inner = networks["map"].map(clean).mean(dim=(2, 3))
        tokens = networks["tokens"].tokens(networks["tokens"].map(clean).relu().flatten(2))
        expected = {"map": inner, "tokens": tokens.mean(dim=1)}
        expected["vector"] = networks["vector"].stages(clean)[-1]
    for name, values in expected.items():
        rows = np.stack(found.loc[found["target"] == name, "features"].to_list())
        np.testing.assert_allclose(rows, values, atol=1e-6)


def test_output_changes_are_differences_of_logits(images, curved, diagnosed, batch_of):
    dataset, networks = images(6), {"a": curved(0), "b": curved(1), "c": curved(2)}
    run = diagnosed(dataset, networks["a"], {"b": networks["b"], "a": networks["a"]},
                    **only("output_changes"))  # fmt: skip
    found, (clean, batch) = run.output_changes, batch_of(dataset)
    assert set(found["target"]) == {"a", "b"}
    attacked = fgsm(networks["a"], clean, batch.labels, torch.tensor([8 / 255]), seeds=batch.index)
    for name in ("a", "b"):
        rows = np.stack(found.loc[found["target"] == name, "change"].to_list())
        with torch.no_grad():
            expected = networks[name](attacked[0]) - networks[name](clean)
        np.testing.assert_allclose(rows, expected, atol=1e-4)


def test_self_transfer_counts_copies_that_were_right(images, curved, diagnosed, batch_of):
    network = curved(0)
    dataset = images(12, model=network)
    found = diagnosed(dataset, network, {"a": network}, **only("self_transfer")).self_transfer
    clean, batch = batch_of(dataset)
    attacked = fgsm(network, clean, batch.labels, torch.tensor([8 / 255]), seeds=batch.index)[0]
    expected = []
    for label, *pair in zip(batch.labels, clean, attacked, strict=True):
        right = fooled = 0
        for scale in (0.6, 0.75, 0.9, 1.1, 1.3, 1.6):
            size = [round(8 * scale)] * 2
            first, second = (
                network(
                    center_crop(
                        functional.interpolate(one[None], size, mode="bilinear", antialias=True),
                        [8, 8],
                    )
                ).argmax()
                for one in pair
            )
            right += int(first == label)
            fooled += int(first == label and second != label)
        expected.append(fooled / right if right else np.nan)
    np.testing.assert_allclose(found["fooled"], expected)
    assert 0 < np.nanmean(expected) < 1


@pytest.mark.parametrize("table", ["smoothness", "features", "output_changes", "self_transfer"])
def test_the_page_alone_asks_for_none_of_them(images, curved, diagnosed, table):
    networks = {"a": curved(0), "b": curved(1)}
    assert table not in diagnosed(images(3), networks["a"], networks).tables
