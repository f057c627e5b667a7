"""Weight files: what loads, what is refused, and how they are written and identified."""

import os
import sys
import zipfile
from itertools import product
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn

from src.models import load_weights, save_weights, weight_facts, weights_digest


def network(classes=10, seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, classes)
    return nn.Sequential(*layers)


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


GOOD = network().state_dict()
NOISE = {name: value + 1 for name, value in GOOD.items()}


def loaded(path, into=None):
    """Load a file into a network of other weights, and return it."""
    target = network(seed=1) if into is None else into
    load_weights(target, path)
    return target


def same(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs if torch.is_tensor(one))


def write(path, content):
    save = save_file if path.suffix == ".safetensors" else torch.save
    save(content, path)
    return path


def test_every_format_loads_without_wrapper_and_prefix(tmp_path):
    for suffix in (".pt", ".ckpt", ".safetensors"):
        assert same(loaded(write(tmp_path / f"w{suffix}", GOOD)), network())
    prefixes = ("", "module.", "module.model.", "classifier.network.", "1.")
    wrappers = ("state_dict", "model_state_dict", "model", "net", "last")
    for prefix, wrapper in product(prefixes, wrappers):
        content = {wrapper: under(prefix, GOOD), "epoch": 3, "optimizer": {"state": {}}}
        assert same(loaded(write(tmp_path / "w.pt", content)), network())


def with_a_shared_layer(seed):
    made = network(seed=seed).to(memory_format=torch.channels_last)
    return made.append(made[3])


def with_a_prefix(seed):
    return nn.ModuleDict({"model": network(seed=seed)})


@pytest.mark.parametrize("make", [with_a_shared_layer, with_a_prefix])
def test_a_network_gets_back_what_was_saved(tmp_path, make):
    source = make(0)
    save_weights(source, tmp_path / "w.safetensors")
    assert same(loaded(tmp_path / "w.safetensors", into=make(1)), source)
    path = write(tmp_path / "w.pt", under("_orig_mod.", source.state_dict()))
    assert same(loaded(path, into=make(1)), source)


def test_what_changes_no_prediction_may_differ(tmp_path):
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        state = {name: its.to(kind) for name, its in GOOD.items() if its.is_floating_point()}
        state["AuxLogits.fc.weight"] = torch.ones(2)
        weight = loaded(write(tmp_path / "w.pt", state))[3].weight
        assert torch.equal(weight, GOOD["3.weight"].to(kind).float())


class Canary(dict):
    """An object that leaves a folder wherever a part of it runs."""

    def __init__(self, way="state"):
        self.way = way

    def __reduce__(self):
        if self.way == "call":
            return os.mkdir, ("created-by-a-pickle",)
        if self.way == "nested":
            return getattr, (Canary("call"), "numerator")
        return type(self), (), {"a": 1}, iter([1]), iter([("a", 1)])

    def __setstate__(self, state):
        os.mkdir("created-by-a-pickle")

    append = extend = __setitem__ = __setstate__


REFUSED = {
    "another number of classes": (network(classes=100).state_dict(), r"3\.weight"),
    "a missing name": ({name: GOOD[name] for name in list(GOOD)[:-1]}, r"3\.bias"),
    "more names": (GOOD | {f"extra.{i}": torch.zeros(1) for i in range(500)}, r"extra\.0"),
    "no tensor": (GOOD | {"3.weight": 3}, r"3\.weight"),
    "whole numbers": (GOOD | {"3.weight": GOOD["3.weight"].long()}, r"3\.weight is torch\.int64"),
    "a module": (network(), r"torch\.load\('.*w\.pt', weights_only=False\).*torch\.save"),
    "a pickle": (Canary("call"), r"posix\.mkdir"),
    "lists of tensors": ({"shadow": [torch.ones(2)]}, "no tensors by name"),
    "two copies": ({"best": GOOD, "worst": GOOD}, "best/, worst/"),
    "another network": ({"net": under("model.", GOOD | {"4.x": GOOD["3.bias"]})}, r"4\.x"),
    "other names": ({"a.weight": torch.ones(2)}, r"a\.weight; .* 0\.weight, "),
}


