"""Networks that flatten their feature maps by `view` run as they do in plain torch."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from src.api.transfer import transfer
from src.data import load_dataset, to_unit

CODE = """
import torch
from torch import nn


class Maps(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.last = nn.Conv2d(3, 6, 5, stride=3), nn.Linear(600, num_classes)

    def forward(self, x):
        return self.last(self.first(x).relu().view(len(x), -1))


class Pixels(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        torch.manual_seed(1)
        self.last = nn.Linear(3072, num_classes)

    def forward(self, x):
        return self.last(x.view(-1, 3072))
"""
MINI = {"_target_": "src.data.cifar10_mini.cifar10_mini"}


@pytest.fixture
def flattening(workspace: Path) -> dict[str, nn.Module]:
    """The two networks in plain torch; the workspace has a model file for each."""
    (workspace / "flattening.py").write_text(CODE)
    for name in ("Maps", "Pixels"):
        (workspace / "conf" / "model" / f"{name}.yaml").write_text(
            f"# @package model.{name}\nnetwork: {{_target_: flattening.{name}, num_classes: 10}}\n"
            "mean: [0, 0, 0]\nstd: [1, 1, 1]\nweights: included\n"
        )
    names: dict[str, type[nn.Module]] = {}
    exec(CODE, names)
    return {name: names[name](10).eval() for name in ("Maps", "Pixels")}


@pytest.mark.slow
def test_the_command_line_runs_them_as_plain_torch_does(flattening, run_job):
    words = ["source=Maps", "targets=[Maps,Pixels]", "attack=di", "epsilon.grid=[8]"]
    assert run_job(*words, "hydra.run.dir=job") == 0
    rows = pd.read_parquet("job/predictions.parquet")
    clean = rows[rows["eps_255"] == 0]
    images = load_dataset("test", MINI)
    for name, network in flattening.items():
        its = clean[clean["target"] == name]
        with torch.no_grad():
            expected = network(to_unit(images[its["index"].tolist()].images)).argmax(1)
        assert its["predicted"].tolist() == expected.tolist()
    assert len(rows[(rows["eps_255"] == 8) & (rows["target"] == "Pixels")])


@pytest.mark.slow
def test_they_can_be_trained(flattening, run_job):
    words = ["source=Maps", "targets=[Maps]", "model.Maps.weights=null", "attack=fgsm"]
    recipe = ["training=quick", "training.epochs=1", "training.n_images=100"]
    assert run_job(*words, *recipe, "epsilon.grid=[8]") == 0


@pytest.mark.parametrize(
    "attack",
    ["fgsm", "bsr", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ssa", "sia"))],
)
def test_transfer_takes_them_with_any_layout_of_the_images(flattening, attack):
    batch = load_dataset("test", MINI)[:4]
    assert batch.images.is_contiguous()
    attacks = {attack: {} if attack == "fgsm" else {"steps": 2}}
    run = partial(transfer, flattening, flattening, attacks=attacks, progress_bar=False)
    frames = [
        run(images, batch.labels)
        for images in (batch.images, batch.images.to(memory_format=torch.channels_last))
    ]
    predictions = [frame["predicted"] for frame in frames]
    assert np.array_equal(*predictions)
