"""Weight files: what loads, what is refused, and how they are written and identified."""

import argparse
import os
import re
import sys
import zipfile
from enum import Enum
from itertools import product
from pkgutil import resolve_name

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file, save_model
from torch import nn
from torchvision.models import mnasnet0_5

from src import load_classifier
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
    "a module": (network(), r"not read.*torch\.load\('.*w\.pt', weights_only=False\).*torch\.save"),
    "a pickle": (Attack(), r"posix\.mkdir"),
    "lists of tensors": ({"shadow": [torch.ones(2)]}, "no tensors by name"),
    "two copies": ({"best": GOOD, "worst": GOOD}, "best/, worst/ fit"),
    "another network": (
        {
            "net": {
                f"model.{name}": value for name, value in {**GOOD, "4.x": GOOD["3.bias"]}.items()
            }
        },
        r"4\.x",
    ),
    "other names": (
        {"a.weight": torch.ones(2)},
        r"The file has a\.weight; the network 0\.weight, ",
    ),
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


IN_ORDER = {
    "class_to_idx": {"b": 0, "c": 2, "a": 1},
    "label2id": {"a": 1, "b": 0, "c": 2},
    "idx_to_class": {1: "a", 0: "b", 2: "c"},
    "id2label": {"1": "a", "0": "b", "2": "c"},
    "class_names": ("b", "a", "c"),
    "classes": ["b", "a", "c"],
    "names": {0: "b", 1: "a", 2: "c"},
    "categories": {"b": 0, "a": 1, "c": 2},
}


@pytest.mark.parametrize("key", IN_ORDER)
@pytest.mark.parametrize("within", [(), ("hyper_parameters",), ("meta", "data")])
@pytest.mark.parametrize("zipped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_checkpoint_states_its_classes_as_a_list_or_a_dict_either_way(
    tmp_path, key, within, zipped
):
    stated = {key: IN_ORDER[key], "epoch": 3}
    for name in within:
        stated = {name: stated}
    content = {"state_dict": GOOD, **stated}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    assert weight_facts(tmp_path / "x.pt").lists == (("b", "a", "c"),)


TEXT_ORDER = [*sorted(map(str, range(12)))]  # torchvision's, of folders that are numbers


@pytest.mark.parametrize(
    "stated",
    [
        {"class_to_idx": {name: number for number, name in enumerate(TEXT_ORDER)}},
        {"classes": {name: number for number, name in enumerate(TEXT_ORDER)}},
        {"idx_to_class": dict(enumerate(TEXT_ORDER))},
        {"idx_to_class": dict(enumerate(map(int, TEXT_ORDER)))},
        {"id2label": {str(number): name for number, name in enumerate(TEXT_ORDER)}},
        {"names": TEXT_ORDER},
    ],
)
def test_names_that_are_numbers_are_no_positions(tmp_path, stated):
    torch.save({"state_dict": GOOD, **stated}, tmp_path / "x.pt")
    assert weight_facts(tmp_path / "x.pt").lists == (tuple(TEXT_ORDER),)


@pytest.mark.parametrize(
    "stated", [{"classes": 6}, {"classes": {}}, {"names": {"a": 1, "b": 2}}, {"names": [[1], {}]}]
)
def test_what_numbers_no_classes_is_passed_over(tmp_path, stated):
    torch.save({**stated, "more": {"class_names": ["b", "a"]}}, tmp_path / "x.pt")
    assert weight_facts(tmp_path / "x.pt").lists == (("b", "a"),)
    (tmp_path / "y.pt").write_bytes(b"no weights")
    assert weight_facts(tmp_path / "y.pt").lists == ()


def test_all_lists_in_a_checkpoint_are_read_and_shared_dicts_once(tmp_path):
    shared = {"names": ["conv1", "bn"]}
    for _ in range(40):  # 2^40 paths
        shared = {"a": shared, "b": shared}
    torch.save({"state": shared, "class_to_idx": {"b": 0, "a": 1}}, tmp_path / "x.pt")
    assert weight_facts(tmp_path / "x.pt").lists == (("conv1", "bn"), ("b", "a"))


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


def under(prefix, state=GOOD):
    return {prefix + name: value for name, value in state.items()}


NOISE = {name: value + 1 for name, value in GOOD.items()}
MEAN_AND_RAW = {
    "timm": ({"state_dict": NOISE, "state_dict_ema": GOOD}, "state_dict_ema/"),
    "torchvision": (
        {"model": NOISE, "model_ema": {**under("module."), "n_averaged": torch.tensor(3)}},
        "model_ema/module.",
    ),
    "a module of two": (
        {"state_dict": {**under("model.", NOISE), **under("ema_model.module.")}},
        "state_dict/ema_model.module.",
    ),
    "deep": ({"raw": {"net": NOISE}, "ema": {"shadow": GOOD}}, "ema/shadow/"),
    "a name of two words": ({"state_dict": NOISE, "modelEMA": GOOD}, "modelEMA/"),
}


@pytest.mark.parametrize("kind", MEAN_AND_RAW)
def test_averaged_weights_are_taken_unless_the_others_are_wanted(tmp_path, caplog, kind):
    content, named = MEAN_AND_RAW[kind]
    path, other = write(tmp_path / "w.pt", content), network(seed=1)
    assert same(loaded(path), network())
    assert f": {named} are averaged. For the others: model.NAME.averaged=false" in caplog.text
    load_weights(other, path, averaged=False)
    assert torch.equal(other[3].bias, NOISE["3.bias"])


