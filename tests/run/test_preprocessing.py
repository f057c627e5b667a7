"""The search for a model's preprocessing."""

import re

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

CAFFE = {"mean": [0.48502, 0.457957, 0.407604], "std": [1 / 255] * 3}


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


def for_input(mean, std, bgr=False):
    """Return a function that changes a linear layer so that it takes other normalised pixels."""

    def change(weight, bias):
        channels = weight.unflatten(1, (3, -1))
        # `coarse` was fitted on (x - 0.5) / 0.25, and x = mean + std * input
        scale, shift = torch.tensor(std) / 0.25, (torch.tensor(mean) - 0.5) / 0.25
        bias = bias + (channels * shift[:, None]).sum((1, 2))
        channels = channels * scale[:, None]
        return (channels.flip(1) if bgr else channels).flatten(1).contiguous(), bias

    return change


def check(run_in, workspace, capsys, name):
    """Return the rows that the check prints, and the lines for the model's file."""
    words = ("check", name, "--config-dir", "conf", "dataset=cifar10_mini")
    assert run_in(workspace, *words, module="src.models.__main__") == 0
    text = capsys.readouterr().out
    assert "chosen on these 200 images" in text
    table, _, lines = text.partition("file:\n")
    return re.findall(r"(\w[^\n]*?)  +(RGB|BGR) +\S.*? (\d+) / 200", table), yaml.safe_load(lines)


@pytest.mark.parametrize("bgr", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_check_finds_the_lines_of_a_models_file(run_in, workspace, run_job, capsys, bgr):
    wrong = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    write_model(workspace, "other", for_input(**CAFFE, bgr=bgr), **wrong)
    rows, lines = check(run_in, workspace, capsys, "other")
    assert rows[0][:2] == ("Caffe", "BGR" if bgr else "RGB")
    assert "of the model" in [row[0] for row in rows]
    assert lines == {
        "mean": pytest.approx(CAFFE["mean"], abs=1e-5),
        "std": pytest.approx(CAFFE["std"], abs=1e-5),
        **({"channels": "BGR"} if bgr else {}),
    }
    write_model(workspace, "other", for_input(**CAFFE, bgr=bgr), **lines)
    words = ("attack=none", "source=null", "targets=[coarse,other]", "n_images=200")
    assert run_job(*words) == 0
    (file,) = workspace.glob("outputs/*/predictions.parquet")
    table = pd.read_parquet(file)
    correct = (table["label"] == table["predicted"]).groupby(table["target"]).sum()
    assert correct["coarse"] == correct["other"] == int(rows[0][2])


def test_a_miss_suggests_another_normalisation(workspace, run_job, capsys):
    write_model(
        workspace, "other", for_input(**CAFFE), mean=[0.0] * 3, std=[1.0] * 3, expected_accuracy=0.5
    )
    words = ("attack=none", "source=null", "targets=[other]", "n_images=200")
    words += ("clean_accuracy_check.action=stop",)
    assert run_job(*words) == 1
    assert "mean: [0.48502, 0.457957, 0.407604]" in "".join(capsys.readouterr())
    write_model(workspace, "other", lambda *both: both, expected_accuracy=0.9)  # rightly prepared
    assert run_job(*words) == 1
    text = "".join(capsys.readouterr())
    assert "expects 90.00%" in text and "mean: [" not in text
