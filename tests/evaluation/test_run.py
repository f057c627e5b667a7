"""The evaluation pass over a small data set."""

from functools import partial

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from src.attacks import bim, fgsm
from src.data import ImageDataset, LabelledImages, to_unit
from src.evaluation import Attacker, evaluate, score_clean

TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "32-true",
    "batch_size": 4,
    "num_workers": 0,
    "progress_bar": False,
}


def pixels(position: int) -> np.ndarray:
    return np.random.default_rng(position).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def dataset() -> ImageDataset:
    labels = np.arange(11) % 3
    images = [pixels(position) for position in range(11)]
    return ImageDataset(LabelledImages(images, labels, ("x", "y", "z")))


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval().requires_grad_(False)


@pytest.fixture
def networks() -> dict[str, nn.Module]:
    return {"a": linear(0), "b": linear(1)}


def test_rows_are_what_each_target_says_of_the_same_adversarial_images(dataset, networks):
    budgets = (2.0, 16.0)
    result = evaluate(
        dataset,
        networks,
        TRAINER,
        label="test",
        maker=Attacker(networks["a"], fgsm, budgets, num_classes=3),
        keep=[3, 10],
    )
    assert len(result.table) == 11 * 2 * 2
    batch = dataset.__getitems__(list(range(11)))
    eps = torch.tensor(budgets) / 255
    adversarial = fgsm(networks["a"], to_unit(batch.images), batch.labels, eps)
    for target, network in networks.items():
        for budget, images in zip(budgets, adversarial, strict=True):
            mask = pc.and_(
                pc.equal(result.table["target"], target), pc.equal(result.table["eps_255"], budget)
            )
            rows = result.table.filter(mask)
            assert rows["predicted"].to_pylist() == network(images).argmax(1).tolist()
    assert sorted(result.examples) == [3, 10]
    np.testing.assert_allclose(result.examples[10], adversarial[:, 10].numpy(), atol=1e-6)


@pytest.mark.parametrize(("attack", "gradients"), [(fgsm, 1), (partial(bim, steps=4), 1 + 2 * 3)])
def test_gradients_are_counted_per_image(dataset, networks, attack, gradients):
    result = evaluate(
        dataset,
        networks,
        TRAINER,
        label="test",
        maker=Attacker(networks["a"], attack, (2.0, 16.0), num_classes=3),
    )
    assert result.gradients == gradients


def test_what_leaves_the_ball_is_taken_back(dataset, networks):
    def far(model, images, labels, eps):
        return (images - 3 * eps.reshape(-1, 1, 1, 1, 1)).expand(len(eps), *images.shape)

    result = evaluate(
        dataset,
        networks,
        TRAINER,
        label="test",
        maker=Attacker(networks["a"], far, (2.0, 16.0), num_classes=3),
        keep=range(11),
    )
    clean = to_unit(dataset.__getitems__(list(range(11))).images).numpy()
    for index, images in result.examples.items():
        for budget, image in zip((2, 16), images, strict=True):
            assert np.abs(image - clean[index]).max() <= budget / 255 + 1e-6
            assert image.min() >= 0


def test_clean_answers_are_computed_once(dataset, networks, tmp_path):
    cache = {name: tmp_path / f"{name}.parquet" for name in networks}
    first = score_clean(dataset, {"a": networks["a"]}, TRAINER, cache)
    assert set(first["eps_255"].to_pylist()) == {0.0}
    stamp = cache["a"].stat().st_mtime_ns
    both = score_clean(dataset, networks, TRAINER, cache)
    assert cache["a"].stat().st_mtime_ns == stamp
    assert both.slice(0, 11).equals(first)
    assert both["target"].to_pylist() == ["a"] * 11 + ["b"] * 11
    expected = networks["b"](to_unit(dataset.__getitems__(list(range(11))).images)).argmax(1)
    assert both["predicted"].to_pylist()[11:] == expected.tolist()
    names = {"a.parquet", "a.parquet.sha256", "b.parquet", "b.parquet.sha256"}
    assert {path.name for path in tmp_path.glob("[!.]*")} == names


def test_damaged_clean_predictions_are_named_and_computed_again(
    dataset, networks, tmp_path, caplog
):
    cache = {name: tmp_path / f"{name}.parquet" for name in networks}
    first = score_clean(dataset, networks, TRAINER, cache)
    for other in (b"", cache["b"].read_bytes(), flipped(cache["a"].read_bytes())):
        caplog.clear()
        cache["a"].write_bytes(other)
        assert score_clean(dataset, networks, TRAINER, cache).equals(first)
        assert f"{cache['a']} is damaged" in caplog.text and "b.parquet is" not in caplog.text


def flipped(content: bytes) -> bytes:
    """Return bytes of which one bit, in the middle, is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
