"""Settings that only some attacks of a sweep have, and networks that return more than logits."""

from pathlib import Path

import pandas as pd
import pytest

from src.artifacts.record import job_record

SHORT = ["dataset.n_train=100", "dataset.n_test=100", "training.epochs=2", "training.batch_size=50"]


@pytest.mark.slow
def test_a_sweeps_attacks_take_the_settings_that_they_have(run_job, workspace, capfd):
    assert run_job("attack=fgsm", "hydra.run.dir=alone") == 0
    capfd.readouterr()
    assert run_job("-m", "attack=fgsm,bim", "attack.steps=3", "hydra.sweep.dir=both") == 0
    assert "attack.steps does not apply to fgsm.\n" in capfd.readouterr().err
    alone, fgsm, bim = map(
        job_record, map(Path, ("alone", "both/0-fgsm-coarse", "both/1-bim-coarse"))
    )
    assert (fgsm.label, bim.label) == ("fgsm", "bim (steps=3)")
    assert (fgsm.crafting, fgsm.config["attack"]) == (alone.crafting, alone.config["attack"])


OUTPUTS = """
from types import SimpleNamespace
from torch import nn

class Network(nn.Sequential):
    def __init__(self, kind):
        super().__init__(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(512, 10))
        self.kind = kind

    def forward(self, images):
        return self.kind(logits=super().forward(images))

def as_object():
    return Network(SimpleNamespace)

def as_dict():
    return Network(dict)
"""


@pytest.mark.slow
def test_networks_may_return_their_logits_in_an_object(run_job, workspace):
    (workspace / "outputs_code.py").write_text(OUTPUTS)
    for name in ("as_object", "as_dict"):
        text = f"# @package model.{name}\nnetwork: {{_target_: outputs_code.{name}}}\n"
        text += "mean: [0.5, 0.5, 0.5]\nstd: [0.5, 0.5, 0.5]\nweights: null\nfeature_layer: '0'\n"
        (workspace / "conf" / "model" / f"{name}.yaml").write_text(text)
    words = ["targets=[as_object,as_dict]", *SHORT]
    assert (
        run_job("attack=fia", "source=as_object", "attack.masks=2", "hydra.run.dir=out", *words)
        == 0
    )
    counts = pd.read_parquet("out/predictions.parquet").groupby("target", observed=True).size()
    assert counts.to_dict() == {"as_object": 3 * 23, "as_dict": 3 * 23}
