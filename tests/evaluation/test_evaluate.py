"""The pass over a small data set."""

from functools import partial
from importlib import import_module

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from src.attacks import bim, fgsm
from src.config.settings import TrainerSettings
from src.data import ImageDataset, LabelledImages, to_unit
from src.evaluation import (
    Attacker,
    Transfer,
    Variants,
    evaluate,
    for_device,
    score_clean,
)

TRAINER = TrainerSettings(accelerator="cpu", batch_size=4, progress_bar=False)
BUDGETS = (2.0, 16.0)
DEVICES = ("cpu", "cuda")


@pytest.fixture
def dataset() -> ImageDataset:
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3), dtype=np.uint8)
    return ImageDataset(LabelledImages(pixels, np.arange(11) % 3, ("x", "y", "z")))


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval().requires_grad_(False)


@pytest.fixture
def networks() -> dict[str, nn.Module]:
    return {"a": linear(0), "b": linear(1)}


def run(dataset, networks, attack=fgsm, **words):
    source = Attacker(networks["a"], attack, BUDGETS, num_classes=3)
    return evaluate(dataset, Transfer(networks, source, **words), TRAINER, "test")


def test_rows_are_each_targets_predictions_for_the_same_adversarial_images(dataset, networks):
    result = run(dataset, networks, examples=[3, 10])
    table = result.tables["float32"]
    assert len(table) == 11 * 2 * 2
    batch = dataset.__getitems__(list(range(11)))
    eps = torch.tensor(BUDGETS) / 255
    adversarial = fgsm(networks["a"], to_unit(batch.images), batch.labels, eps)
    frame = table.to_pandas()
    for target, network in networks.items():
        for budget, images in zip(BUDGETS, adversarial, strict=True):
            rows = frame[(frame["target"] == target) & (frame["eps_255"] == budget)]
            assert rows["predicted"].tolist() == network(images).argmax(1).tolist()
    assert sorted(result.examples) == [3, 10]
    np.testing.assert_allclose(result.examples[10], adversarial[:, 10].numpy(), atol=1e-6)


def test_variants_are_of_the_same_adversarial_images(dataset, networks):
    variants = Variants(primary="uint8", others=("float32", "png", "jpeg75"), controls=True)
    tables = run(dataset, networks, variants=variants).tables
    assert list(tables) == ["uint8", "float32", "png", "jpeg75", "noise", "shuffled", "crafting"]
    assert tables["png"].equals(tables["uint8"])
    for name in ("float32", "jpeg75", "noise", "shuffled"):
        assert not tables[name].equals(tables["uint8"])
    again = run(dataset, networks, variants=variants).tables
    assert all(again[name].equals(table) for name, table in tables.items())


@pytest.mark.parametrize(("attack", "gradients"), [(fgsm, 1), (partial(bim, steps=4), 1 + 2 * 3)])
def test_gradients_are_counted_per_image(dataset, networks, attack, gradients):
    assert run(dataset, networks, attack).gradients == 11 * gradients


def test_gradients_in_bfloat16_make_other_images_whose_predictions_are_float32(dataset, networks):
    pixels = list(range(11))
    source = partial(Attacker, networks["a"], partial(bim, steps=3), (2,), num_classes=3)
    modules = [
        Transfer(networks, source(precision=precision), examples=pixels)
        for precision in ("32-true", "bf16")
    ]
    single, half = (evaluate(dataset, module, TRAINER, "test") for module in modules)
    images = torch.from_numpy(np.stack([half.examples[i][0] for i in pixels]))
    assert not np.array_equal(images, np.stack([single.examples[i][0] for i in pixels]))
    clean = to_unit(dataset.__getitems__(pixels).images)
    assert (images - clean).abs().max() <= 2 / 255 + 1e-7
    frame = half.tables["float32"].to_pandas()
    for name, network in networks.items():
        confidences = network(images).softmax(1).amax(1)
        rows = frame[frame["target"] == name].set_index("index").loc[pixels]
        np.testing.assert_allclose(rows["confidence"], confidences, rtol=1e-5)
    assert half.gradients == single.gradients


