"""State that is not in the tensors of a state dict: digests, keys of rows, calls from Python."""

import re
from collections import OrderedDict
from enum import Enum
from functools import partial, wraps
from types import FunctionType, MethodType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import fx, nn

from src import transfer
from src.models import PixelClassifier
from src.models.state_digest import StateDigest
from tests.conftest import TINY_RUN, replaced, run_python
from tests.test_distributed import DDP

# torch's quantisation and TorchScript are deprecated, but people hold such networks.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{words}")
    for words in ("quantiz", "torch.jit", "reduce_range", "observer", ".*weight_norm")
]


def filled(layer, value):
    return layer.requires_grad_(False).apply(lambda part: part.weight.fill_(value))


def network(value):
    net = filled(nn.Linear(3, 2, bias=False), 1)
    net.value = value
    return net


class Mode(Enum):
    ONE = 1
    TWO = 2


class Normaliser(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", torch.tensor(float(mean)), persistent=False)


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


def of_method(k):
    net = Times(k)
    net.call = net.forward
    return net


def plain(images, factor=1):
    return images * factor


def scaled(factor):
    @wraps(plain)
    def head(images):
        return plain(images, factor)

    return head


def called(function):
    graph = fx.Graph()
    graph.output(graph.call_function(function, (graph.placeholder("images"),)))
    return fx.GraphModule(nn.Module(), graph)


ATTRIBUTES = {
    "number": float,
    "text": "mode {}".format,
    "enum": Mode,
    "tensor": lambda k: torch.full((2,), float(k)),
    "float16 tensor": lambda k: torch.full((2,), k, dtype=torch.float16),
    "sparse tensor": lambda k: torch.full((2,), float(k)).to_sparse(),
    "quantised tensor": lambda k: torch.quantize_per_tensor(torch.ones(2) * k, k, 0, torch.qint8),
    "array": partial(np.full, 2),
    "NumPy number": np.float32,
    "NumPy record": lambda k: np.full((), k, dtype=[("a", float, 3000)])[()],
    "type of number": {1: torch.float32, 2: torch.float16}.get,
    "class": {1: nn.ReLU, 2: nn.GELU}.get,
    "function": {1: torch.relu, 2: nn.functional.silu}.get,
    "functional pool": {1: nn.functional.max_pool2d, 2: nn.functional.max_pool1d}.get,
    "list in a dict": lambda k: {"a": [1, (2, k)]},
    "order of a dict": lambda k: OrderedDict([("a", 1), ("b", 1)][:: 3 - 2 * k]),
    "set": lambda k: {"a", k},
    "partial": lambda k: partial(nn.LayerNorm, eps=k),
    "module in a list": lambda k: [nn.Flatten(), filled(nn.Linear(2, 2, bias=False), k)],
}
STABLE = {name: lambda k, make=make: network(make(k)) for name, make in ATTRIBUTES.items()}
STABLE |= {
    "buffer that is not persistent": Normaliser,
    "graph": lambda k: fx.symbolic_trace(Times(k)),
    "method of its own": of_method,
    "dynamic": partial(quantised, kind="dynamic"),
    "static": partial(quantised, kind="static"),
}


@pytest.mark.parametrize("kind", STABLE)
def test_every_kind_of_state_counts(kind):
    first, same, other = (StateDigest(STABLE[kind](k)) for k in (1, 1, 2))
    assert first.text == same.text and not first.opaque
    digests = [PixelClassifier(STABLE[kind](k), [0] * 3, [1] * 3).digest for k in (1, 2)]
    assert first.text != other.text or digests[0] != digests[1]
    if kind in ("dynamic", "static"):
        assert digests[0] != digests[1]


@pytest.mark.parametrize("what", ["default", "attribute", "closure", "closure in a graph"])
def test_values_that_a_named_function_carries_count(what, monkeypatch):
    texts = []
    for k in (1, 1, 2):
        function = scaled(k) if "closure" in what else FunctionType(plain.__code__, globals())
        function.__defaults__ = (k,) if what == "default" else None
        function.__module__, function.__qualname__ = __name__, "plain"
        if what == "attribute":
            function.k = k
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "plain", function)
            digest = StateDigest(called(function) if "graph" in what else network(function))
        assert not digest.opaque
        texts.append(digest.text)
    assert texts[0] == texts[1] != texts[2]


def test_recurrent_layers_have_a_digest():
    assert not StateDigest(nn.LSTM(3, 2)).opaque


def hooked(register):
    net = nn.Linear(2, 2)
    getattr(net, register)(lambda *its: None)
    return net


def bound():
    net = nn.Linear(2, 2)
    net.forward = MethodType(lambda self, images: -images, net)
    return net


def made():
    class Scaled(nn.Module):
        scale = 3

    return Scaled()


