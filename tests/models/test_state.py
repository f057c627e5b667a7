"""State that is not in the tensors of a state dict: digests, keys of rows, calls from Python."""

import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import MethodType, SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from torch import fx, nn

from src import transfer
from src.models import PixelClassifier
from src.models.state_digest import state_digest as digest_of
from tests.conftest import run_python

# torch's quantisation and TorchScript are deprecated, but people hold such networks.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{words}")
    for words in ("quantiz", "torch.jit", "reduce_range", "observer")
]

KINDS = {
    "number": lambda k: float(k),
    "text": lambda k: f"mode {k}",
    "tensor": lambda k: torch.full((2,), float(k)),
    "float16 tensor": lambda k: torch.full((2,), k, dtype=torch.float16),
    "sparse tensor": lambda k: torch.full((2,), float(k)).to_sparse(),
    "quantised tensor": lambda k: torch.quantize_per_tensor(torch.ones(2) * k, k, 0, torch.qint8),
    "array": lambda k: np.full(2, k),
    "array of objects": lambda k: np.array([k, "a"], dtype=object),
    "NumPy number": lambda k: np.float32(k),
    "list in a dict": lambda k: {"a": [1, (2, k)]},
    "set": lambda k: {"a", k},
    "defaultdict": lambda k: defaultdict(list, {1: [k]}),
    "module in a list": lambda k: [nn.Flatten(), filled(nn.Linear(2, 2, bias=False), k)],
    "object": lambda k: SimpleNamespace(scale=k),
    "partial": lambda k: partial(torch.clamp, max=k),
    "closure": lambda k: lambda images: images * k,
    "default": lambda k: lambda images, k=k: images * k,
    "path": lambda k: Path("weights", str(k)),
}


def state_digest(net):
    return PixelClassifier(net, [0] * 3, [1] * 3).state


def weights_digest(net):
    return PixelClassifier(net, [0] * 3, [1] * 3).digest


def filled(layer, value):
    return layer.requires_grad_(False).apply(lambda part: part.weight.fill_(value))


def network(value):
    net = filled(nn.Linear(3, 2, bias=False), 1)
    net.value = value
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_attribute_counts(kind):
    first, same, other = (state_digest(network(KINDS[kind](k))) for k in (1, 1, 2))
    assert first == same != other and first is not None


class Normaliser(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)


class Times(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images):
        return images * self.value


class Extra(nn.Linear):
    scale = 1

    def get_extra_state(self):
        return {"scale": type(self).scale}

    def set_extra_state(self, state):
        """Leave the layer as it is."""


def hooked(value):
    net = network(0)
    net.register_forward_hook(partial(torch.mul, value))
    return net


def quantised(value, kind):
    layer = nn.Conv2d(3, 2, 1) if kind == "static" else nn.Linear(3, 2)
    net = nn.Sequential(torch.ao.quantization.QuantStub(), filled(layer, 1)).eval()
    net[1].weight[:, 0] = value
    nn.init.zeros_(net[1].bias)
    if kind == "dynamic":
        return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    net.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(net, inplace=True)(torch.ones(1, 3, 2, 2))
    return torch.ao.quantization.convert(net)


BUILDERS = {
    "buffer that is not persistent": Normaliser,
    "hook": hooked,
    "graph": lambda k: fx.symbolic_trace(Times(k)),
    "dynamic": partial(quantised, kind="dynamic"),
    "static": partial(quantised, kind="static"),
}


@pytest.mark.parametrize("kind", BUILDERS)
def test_other_state_counts(kind):
    first, same, other = map(BUILDERS[kind], (1.0, 1.0, 0.5))
    assert state_digest(first) == state_digest(same)
    both = [(weights_digest(net), state_digest(net)) for net in (first, other)]
    assert both[0] != both[1] and None not in both[0]
    if kind in ("dynamic", "static"):
        assert both[0][0] != both[1][0]
        doubled = BUILDERS[kind](2.0)  # its whole numbers may be equal, with another scale
        assert weights_digest(doubled) != both[0][0]


def test_extra_state_counts_and_tensors_of_the_state_dict_do_not(monkeypatch):
    first = Extra(3, 2)
    before, digest = state_digest(first), weights_digest(first)
    with torch.no_grad():
        first.weight += 1
    assert state_digest(first) == before and weights_digest(first) != digest
    digest = weights_digest(first)
    monkeypatch.setattr(Extra, "scale", 2)
    assert state_digest(first) != before and weights_digest(first) != digest


def test_what_cannot_be_taken_apart_is_told():
    net = network(0)
    net.value = (number for number in range(3))
    assert state_digest(net) is None
    assert state_digest(torch.jit.trace(nn.Flatten(), torch.ones(1, 3))) is None


CODE = """
import sys, timm, torch
from src.models.state_digest import state_digest
torch.set_num_threads(int(sys.argv[1]))
net = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=2)
net.names, net.mine, net.device = {"a", "b", "c"}, [net], torch.device(sys.argv[2])
print(state_digest(torch.compile(net) if "compiled" in sys.argv else net)[0])
"""


