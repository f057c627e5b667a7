"""Sources and data that cannot be attacked: one sentence, exit code 1, no traceback."""

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
input_size: null
weights: included
expected_accuracy: null
"""
QUIET = ["tracking=none", "report=none"]


@pytest.fixture
def odd(workspace, monkeypatch):
    """Words that add a model named `odd`."""
    (workspace / "odd.py").write_text(ODD)
    (workspace / "conf" / "model" / "odd.yaml").write_text(MODEL)
    monkeypatch.syspath_prepend(workspace)
    return ["model=[coarse,odd]", "source=odd", "targets=[coarse]"]


@pytest.mark.parametrize(
    ("oddity", "message"),
    [
        ("detach", "model odd: it cannot be attacked, since its logits have no gradient"),
        ("tuple", "model odd: the network must return logits, floating-point numbers of shape"),
        ("mode", "model odd: the network, or a part of it, stays in training mode"),
    ],
)
def test_an_odd_source_is_refused_in_a_sentence(command_line, odd, capfd, oddity, message):
    assert command_line(*odd, f"model.odd.network.oddity={oddity}", *QUIET) == 1
    out, err = capfd.readouterr()
    assert message in (out + err).replace("\n", " ")
    assert "Traceback" not in out + err


def test_a_target_needs_no_gradient(command_line, odd):
    words = ["source=coarse", "targets=[odd]", "model.odd.network.oddity=detach"]
    assert command_line(odd[0], *words, *QUIET) == 0


@pytest.mark.parametrize("aim", ["random", "next", "least_likely"])
def test_an_aim_among_one_class_is_refused_in_a_sentence(command_line, workspace, capfd, aim):
    for split in ("train", "test"):
        folder = workspace / "pictures" / split / "only"
        folder.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(
                folder / f"{number}.png"
            )
    data = ["dataset=image_folder", "dataset.root=pictures", "n_images=null", "targets=[coarse]"]
    model = ["model.coarse.network._args_.2.out_features=1", "model.coarse.weights=included"]
    assert command_line(*data, *model, f"attack.target_label={aim}", *QUIET) == 1
    out, err = capfd.readouterr()
    assert f"attack.target_label={aim} needs at least two classes" in (out + err).replace("\n", " ")
    assert "Traceback" not in out + err
