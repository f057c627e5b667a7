"""The search for a model's preprocessing."""

import re

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from src import load_classifier
from src.data import load_dataset


def write_model(workspace, name, first, **keys):
    """Write the model `coarse` with another first layer's input, as a model file in `conf`."""
    file = workspace / "conf" / "model" / "coarse.yaml"
    settings = yaml.safe_load(file.read_text())
    state = load_file(settings["weights"])
    state["2.weight"], state["2.bias"] = first(state["2.weight"], state["2.bias"])
    save_file(state, workspace / f"{name}.safetensors")
    settings |= {"weights": f"{name}.safetensors", **keys}
    (workspace / "conf" / "model" / f"{name}.yaml").write_text(
        f"# @package model.{name}\n{yaml.safe_dump(settings)}"
    )


CAFFE = {"mean": [0.48502, 0.457957, 0.407604], "std": [1 / 255] * 3}


def for_caffe(weight, bias):
    """Change a linear layer so that it takes BGR pixels as Caffe's models do."""
    channels = weight.unflatten(1, (3, -1))
    # `coarse` was fitted on (x - 0.5) / 0.25, and x = mean + std * input
    scale = torch.tensor(CAFFE["std"]) / 0.25
    shift = (torch.tensor(CAFFE["mean"]) - 0.5) / 0.25
    bias = bias + (channels * shift[:, None]).sum((1, 2))
    return (channels * scale[:, None]).flip(1).flatten(1).contiguous(), bias


def test_a_check_finds_the_lines_of_a_models_file(run_in, workspace, capsys):
    wrong = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    write_model(workspace, "other", for_caffe, **wrong)
    words = ("check", "other", "--config-dir", "conf", "dataset=cifar10_mini")
    assert run_in(workspace, *words, module="src.models.__main__") == 0
    table, _, lines = capsys.readouterr().out.partition("file:\n")
    rows = re.findall(r"(\w[^\n]*?)  +(RGB|BGR) +\S.*? (\d+) / 200", table)
    assert rows[0][:2] == ("Caffe", "BGR") and "of the model" in [row[0] for row in rows]
    lines = yaml.safe_load(lines)
    assert lines.pop("channels") == "BGR" and list(lines) == ["mean", "std"]
    assert all(lines[name] == pytest.approx(CAFFE[name], abs=1e-5) for name in lines)
    data = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"}).subset(200)[:]
    coarse = load_classifier("coarse", "dataset=cifar10_mini", config_dir=workspace / "conf")
    correct = (coarse(data.images / 255).argmax(1) == data.labels).sum()
    assert int(rows[0][2]) == correct