@pytest.mark.slow
def test_devices_threads_processes_and_a_cycle_change_nothing(tmp_path):
    net = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=2)
    net.names, net.mine, net.device = {"a", "b", "c"}, [net], torch.device("cpu")
    found = run_python("-c", CODE, "2", "cuda", folder=tmp_path).strip()
    assert found == digest_of(net)[0] != "None"


@pytest.mark.slow
def test_the_same_holds_for_a_compiled_network(tmp_path):
    texts = [
        run_python("-c", CODE, *words, "compiled", folder=tmp_path)
        for words in (("1", "cpu"), ("2", "cuda"))
    ]
    assert texts[0] == texts[1] and "None" not in texts[0]


NETWORK = """
import json
from pathlib import Path
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.flat = nn.AvgPool2d(8), nn.Flatten()
        weight = json.loads(Path(__file__).with_name("net.json").read_text())
        self.vectors = torch.tensor(weight)
        self.images = None
    def forward(self, images):
        self.images = self.flat(self.pool(images))
        return self.images @ self.vectors.T

def scripted():
    example = torch.rand(1, 3, 32, 32)
    return torch.jit.trace(Net(), example, check_trace=False)
"""
MODEL = """# @package model.net
network: {{_target_: holding.{name}}}
mean: [0, 0, 0]
std: [1, 1, 1]
weights: included
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Net", "scripted"])
def test_rows_follow_weights_that_are_no_parameters(workspace, run_tiny, capsys, name):
    (workspace / "holding.py").write_text(NETWORK)
    (workspace / "conf/model/net.yaml").write_text(MODEL.format(name=name))
    shown, computed = [], []
    for seed in (0, 3, 3):
        weight = np.random.default_rng(seed).normal(size=(10, 48)).tolist()
        (workspace / "net.json").write_text(str(weight))
        assert run_tiny(workspace, "attack=fgsm", "targets=[net]", "rerun=false") == 0
        shown += re.findall(r"clean images, .* net (\S+%)", capsys.readouterr().out)[:1]
        computed.append(len([*workspace.glob("cache/rows-*/*/*/*.parquet")]))
    assert shown[0] != shown[1] == shown[2]
    assert computed[0] < computed[1] == computed[2]


TRAINED = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
        self.scale = 1.0
    def get_extra_state(self):
        return {"version": 1}
    def set_extra_state(self, state):
        pass
    def forward(self, images):
        if self.training:
            self.scale += 1
        return super().forward(images) * self.scale
"""


@pytest.mark.slow
def test_training_leaves_what_its_file_holds(workspace, run_tiny, capsys):
    (workspace / "holding.py").write_text(TRAINED)
    text = MODEL.format(name="Net").replace("included", "null")
    (workspace / "conf/model/net.yaml").write_text(text)
    words = ["attack=fgsm", "source=net", "targets=[net,coarse]", "rerun=false"]
    words += ["dataset.n_train=20", "training.epochs=1"]
    rows = []
    for _ in range(2):
        assert run_tiny(workspace, *words) == 0
        rows.append(sorted(workspace.glob("cache/rows-*/*/*/*.parquet")))
    assert rows[0] == rows[1] and len([*workspace.glob("cache/checkpoints/*.safetensors")]) == 1
    fit = ["attack=lgv", "attack.epochs=1", "attack.fit_n_images=20", "attack.steps=2"]
    assert run_tiny(workspace, *fit, *words[1:]) == 0


def test_transfer_takes_modules_with_state_that_is_no_tensor():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=generator).to(torch.uint8)
    source = nn.Sequential(nn.Flatten(), Extra(192, 10)).eval()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval()
    target = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
    labels = source(images / 255).argmax(1)
    frame = transfer({"s": source}, {"s": source, "q": target}, images, labels, progress_bar=False)
    clean = frame[(frame["eps_255"] == 0) & (frame["target"] == "q")]
    assert clean["predicted"].tolist() == target(images / 255).argmax(1).tolist()


def test_classes_and_hooks_made_in_a_function_count_with_what_they_hold():
    def made(scale):
        class Scaled(nn.Module):
            def forward(self, images):
                return scale * images

        return Scaled()

    def hooked(scale):
        net = nn.Linear(2, 2)
        net.register_full_backward_hook(lambda module, into, out: (scale * into[0],))
        return net

    def bound(scale):
        net = nn.Linear(2, 2)
        net.forward = MethodType(lambda self, images: scale * images, net)
        return net

    def ordered(reverse):
        net = nn.Linear(2, 2)
        net.order = [net.weight, net.bias][:: -1 if reverse else 1]
        return net

    for make in (made, hooked, bound):
        assert state_digest(make(1.0)) == state_digest(make(1.0)) != state_digest(make(-1.0))
    assert state_digest(ordered(False)) != state_digest(ordered(True))
