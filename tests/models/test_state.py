"""State that is not in the tensors of a state dict: digests, keys of rows, calls from Python."""

from enum import Enum
from functools import partial
from types import MethodType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import fx, nn

from src.models import PixelClassifier
from src.models.state_digest import StateDigest

# torch's quantisation and TorchScript are deprecated, but people hold such networks.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{words}")
    for words in ("quantiz", "torch.jit", ".*weight_norm")
]


def filled(layer, value):
    return layer.requires_grad_(False).apply(lambda part: part.weight.fill_(value))


def network(value):
    net = filled(nn.Linear(3, 2, bias=False), 1)
    net.value = value
    return net


Mode = Enum("Mode", {"ONE": 1, "TWO": 2})


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


def quantised(value):
    net = nn.Sequential(filled(nn.Linear(3, 2, bias=False), 1))
    net[0].weight[:, 0] = value
    return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)


ATTRIBUTES = {
    "number": float,
    "enum": Mode,
    "tensor": lambda k: torch.full((2,), float(k)),
    "sparse tensor": lambda k: torch.full((2,), float(k)).to_sparse(),
    "array": partial(np.full, 2),
    "NumPy number": np.float32,
    "class": {1: nn.ReLU, 2: nn.GELU}.get,
    "function": {1: torch.relu, 2: nn.functional.silu}.get,
    "list in a dict": lambda k: {"a": [1, (2, k)]},
    "set": lambda k: {"a", k},
    "method": lambda k: Times(k).forward,
    "partial": lambda k: partial(nn.LayerNorm, eps=k),
    "module in a list": lambda k: [nn.Flatten(), filled(nn.Linear(2, 2, bias=False), k)],
}
STABLE = {name: lambda k, make=make: network(make(k)) for name, make in ATTRIBUTES.items()}
STABLE |= {
    "buffer that is not persistent": Normaliser,
    "graph": lambda k: fx.symbolic_trace(Times(k)),
    "quantised": quantised,
}


@pytest.mark.parametrize("kind", STABLE)
def test_every_kind_of_state_counts(kind):
    first, same, other = (StateDigest(STABLE[kind](k)) for k in (1, 1, 2))
    assert first.text == same.text and not first.opaque
    digests = [PixelClassifier(STABLE[kind](k), [0] * 3, [1] * 3).digest for k in (1, 2)]
    assert first.text != other.text or digests[0] != digests[1]


def hooked():
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda *its: None)
    return net


def bound():
    net = nn.Linear(2, 2)
    net.forward = MethodType(lambda self, images: -images, net)
    return net


OPAQUE = {
    "hook": hooked,
    "old weight norm": lambda: nn.utils.weight_norm(nn.Linear(2, 2)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
    "object": lambda: network(SimpleNamespace(scale=1)),
    "function without a name": lambda: network(lambda images: images),
    "bound method": bound,
    "unfinished module": lambda: nn.Linear.__new__(nn.Linear),
    "trace": lambda: torch.jit.trace(nn.Flatten(), torch.ones(1, 3)),
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_what_may_hold_anything_has_no_digest(kind):
    assert StateDigest(OPAQUE[kind]()).opaque
    assert not StateDigest(nn.LSTM(3, 2)).opaque


HOLDING = """
from pathlib import Path
import torch
from torch import nn
def hooked():
    random = torch.Generator().manual_seed(int(Path(__file__).with_name("seed").read_text()))
    weights = torch.randn(48, 10, generator=random)
    net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten())
    net[1].register_forward_hook(lambda module, inputs, output: output @ weights)
    return net
"""
MODEL = """# @package model.net
network: {_target_: holding.hooked}
mean: [0, 0, 0]
std: [1, 1, 1]
weights: included
"""


@pytest.mark.slow
def test_rows_of_a_network_without_digest_are_those_of_its_weights(workspace, run_tiny):
    shown, computed = [], [0]
    (workspace / "holding.py").write_text(HOLDING)
    (workspace / "conf/model/net.yaml").write_text(MODEL)
    for seed in (0, 3, 3):
        (workspace / "seed").write_text(str(seed))
        words = ["-m", "attack=fgsm,bim", "targets=[net]", "rerun=false"]
        assert run_tiny(workspace, *words) == 0
        files = workspace.glob("**/predictions.parquet")
        rows = pd.read_parquet(max(files, key=lambda file: file.stat().st_mtime))
        shown.append(rows[(rows["target"] == "net") & (rows["eps_255"] == 0)]["confidence"].sum())
        computed.append(len([*workspace.glob("cache/rows-*/*/clean images/*.parquet")]))
    assert shown[0] != shown[1] == shown[2]
    assert np.diff(computed).tolist() == [2, 1, 1]  # both jobs of a command share them