def test_weights_beside_others_are_found_and_the_others_named(tmp_path, caplog):
    content = {"state_dict": {**under("model."), "criterion.weight": torch.ones(10)}, "epoch": 9}
    content["optimizer"] = {"exp_avg": NOISE}  # moments are no averaged weights
    assert same(loaded(write(tmp_path / "w.ckpt", content)), network())
    assert "criterion.weight" in caplog.text and "exp_avg" not in caplog.text
    save_file(content["state_dict"], tmp_path / "w.safetensors")
    assert same(loaded(tmp_path / "w.safetensors"), network())


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


class Colour(Enum):
    RED = 1


OmegaConf.register_new_resolver("canary", os.mkdir)
OBJECTS = {
    **{f"canary {way}": Canary(way) for way in ("state", "call", "nested")},
    "interpolation": OmegaConf.create({"a": "${canary:created-by-a-pickle}", "b": [1, "${a}"]}),
    "Namespace": argparse.Namespace(epochs=3),
    "enumeration": Colour.RED,
    "function": os.path.join,
    "array": np.ones(3),
    "layer": nn.Linear(2, 2),
}


@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("new", [True, False])
def test_objects_beside_weights_are_neither_imported_nor_run(
    tmp_path, monkeypatch, caplog, kind, new
):
    monkeypatch.chdir(tmp_path)
    content = {"args": OBJECTS[kind], "net": under("module."), "best": np.float64(93.1)}
    torch.save(content, "w.pt", _use_new_zipfile_serialization=new)
    before = set(sys.modules)
    assert same(loaded(tmp_path / "w.pt"), network())
    assert "objects of " in caplog.text and "not read" in caplog.text
    assert "numpy._core.multiarray.scalar" not in caplog.text
    assert set(sys.modules) == before and not (tmp_path / "created-by-a-pickle").exists()


def test_numbers_of_numpy_are_read_without_a_word(tmp_path, caplog):
    for name in ("float64", "float32", "int64", "bool"):
        content = {"net": GOOD, "best": getattr(np, name)(1), "kind": np.dtype(name)}
        assert same(loaded(write(tmp_path / "w.pt", content)), network())
    assert caplog.text == ""


def test_nothing_of_the_program_can_be_changed_by_a_file(tmp_path):
    """Let a pickle set attributes of all that it may name."""
    names = "torch._utils._rebuild_tensor_v2 collections.OrderedDict builtins.set"
    for name in [*names.split(), "numpy.dtype", "_codecs.encode", "torch.float32"]:
        place = name.rpartition(".")
        harm = f"c{place[0]}\n{place[2]}\n(N}}(X\x04\0\0\0harmX\x01\0\0\0xutb.".encode()
        (tmp_path / "w.pt").write_bytes(b"")
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            archive.writestr("w/data.pkl", b"\x80\x02" + harm)
            archive.writestr("w/version", "3")
            archive.writestr("w/byteorder", "little")
        with pytest.raises(ValueError, match=r"w\.pt "):
            loaded(tmp_path / "w.pt")
        assert not hasattr(resolve_name(name), "harm")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_whole_networks_are_refused_with_the_lines_that_convert_them(tmp_path):
    path = tmp_path / "w.pt"
    torch.jit.trace(network().eval(), torch.ones(1, 3, 4, 4)).save(path)
    with pytest.raises(ValueError, match=r"torch\.load\(.*w\.pt.*\); torch\.save\("):
        loaded(path)


@pytest.mark.slow
def test_a_setting_takes_the_other_weights(workspace, tiny_weights):
    good = load_file(tiny_weights / "coarse.safetensors")
    raw = {name: torch.zeros_like(value) for name, value in good.items()}
    torch.save({"model": under("module.", raw), "model_ema": good}, workspace / "both.pth")
    file = workspace / "conf/model/coarse.yaml"
    file.write_text(re.sub("weights: .*", "weights: both.pth", file.read_text()))
    word = "model.coarse.averaged=false"
    for words, state in (([], good), ([word], raw)):
        network = load_classifier("coarse", "dataset=cifar10_mini", *words, config_dir="conf")
        assert torch.equal(network.network[2].weight, state["2.weight"])


class Tied(nn.Module):
    """A network with two layers of the same weight, and a third one with a part of it."""

    def __init__(self, seed=0, part=False):
        super().__init__()
        torch.manual_seed(seed)
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(4, 4)
        self.decoder.weight, self.head = self.encoder.weight, nn.Linear(4, 2)
        if part:
            self.head.weight = nn.Parameter(self.encoder.weight.detach()[:2])


@pytest.mark.parametrize("part", [False, True])
def test_weights_in_the_memory_of_others_need_not_be_in_a_file(tmp_path, part):
    wanted = Tied(part=part)
    save_model(wanted, str(tmp_path / "tied.safetensors"))
    state = load_file(tmp_path / "tied.safetensors")
    assert len(state) < len(wanted.state_dict())
    pairs = [(f"module.{name}", value) for name, value in state.items()]
    write(tmp_path / "tied.pt", {"model": dict(pairs), "epoch": 3})
    for name in ("tied.safetensors", "tied.pt"):
        found = loaded(tmp_path / name, into=Tied(seed=1, part=part))
        assert same(found, wanted) and found.decoder.weight is found.encoder.weight
    apart = Tied(seed=1)
    apart.decoder.weight = nn.Parameter(apart.encoder.weight.detach().clone())
    with pytest.raises(ValueError, match=r"but not .*(decoder|encoder)\.weight"):
        loaded(tmp_path / "tied.pt", into=apart)


def test_layers_without_shapes_yet_get_them_from_the_file(tmp_path):
    def lazy():
        return nn.Sequential(
            nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10)
        )

    path = write(tmp_path / "net.pt", GOOD)
    assert same(loaded(path, into=lazy()), network())
    with pytest.raises(ValueError, match=r"but not 3\.weight"):
        loaded(write(path, {name: GOOD[name] for name in GOOD if name != "3.weight"}), into=lazy())
