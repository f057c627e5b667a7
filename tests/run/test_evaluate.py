"""The pass over a small data set."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from src.attacks import bim, fgsm
from src.data import to_unit
from src.models import PixelClassifier
from src.run.job import make_record
from src.run.trainer import for_device
from tests.job_context import TRAINER, plan_modules

BUDGETS = (2.0, 16.0)


def changed(**changes):
    return TRAINER.model_copy(update=changes)


@pytest.fixture
def batch(dataset):
    return dataset[:]


def test_rows_are_each_targets_predictions_for_the_same_adversarial_images(run, networks, batch):
    result = run(networks)
    assert len(result.tables["float32"]) == 11 * 2 * 2
    eps = torch.tensor(BUDGETS) / 255
    adversarial = fgsm(networks["a"], to_unit(batch.images), batch.labels, eps)
    frame = result.tables["float32"].to_pandas()
    for target, network in networks.items():
        for budget, images in zip(BUDGETS, adversarial, strict=True):
            rows = frame[(frame["target"] == target) & (frame["eps_255"] == budget)]
            assert rows["predicted"].tolist() == network(images).argmax(1).tolist()
    assert sorted(result.images) == list(range(11))
    np.testing.assert_allclose(result.images[10], adversarial[:, 10], atol=1e-6)


def test_variants_are_of_the_same_adversarial_images(run, networks):
    variants = {"storage": "uint8", "variants": ["float32"], "controls": True}
    tables = run(networks, **variants).results.predictions
    assert list(tables) == ["uint8", "float32", "noise", "shuffled"]
    for name in ("float32", "noise", "shuffled"):
        assert not tables[name].equals(tables["uint8"])
    again = run(networks, **variants).tables
    assert all(again[name].equals(table) for name, table in tables.items())


def test_gradients_in_bfloat16_make_other_images_whose_predictions_are_float32(
    run, networks, batch
):
    single, half = (
        run(networks, partial(bim, steps=3), trainer=changed(attack_precision=precision))
        for precision in ("32-true", "bf16")
    )
    images = torch.from_numpy(np.stack([half.images[i][0] for i in range(11)]))
    assert not np.array_equal(images, np.stack([single.images[i][0] for i in range(11)]))
    assert (images - to_unit(batch.images)).abs().max() <= 2 / 255 + 1e-7
    frame = half.tables["float32"].to_pandas()
    for name, network in networks.items():
        rows = frame[(frame["target"] == name) & (frame["eps_255"] == 2)]
        confidences = network(images).softmax(1).amax(1)
        np.testing.assert_allclose(rows["confidence"], confidences, rtol=1e-5)
    assert half.results.gradients == single.results.gradients


class Noting(nn.Module):
    """Notes the switches of float32's products at every call."""

    def __init__(self, network: nn.Module, note) -> None:
        super().__init__()
        self.network, self.note = network, note

    def forward(self, images):
        kind = "gradient" if images.requires_grad else "prediction"
        self.note((kind, products(), torch.is_autocast_enabled("cpu")))
        return self.network(images)


def products() -> tuple[str, str, str]:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    matmuls = cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision
    return *matmuls, cudnn.conv.fp32_precision


@pytest.mark.parametrize("predictions", ["32-true", "tf32", "bf16-mixed"])
@pytest.mark.parametrize("gradients", ["32-true", "tf32", "bf16"])
def test_gradients_and_predictions_have_each_their_precision(run, networks, predictions, gradients):
    seen, matmul = set(), torch.backends.mkldnn.matmul
    one, matmul.fp32_precision = Noting(networks["a"], seen.add), "bf16"
    trainer = changed(precision=predictions, attack_precision=gradients)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            run({"a": one}, source=one, trainer=trainer)
            assert torch.is_autocast_enabled("cpu") and matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = "none"
    for kind, precision in (("gradient", gradients), ("prediction", predictions)):
        (found,) = {(on_gpu, low) for its, on_gpu, low in seen if its == kind}
        value = "tf32" if precision == "tf32" else "ieee"
        assert (found[0][0], found[0][2]) == (value, value)
        assert found[1] == precision.startswith("bf16")
        assert precision == "tf32" or found[0][1] == "ieee"


class Cramped(nn.Module):
    """Has memory for so many images."""

    def __init__(self, network: nn.Module, room: int) -> None:
        super().__init__()
        self.network, self.room = network, room

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.network(images)


CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
ERRORS = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CUBLAS)]