OPAQUE = {
    "forward hook": partial(hooked, "register_forward_hook"),
    "hook before": partial(hooked, "register_forward_pre_hook"),
    "backward hook": partial(hooked, "register_full_backward_hook"),
    "old weight norm": lambda: nn.utils.weight_norm(nn.Linear(2, 2)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    "object": lambda: network(SimpleNamespace(scale=1)),
    "object in a list": lambda: network([1, SimpleNamespace(scale=1)]),
    "array of objects": lambda: network(np.array([1, "a"], dtype=object)),
    "dict with attributes": lambda: network(type("Its", (dict,), {})()),
    "object in a partial": lambda: network(partial(torch.clamp, max=SimpleNamespace())),
    "function without a name": lambda: network(lambda images: images),
    "bound method": bound,
    "class made in a function": made,
    "class made by hand": lambda: type(
        "Times", (Times,), {"value": 1, "__init__": nn.Module.__init__}
    )(),
    "generator": lambda: network(number for number in range(3)),
    "trace": lambda: torch.jit.trace(nn.Flatten(), torch.ones(1, 3)),
    "script": lambda: torch.jit.script(nn.Linear(2, 2)),
    "compiled": lambda: torch.compile(nn.Linear(2, 2)),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_what_may_hold_anything_has_no_digest(kind):
    assert StateDigest(OPAQUE[kind]()).opaque


def test_extra_state_counts_and_tensors_of_the_state_dict_do_not(monkeypatch):
    def digests():
        return StateDigest(first).text, PixelClassifier(first, [0] * 3, [1] * 3).digest

    first = Extra(3, 2)
    before = digests()
    with torch.no_grad():
        first.weight += 1
    after = digests()
    assert after[0] == before[0] and after[1] != before[1]
    monkeypatch.setattr(Extra, "scale", 2)
    assert digests()[0] != after[0] and digests()[1] != after[1]


def test_the_order_of_known_tensors_counts():
    def ordered(step):
        net = nn.Linear(2, 2)
        net.order = [net.weight, net.bias][::step]
        return StateDigest(net).text

    assert ordered(1) == ordered(1) != ordered(-1)


KEYS = """
import sys
import torch
from src.config.compose import compose_words
from src.config.resolvers import CONF
from src.models import PixelClassifier
from src.utils.call_target import call_target
seed, device, *names = sys.argv[1:]
torch.set_num_threads(int(seed) + 1)
own = [file.stem for file in CONF.glob("model/[a-z]*.yaml")]
own = sorted({*own} - {"answers", "timm", "torchvision"})
config = compose_words(CONF, ["attack=fgsm", f"targets=[{','.join(own)}]"])
networks = {name: dict(config.model[name].network) for name in own}
networks |= {name: {"_target_": "timm.create_model", "model_name": name} for name in names}
for name, network in networks.items():
    torch.manual_seed(int(seed))
    known = {"num_classes": 10, "image_size": 32, "pretrained": False}
    net = call_target(network | {key: known[key] for key in network.keys() & known.keys()})
    net.names, net.mine, net.device = {"a", "b", "c"}, [net], torch.device(device)
    made = PixelClassifier(net, [0] * 3, [1] * 3)
    print(name, made.state.text, made.digest, made.state.opaque)
"""
TIMM = (
    "test_vit test_maxvit convnext_atto resnet18 efficientnet_b0 mobilenetv3_small_050 levit_128s"
)
TIMM += " coat_tiny xcit_nano_12_p8_224 regnety_002 swin_tiny_patch4_window7_224"


@pytest.mark.slow
def test_every_network_by_name_has_a_key_that_devices_threads_and_processes_leave(tmp_path):
    def lines(*words):
        text = run_python("-c", KEYS, *words, *TIMM.split(), folder=tmp_path)
        return {its[0]: its[1:] for its in map(str.split, text.splitlines())}

    first, other = lines("0", "cpu"), lines("1", "cuda")
    assert len(first) > 25 and first.keys() == other.keys()
    for name, (state, *digest) in first.items():
        assert len(digest) == 1, (name, digest)  # nothing has no digest
        assert other[name][0] == state and other[name][1] != digest[0], name


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

def traced():
    example = torch.rand(1, 3, 32, 32)
    return torch.jit.trace(Net(), example, check_trace=False)

def hooked():
    net = Net()
    net.flat.register_forward_hook(lambda *its: None)
    return net
"""
MODEL = """# @package model.net
network: {{_target_: holding.{name}}}
mean: [0, 0, 0]
std: [1, 1, 1]
weights: included
"""


def own_model(workspace, name, seed=0):
    (workspace / "holding.py").write_text(NETWORK)
    (workspace / "conf/model/net.yaml").write_text(MODEL.format(name=name))
    weight = np.random.default_rng(seed).normal(size=(10, 48)).tolist()
    (workspace / "net.json").write_text(str(weight))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lasting"), [("Net", 1), ("traced", 0), ("hooked", 0)])
def test_rows_follow_weights_that_are_no_parameters(
    workspace, run_tiny, capsys, caplog, name, lasting
):
    shown, printed, computed = [], "", [0]
    for seed in (0, 3, 3):
        own_model(workspace, name, seed)
        words = ["-m", "attack=fgsm,bim", "targets=[net]", "rerun=false"]
        assert run_tiny(workspace, *words) == 0
        printed += (text := capsys.readouterr().out)
        shown += re.findall(r"clean images, .* net (\S+%)", text)[:1]
        computed.append(len([*workspace.glob("cache/rows-*/*/clean images/*.parquet")]))
    assert shown[0] != shown[1] == shown[2]
    assert np.diff(computed).tolist() == [2, 1, 1 - lasting]  # both jobs share them
    assert (printed + caplog.text).count("has no digest. Later") == 1 - lasting


@pytest.mark.slow
@pytest.mark.parametrize("words", [["hydra/launcher=processes"], ["trainer.devices=2", *DDP]])
def test_processes_of_a_command_share_the_key_of_a_network_without_digest(workspace, words):
    own_model(workspace, "hooked")
    jobs = "attack=fgsm" if "trainer.devices=2" in words else "-m attack=fgsm,bim"
    words = [*jobs.split(), "source=net", "targets=[net]", *words]
    run_python("-m", "src.main", *replaced(TINY_RUN, *words), folder=workspace)
    assert len([*workspace.glob("cache/rows-*/*/clean images/*.parquet")]) == 1


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
