"""Sources and data that cannot be attacked: one sentence, exit code 1, no traceback."""

import re

import numpy as np
import pytest
from PIL import Image

ODD = """
from torch import nn


class Odd(nn.Module):
    def __init__(self, oddity):
        super().__init__()
        self.oddity = oddity
        self.layers = nn.Sequential(nn.Conv2d(3, 2, 9, 8), nn.BatchNorm2d(2), nn.Flatten())
        self.linear = nn.Linear(18, 10)

    def train(self, mode=True):
        return super().train(mode or self.oddity == "mode")

    def forward(self, images):
        logits = self.linear(self.layers(images))
        if self.oddity == "detach":
            return logits.detach()
        return (logits, None) if self.oddity == "tuple" and len(images) > 2 else logits
"""
MODEL = """# @package model.odd
network: {_target_: odd.Odd, oddity: none}
mean: [0.5, 0.5, 0.5]
std: [0.25, 0.25, 0.25]
weights: included
"""


@pytest.fixture
def odd(workspace):
    """Words that add a model named `odd`."""
    (workspace / "odd.py").write_text(ODD)
    (workspace / "conf" / "model" / "odd.yaml").write_text(MODEL)
    return ["model=[coarse,odd]", "targets=[coarse]"]


@pytest.mark.parametrize(
    ("oddity", "message"),
    [
        ("detach", "model odd: .* no gradient"),
        ("tuple", "the network must return logits"),
        ("mode", "model odd: .* training mode"),
    ],
)
def test_an_odd_source_is_refused_in_a_sentence(command_line, odd, capfd, oddity, message):
    assert command_line(*odd, "source=odd", f"model.odd.network.oddity={oddity}") == 1
    out, err = capfd.readouterr()
    assert re.search(message, (out + err).replace("\n", " "))
    assert "Traceback" not in out + err


def test_a_target_needs_no_gradient(command_line, odd):
    assert command_line(*odd, "targets=[odd]", "model.odd.network.oddity=detach") == 0


def test_target_labels_among_one_class_are_refused_in_a_sentence(command_line, workspace, capfd):
    (workspace / "pictures" / "test" / "only").mkdir(parents=True)
    for number in range(3):
        image = Image.fromarray(np.full((32, 32, 3), 40 * number, np.uint8))
        image.save(workspace / "pictures" / "test" / "only" / f"{number}.png")
    data = ["dataset=image_folder", "dataset.root=pictures", "n_images=null", "targets=[coarse]"]
    model = ["model.coarse.network._args_.2.out_features=1", "model.coarse.weights=included"]
    rules = ["random", "next", "least_likely"]
    assert command_line("-m", *data, *model, f"attack.target_label={','.join(rules)}") == 1
    out, err = capfd.readouterr()
    for rule in rules:
        assert f"attack.target_label={rule} needs at least two classes" in out
    assert "Traceback" not in out + err