@pytest.mark.parametrize("error", ERRORS, ids=["allocator", "cuBLAS"])
@pytest.mark.parametrize("place", ["attack", "defence", "network", "wrapped network"])
def test_batches_are_halved_wherever_memory_runs_out(run, networks, caplog, place, error):
    errors = [error, error]

    def cramped(function):
        def call(*arguments, **keywords):
            if errors:
                raise errors.pop()
            return function(*arguments, **keywords)

        return call

    words = {"trainer": changed(batch_size=11)}
    attack, targets = fgsm, dict(networks)
    if place == "attack":
        limited = cramped(fgsm)

        def attack(*arguments, seeds):
            return limited(*arguments)

    elif place == "defence":
        words["defences"] = {"mine": cramped(lambda images: images)}
    else:
        for network in targets.values():
            network.forward = cramped(network.forward)
        if place == "wrapped network":
            zero, one = (0, 0, 0), (1, 1, 1)
            targets = {name: PixelClassifier(each, zero, one) for name, each in targets.items()}
    found = run(targets, attack, **words)
    assert "batches of 2 images" in caplog.text and not errors
    assert len(found.tables["float32"]) == 11 * 2 * 2 * (2 if place == "defence" else 1)


def test_where_memory_does_not_suffice_batches_are_halved(run, networks, caplog):
    cramped = {name: Cramped(network, room=3) for name, network in networks.items()}
    trainer, attack = changed(batch_size=11, gradient_batch=8), partial(bim, steps=2)
    found = run(cramped, attack, trainer=trainer)
    assert found.results.batch_size == 2  # 11, 5, 2
    assert "batches of 2 images" in caplog.text
    assert found.results.gradients == 11 * (1 + 2)  # of the last pass alone
    shown = ["index", "target", "eps_255", "predicted"]
    expected = run(networks, attack).tables["float32"].select(shown)
    assert found.tables["float32"].select(shown).equals(expected)
    with pytest.raises(ValueError, match="batch_size=1 "):
        run({name: Cramped(network, room=0) for name, network in networks.items()})


def test_the_device_decides_what_is_automatic(networks):
    automatic = plan_modules(networks, trainer=changed(batch_size="auto")).settings
    assert for_device(automatic).trainer.batch_size == 50
    chosen = plan_modules(networks).settings
    assert for_device(chosen) == chosen


def test_processes_share_at_least_eight_batches(networks, caplog):
    for devices, images, size, idle in (
        *((2, 200, 25, 0), (1, 200, 25, 0), (8, 1000, 50, 0)),  # 50: the most on a CPU
        *((16, 20, 3, 6), (16, 100, 13, 7)),
    ):
        caplog.clear()
        shared = changed(batch_size="auto", devices=devices, strategy="ddp")
        settings = for_device(plan_modules(networks, trainer=shared).settings, images)
        assert settings.trainer.batch_size == size
        reported = [text for text in caplog.messages if "have no work" in text]
        assert len(reported) == (idle > 0)
        assert not idle or reported[0].startswith(f"{idle} of {devices} processes")


def test_the_gpu_of_a_job_is_in_no_key_and_no_record(run, networks):
    result = run(networks)
    records = []
    for devices in (1, [3]):
        planned = plan_modules(networks, trainer=changed(devices=devices))
        record = make_record(planned, result.job, result.results, None)
        records.append(record.model_dump(exclude={"created"}))
    assert records[0] == records[1]


def test_clean_predictions_are_each_models_own(run, networks, batch):
    rows = run(networks).results.clean.to_pandas()
    assert set(rows["eps_255"]) == {0} and rows["target"].tolist() == ["a"] * 11 + ["b"] * 11
    expected = networks["b"](to_unit(batch.images)).argmax(1)
    assert rows["predicted"].tolist()[11:] == expected.tolist()


def test_images_made_before_are_not_attacked_again(run, networks, tmp_path):
    whole = run({"a": networks["a"]}, cache=tmp_path)
    again = run(networks, cache=tmp_path)  # for another target
    assert whole.results.gradients == 11 and again.results.gradients == 0
    assert again.tables["float32"]["gradients"].unique().to_pylist() == [1.0]
    calls = []

    def attack(*arguments, seeds):
        calls.append(arguments)
        return fgsm(*arguments)

    other = run(networks | {"c": networks["b"]}, attack, cache=tmp_path)
    assert calls == [] and other.tables["float32"].num_rows == 3 * 11 * 2
