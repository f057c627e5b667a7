import os
import pickle
import threading

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from src.models import load_state, load_weights, save_weights, weights_digest


def network(classes=10, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, classes)
    )


def same(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def write(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".safetensors"])
def test_every_format_loads(tmp_path, suffix):
    source, target = network(), network(seed=1)
    assert not same(source, target)
    load_weights(target, write(tmp_path / f"w{suffix}", source.state_dict()))
    assert same(source, target)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "network.", "model.network."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_wrappers_and_prefixes_are_undone(tmp_path, prefix, wrapper):
    state = {prefix + name: value for name, value in network().state_dict().items()}
    path = write(tmp_path / "w.pt", {wrapper: state, "epoch": 3} if wrapper else state)
    assert set(load_state(path)) == set(network().state_dict())
    target = network(seed=1)
    load_weights(target, path)
    assert same(target, network())


def test_a_lightning_checkpoint_gives_the_network_alone(tmp_path):
    state = {f"model.network.{name}": value for name, value in network().state_dict().items()}
    state["criterion.weight"] = torch.ones(10)
    path = write(tmp_path / "last.ckpt", {"state_dict": state, "optimizer_states": [{"a": 1}]})
    target = network(seed=1)
    load_weights(target, path)
    assert same(target, network())
    # In a plain file a stray name is an error, not something to drop.
    with pytest.raises(ValueError, match="does not fit the network: missing"):
        load_weights(target, write(tmp_path / "last.pt", {"state_dict": state}))


def test_a_prefix_of_the_network_itself_stays(tmp_path):
    def wrapped(seed):
        return nn.ModuleDict({"model": network(seed=seed)})

    source, target = wrapped(0), wrapped(1)
    load_weights(target, write(tmp_path / "w.pt", source.state_dict()))
    assert same(source, target)


def test_half_precision_is_cast_and_counters_may_be_missing(tmp_path):
    state = {
        name: value.half()
        for name, value in network().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    state["AuxLogits.fc.weight"] = torch.ones(2)
    target = network(seed=1)
    load_weights(target, write(tmp_path / "w.pt", state))
    assert target[3].weight.dtype == torch.float32
    torch.testing.assert_close(target[3].weight, network()[3].weight, atol=1e-3, rtol=1e-3)


def test_another_number_of_classes_is_said_so(tmp_path):
    path = write(tmp_path / "w.pt", network(classes=100).state_dict())
    with pytest.raises(ValueError, match=r"w\.pt is for 100 classes, the data set has 10\.$"):
        load_weights(network(), path, num_classes=10)


def test_misfits_are_listed_and_change_nothing(tmp_path):
    state = network().state_dict()
    state["0.weight"] = torch.zeros(4, 3, 5, 5)
    del state["3.bias"]
    state |= {f"extra.{i}": torch.zeros(1) for i in range(5)}
    target, before = network(seed=1), network(seed=1)
    with pytest.raises(ValueError, match=r"w\.pt does not fit") as caught:
        load_weights(target, write(tmp_path / "w.pt", state))
    message = str(caught.value)
    assert "missing: 3.bias;" in message
    assert "unexpected: extra.0, extra.1, extra.2 and 2 more;" in message
    assert "0.weight (4, 3, 5, 5) not (4, 3, 3, 3)" in message
    assert same(target, before)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.full((10, 16), float("nan")), "not finite in 3.weight"),
        (torch.ones(10, 16, dtype=torch.int8), "int8 values in 3.weight"),
    ],
)
def test_values_that_are_no_weights_are_refused(tmp_path, value, says):
    state = network().state_dict() | {"3.weight": value}
    with pytest.raises(ValueError, match=says):
        load_weights(network(), write(tmp_path / "w.pt", state))


class Attack:
    def __reduce__(self):
        return os.mkdir, ("created-by-a-pickle",)


def test_objects_are_not_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": network().state_dict(), "x": Attack()}, "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Attack()))
    torch.save(network(), "module.pt")
    for name in ("evil.pt", "raw.pt", "module.pt"):
        with pytest.raises(ValueError, match=f"{name} is damaged or holds Python objects"):
            load_state(name)
    assert not (tmp_path / "created-by-a-pickle").exists()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_truncated_files_are_named(tmp_path, suffix, share):
    path = write(tmp_path / f"w{suffix}", network().state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=f"w{suffix}"):
        load_state(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.ones(1)], "holds no state dict, but a list"),
        ({}, "an empty dict"),
        ({"a": torch.ones(1), "b": 3}, "more than named tensors, among them 'b'"),
        ({1: torch.ones(1)}, "more than named tensors, among them 1"),
    ],
)
def test_other_content_is_refused(tmp_path, content, says):
    with pytest.raises(ValueError, match=says):
        load_state(write(tmp_path / "w.pt", content))


def test_missing_files_and_other_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.pt does not exist"):
        load_state(tmp_path / "nowhere.pt")
    with pytest.raises(ValueError, match=r"w\.h5 is no weight file"):
        load_state(tmp_path / "w.h5")
    with pytest.raises(ValueError, match=r"written as \.safetensors"):
        save_weights(network(), tmp_path / "w.pt")


def test_a_file_without_read_permission_is_not_called_damaged(tmp_path, monkeypatch):
    path = write(tmp_path / "w.pt", network().state_dict())

    def denied(self, *args):  # not by chmod, which stops no administrator
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(ValueError, match=r"w\.pt cannot be read: Permission denied\.$"):
        load_state(path)


def test_saving_round_trips_and_leaves_no_other_file(tmp_path):
    source = network().to(memory_format=torch.channels_last)
    source.append(source[3])  # shared weights
    path = tmp_path / "new" / "w.safetensors"
    save_weights(source, path)
    target = network(seed=1)
    target.append(target[3])
    load_weights(target, path)
    assert same(source, target)
    assert os.listdir(path.parent) == ["w.safetensors"]


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(network(), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ValueError, match=r"w\.safetensors cannot be written: disk full"):
        save_weights(network(seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_readers_beside_a_writer_see_whole_files(tmp_path):
    path = tmp_path / "w.safetensors"
    networks = [network(seed=seed) for seed in range(2)]
    known = {weights_digest(item) for item in networks}
    save_weights(networks[0], path)
    writer = threading.Thread(
        target=lambda: [save_weights(networks[i % 2], path) for i in range(50)]
    )
    writer.start()
    target = network(seed=2)
    for _ in range(50):
        load_weights(target, path)
        assert weights_digest(target) in known
    writer.join()


def test_digest_follows_the_weights_and_nothing_else():
    digest = weights_digest(network())
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert weights_digest(network().to(memory_format=torch.channels_last)) == digest
    counted = network().train()
    counted[1].num_batches_tracked += 5
    assert weights_digest(counted) == digest
    assert weights_digest(network(seed=1)) != digest
    assert weights_digest(network().half()) != digest
    changed = network()
    changed[1].running_mean[0] += 1e-6
    assert weights_digest(changed) != digest