class Backend(nn.Module):
    """Notes cuDNN's switches at every call, and whether gradients are taken."""

    def __init__(self, network: nn.Module, seen: set) -> None:
        super().__init__()
        self.network, self.seen = network, seen

    def forward(self, images):
        cudnn = torch.backends.cudnn
        switches = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
        self.seen.add((images.requires_grad, *switches))
        return self.network(images)


@pytest.mark.parametrize("benchmark", [False, True])
def test_gradients_alone_are_in_tf32_and_switches_are_put_back(dataset, networks, benchmark):
    attacked, shown = set(), set()
    models = {"a": Backend(networks["a"], shown)}
    source = Attacker(
        Backend(networks["a"], attacked), fgsm, BUDGETS, num_classes=3, precision="tf32"
    )
    trainer = TRAINER.model_copy(update={"cudnn_benchmark": benchmark})
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    evaluate(dataset, Transfer(models, source), trainer, "test")
    plain = False, False, True, benchmark
    assert (attacked, shown) == ({(True, True, True, benchmark), plain}, {plain})
    assert before == (cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark)


class Cramped(nn.Module):
    """Has memory for so many images."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.network(images)


def test_where_memory_does_not_suffice_batches_are_halved(dataset, networks, caplog):
    cramped = {name: Cramped(network, room=3) for name, network in networks.items()}
    source = Attacker(cramped["a"], partial(bim, steps=2), BUDGETS, num_classes=3, max_batch=8)
    trainer = TRAINER.model_copy(update={"batch_size": 11})
    found = evaluate(dataset, Transfer(cramped, source), trainer, "test")
    assert found.batch_size == 2  # 11, 5, 2
    assert "batches of 2 images" in caplog.text
    assert found.gradients == 11 * (1 + 2)  # of the last pass alone
    expected = run(dataset, networks, partial(bim, steps=2)).tables["float32"]
    shown = ["index", "target", "eps_255", "predicted"]
    assert found.tables["float32"].select(shown).equals(expected.select(shown))
    none = {name: Cramped(network, room=0) for name, network in networks.items()}
    with pytest.raises(ValueError, match="batch_size=1 "):
        run(dataset, none)


def test_the_device_decides_what_is_automatic(monkeypatch):
    automatic = TrainerSettings(attack_precision="auto")
    assert for_device(automatic, "cpu").batch_size == 50
    assert for_device(automatic, "cuda").batch_size == 1000
    for able, chosen in ((True, "bf16"), (False, "32-true")):
        module = import_module("src.evaluation.trainer")
        monkeypatch.setattr(module, "computes_in_bfloat16", lambda device, able=able: able)
        assert for_device(automatic, "cpu").attack_precision == chosen
    given = TrainerSettings(batch_size=7)
    assert for_device(given, "cuda") == given
    workers = [for_device(TrainerSettings(num_workers="auto"), name).workers for name in DEVICES]
    assert workers[0] == 0 < workers[1] <= 8


def test_clean_predictions_are_each_models_own(dataset, networks):
    both = score_clean(dataset, networks, TRAINER)
    assert set(both["eps_255"].to_pylist()) == {0.0}
    assert both["target"].to_pylist() == ["a"] * 11 + ["b"] * 11
    expected = networks["b"](to_unit(dataset.__getitems__(list(range(11))).images)).argmax(1)
    assert both["predicted"].to_pylist()[11:] == expected.tolist()
    part = score_clean(dataset, networks, TRAINER, only=[2, 7])
    rows = both.filter(pc.is_in(both["index"], pa.array([2, 7])))
    assert all(part[name].equals(rows[name]) for name in ("index", "target", "predicted"))


def test_images_made_before_are_not_attacked_again(dataset, networks):
    whole = run(dataset, networks, examples=range(11))
    kept = {n: image for n, image in whole.examples.items() if n < 8}  # two of three batches
    source = Attacker(networks["a"], fgsm, BUDGETS, num_classes=3, kept=kept)
    again = evaluate(dataset, Transfer(networks, source), TRAINER, "test")
    assert again.gradients == 3 and again.tables["float32"].equals(whole.tables["float32"])