def test_other_content_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content, says in REFUSED.values():
        with pytest.raises(ValueError, match=rf"w\.pt.*{says}") as caught:
            loaded(write(tmp_path / "w.pt", content))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
        assert "trust" not in str(caught.value)  # advice of torch
    assert not (tmp_path / "created-by-a-pickle").exists()
    with pytest.raises(ValueError, match=r"none\.pt.*No such file"):
        loaded(tmp_path / "none.pt")


def test_damaged_files_are_refused(tmp_path):
    for name in ("w.pt", "w.safetensors"):
        path = write(tmp_path / name, GOOD)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=name):
            loaded(path)
    save_weights(network(), path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # of the last number
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        loaded(path)


def ways_to_state(names):
    """Yield ways in which checkpoints state the names of classes."""
    numbers = {name: number for number, name in reversed([*enumerate(names)])}
    names_by_number = {number: name for name, number in numbers.items()}
    yield from ({"class_to_idx": numbers}, {"idx_to_class": names_by_number})
    yield {"id2label": {str(number): name for number, name in enumerate(names)}}
    yield from ({"class_names": names}, {"classes": [*names]})


NUMBERS = tuple(sorted(map(str, range(12))))  # torchvision's order; they are no positions
STATED = [(its, names) for names in (("b", "a", "c"), NUMBERS) for its in ways_to_state(names)]
STATED += [({"classes": its}, ()) for its in (6, {}, {"a": 1, "b": 2}, [[1], {}])]


def test_a_checkpoint_states_its_classes_as_a_list_or_a_dict_either_way(tmp_path):
    path = tmp_path / "x.pt"
    for stated, names in STATED:
        for content in (stated, {"hyper_parameters": stated}, {"meta": {"data": stated}}):
            torch.save({"state_dict": GOOD, **content, "more": {"class_names": ["z"]}}, path)
            lists = [its for its in (names, ("z",)) if its]
            assert weight_facts(path).lists == (*lists,), content
    path.write_bytes(b"no weights")
    assert weight_facts(path).lists == ()


def test_facts_that_no_weights_have_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    wrong = [("expected_accuracy", text) for text in ("abc", "nan", "5.0")]
    wrong += [("tested", text) for text in ("3 / 1", "-3 / 1", "many")]
    for key, value in wrong:
        save_file(GOOD, path, {"expected_accuracy": "0.5", "tested": "1 / 2", key: value})
        with pytest.raises(ValueError, match=rf"w.safetensors of model vgg .*{key}={value}[,.]"):
            weight_facts(path, "vgg")


def test_the_digest_follows_the_weights_and_nothing_else():
    digest = weights_digest(network())
    assert weights_digest(network().to(memory_format=torch.channels_last)) == digest
    counted, moved = network(), network()
    counted[1].num_batches_tracked += 5
    moved[1].running_mean[0] += 1e-6
    assert weights_digest(counted) == digest
    others = [weights_digest(other) for other in (network(seed=1), network().half(), moved)]
    assert digest not in others


TWO = {**under("model.", NOISE), **under("ema_model.module.", GOOD)}
MEAN_AND_RAW = [
    ({"state_dict": TWO}, "state_dict/ema_model.module."),
    ({"raw": {"net": NOISE}, "ema": {"shadow": GOOD}}, "ema/shadow/"),
]


def test_averaged_weights_are_taken_unless_the_others_are_wanted(tmp_path, caplog):
    for number, (content, named) in enumerate(MEAN_AND_RAW):
        path, other = write(tmp_path / f"{number}.pt", content), network(seed=1)
        assert same(loaded(path), network())
        assert f"{path}: {named} are averaged" in caplog.text
        load_weights(other, path, averaged=False)
        assert torch.equal(other[3].bias, NOISE["3.bias"])


def test_weights_beside_others_are_found_and_the_others_named(tmp_path, caplog):
    content = {"state_dict": {**under("model.", GOOD), "criterion.weight": torch.ones(10)}}
    content["optimizer"] = {"exp_avg": NOISE}  # moments are no averaged weights
    assert same(loaded(write(tmp_path / "w.ckpt", content)), network())
    assert "criterion.weight" in caplog.text and "exp_avg" not in caplog.text
    save_file(content["state_dict"], tmp_path / "w.safetensors")
    assert same(loaded(tmp_path / "w.safetensors"), network())


NUMPY = [np.float64(93.1), np.float32(1), np.int64(1), np.bool_(True), np.dtype("int64")]
OBJECTS = {
    **{f"canary {way}": Canary(way) for way in ("state", "call", "nested")},
    "function": os.path.join,
    "array": np.ones(3),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_beside_weights_are_neither_imported_nor_run(tmp_path, monkeypatch, caplog, kind):
    monkeypatch.chdir(tmp_path)
    content = {"args": OBJECTS[kind], "net": under("module.", GOOD), "best": NUMPY}
    for number, new in enumerate((True, False)):
        torch.save(content, f"{number}.pt", _use_new_zipfile_serialization=new)
        before = set(sys.modules)
        assert same(loaded(tmp_path / f"{number}.pt"), network())
        assert f"{number}.pt: objects of " in caplog.text
        assert set(sys.modules) == before and not (tmp_path / "created-by-a-pickle").exists()
    assert "numpy._core.multiarray.scalar" not in caplog.text


def text_of(text):
    return b"X" + len(text.encode()).to_bytes(4, "little") + text.encode()


def setting(name):
    """Return a pickle that sets an attribute of what has a name."""
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n(N}}(X\x04\0\0\0harmX\x01\0\0\0xutb.".encode()


def number_at_an_address():
    fields = b"}" + text_of("a") + b"cnumpy\ndtype\n" + text_of("O") + b"\x85RK\x00\x86s"
    kind = b"cnumpy\ndtype\n" + text_of("V8") + b"\x89\x88\x87R(K\x03" + text_of("|")
    kind += b"N(" + text_of("a") + b"t" + fields + b"K\x08K\x01K\x00tb"
    number = b"cnumpy._core.multiarray\nscalar\n" + kind + b"U\x08AAAAAAAA\x86R"
    return b"cbuiltins\nset\n" + number + b"\x85R."


CHANGED = ["torch._utils._rebuild_tensor_v2", "collections.OrderedDict", "builtins.set"]
CHANGED += ["numpy.dtype", "_codecs.encode", "torch.float32"]


def test_a_forged_pickle_changes_nothing_and_reads_no_address(tmp_path):
    for body in (*map(setting, CHANGED), number_at_an_address()):
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            archive.writestr("w/data.pkl", b"\x80\x02" + body)
            archive.writestr("w/version", "3")
            archive.writestr("w/byteorder", "little")
        with pytest.raises(ValueError, match=r"w\.pt "):
            loaded(tmp_path / "w.pt")
    assert not any(hasattr(resolve_name(name), "harm") for name in CHANGED)


class Tied(nn.Module):
    """A network with two layers of the same weight, and a third one with a part of it."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(4, 4)
        self.decoder.weight, self.head = self.encoder.weight, nn.Linear(4, 2)
        self.head.weight = nn.Parameter(self.encoder.weight.detach()[:2])


def test_weights_in_the_memory_of_others_need_not_be_in_a_file(tmp_path):
    wanted = Tied()
    save_model(wanted, str(tmp_path / "tied.safetensors"))
    assert len(load_file(tmp_path / "tied.safetensors")) < len(wanted.state_dict())
    found = loaded(tmp_path / "tied.safetensors", into=Tied(seed=1))
    assert same(found, wanted) and found.decoder.weight is found.encoder.weight
    apart = Tied(seed=1)
    apart.decoder.weight = nn.Parameter(apart.encoder.weight.detach().clone())
    with pytest.raises(ValueError, match=r"but not .*(decoder|encoder)\.weight"):
        loaded(tmp_path / "tied.safetensors", into=apart)
