"""Weight files: what loads, what is refused, and how they are written and identified."""

import os
import re
from itertools import product

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import mnasnet0_5

from src.models import load_weights, save_weights, weight_facts, weights_digest


def network(classes=10, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, classes)
    )


GOOD = network().state_dict()


def loaded(path, into=None):
    """Load a file into a network of other weights, and return it."""
    target = network(seed=1) if into is None else into
    load_weights(target, path)
    return target


def same(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def write(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def test_every_format_loads_without_wrapper_and_prefix(tmp_path):
    for suffix in (".pt", ".ckpt", ".safetensors"):
        assert same(loaded(write(tmp_path / f"w{suffix}", GOOD)), network())
    prefixes = ("", "module.", "module.model.", "classifier.network.", "1.")
    wrappers = ("state_dict", "model_state_dict", "model", "net", "last")
    for prefix, wrapper in product(prefixes, wrappers):
        state = {prefix + name: value for name, value in GOOD.items()}
        content = {wrapper: state, "epoch": 3, "optimizer": {"state": {}}}
        assert same(loaded(write(tmp_path / "w.pt", content)), network())


class Scaled(nn.Linear):
    """A layer with state that is no tensor."""

    def get_extra_state(self):
        return {"scale": 2}

    def set_extra_state(self, state):
        assert state == {"scale": 2}


def test_state_that_is_no_tensor_is_no_misfit(tmp_path):
    state, own = Scaled(3, 2).state_dict(), Scaled(3, 2)
    assert torch.equal(loaded(write(tmp_path / "w.pt", state), own).weight, state["weight"])


def test_a_prefix_of_the_network_itself_stays(tmp_path):
    source, target = (nn.ModuleDict({"model": network(seed=seed)}) for seed in (0, 1))
    for wrapper in ("", "module.", "_orig_mod."):
        state = {f"{wrapper}{name}": value for name, value in source.state_dict().items()}
        assert same(loaded(write(tmp_path / "w.pt", state), into=target), source)


def test_networks_that_ask_for_their_version_load(tmp_path):
    source, target = mnasnet0_5(num_classes=2), mnasnet0_5(num_classes=2)
    save_weights(source, tmp_path / "w.safetensors")
    assert same(loaded(tmp_path / "w.safetensors", into=target), source)


def test_what_changes_no_prediction_may_differ(tmp_path):
    state = {
        name: value.half()
        for name, value in network().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    state["AuxLogits.fc.weight"] = torch.ones(2)
    target = loaded(write(tmp_path / "w.pt", state))
    assert target[3].weight.dtype == torch.float32
    torch.testing.assert_close(target[3].weight, network()[3].weight, atol=1e-3, rtol=1e-3)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("created-by-a-pickle",)


REFUSED = {
    "another number of classes": (network(classes=100).state_dict(), r"3\.weight"),
    "a missing name": ({name: GOOD[name] for name in list(GOOD)[:-1]}, r"3\.bias"),
    "more names": (GOOD | {f"extra.{i}": torch.zeros(1) for i in range(500)}, r"extra\.0"),
    "no tensor": (GOOD | {"3.weight": 3}, r"3\.weight"),
    "a pickle": ({"state_dict": GOOD, "x": Attack()}, ""),
    "a module": (network(), ""),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_content_is_refused_in_a_sentence(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    content, says = REFUSED[kind]
    with pytest.raises(ValueError, match=rf"w\.pt.*{says}") as caught:
        loaded(write(tmp_path / "w.pt", content))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert "trust" not in str(caught.value)  # advice of torch
    assert not (tmp_path / "created-by-a-pickle").exists()


@pytest.mark.parametrize("name", ["int64", "uint8", "bool", "complex64"])
def test_weights_of_no_floating_point_type_are_refused(tmp_path, name):
    state = GOOD | {"3.weight": GOOD["3.weight"].to(getattr(torch, name))}
    path = write(tmp_path / "w.pt", state)
    with pytest.raises(ValueError, match=rf"w.pt: 3.weight is torch.{name}. Save floating-point"):
        loaded(path)


def test_every_floating_point_type_is_taken(tmp_path):
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        state = {name: value.to(kind) for name, value in GOOD.items() if value.is_floating_point()}
        assert loaded(write(tmp_path / "w.pt", state))[3].weight.dtype == torch.float32


@pytest.mark.parametrize(
    "facts",
    [
        *({"expected_accuracy": text} for text in ("abc", "nan", "inf", "-0.1", "5.0", "")),
        *({"tested": text} for text in ("1/0/3", "3 / 1", "-3 / 1", "0 / -1", "many", "1.5 / 3")),
    ],
    ids=str,
)
def test_facts_that_no_weights_have_are_refused(tmp_path, facts):
    path = tmp_path / "w.safetensors"
    save_file(GOOD, path, {"expected_accuracy": "0.5", "tested": "1 / 2"} | facts)
    ((key, value),) = facts.items()
    sentence = rf"w.safetensors of model vgg has the metadata .*{key}={re.escape(value)}[,.]"
    with pytest.raises(ValueError, match=sentence):
        weight_facts(path, "vgg")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_missing_and_truncated_files_are_named(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"nowhere.*No such file"):
        loaded(tmp_path / f"nowhere{suffix}")
    path = write(tmp_path / f"w{suffix}", GOOD)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"w{suffix}"):
        loaded(path)


def test_saving_round_trips(tmp_path):
    source = network().to(memory_format=torch.channels_last)
    source.append(source[3])  # shared weights
    path = tmp_path / "w.safetensors"
    save_weights(source, path)
    target = network(seed=1)
    target.append(target[3])
    assert same(loaded(path, into=target), source)


def test_the_digest_follows_the_weights_and_nothing_else():
    digest = weights_digest(network())
    assert weights_digest(network().to(memory_format=torch.channels_last)) == digest
    counted, moved = network(), network()
    counted[1].num_batches_tracked += 5
    moved[1].running_mean[0] += 1e-6
    assert weights_digest(counted) == digest
    others = [weights_digest(other) for other in (network(seed=1), network().half(), moved)]
    assert digest not in others


def test_damaged_weights_of_a_training_are_refused(tmp_path):
    network, file = nn.Linear(20, 20), tmp_path / "w.safetensors"
    save_weights(network, file)
    content = bytearray(file.read_bytes())
    content[-5] ^= 1  # of the last number
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load_weights(network, file)
