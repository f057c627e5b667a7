"""The Python interface: attacks on any model, models of the catalogue, sweeps."""

import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from src import attacks, load_classifier, load_sweep, rates
from src.data import load_dataset
from src.utils.hydra_versions import VERSION_BASE
from tests.conftest import REPOSITORY

DATA = ["dataset=cifar10_mini", "dataset.n_train=40", "n_images=23"]

EXPERIMENT = """
# @package _global_
source: fine
attack: {steps: 3}
diagnostics: {bisection: 2}
storage: uint8
"""  # what matters to an attack, and to no model


@pytest.fixture(scope="module")
def sweep(new_workspace, run_tiny):
    """The folder of a finished sweep of two sources, with a control and an 8-bit variant."""
    folder = new_workspace()
    words = ["attack=fgsm", "source=coarse,fine", "controls=true", "variants=[uint8]"]
    words += ["targets=[fine]", "hydra.sweep.dir=outputs/out"]
    assert run_tiny(folder, "-m", *words) == 0
    return folder / "outputs" / "out"


def test_a_user_without_a_home_folder_gets_one_and_is_told_once(tmp_path):
    """As in a container whose user number the system does not know."""
    (tmp_path / "sitecustomize.py").write_text("""
import os, pwd

def getpwuid(number):
    raise KeyError(number)

pwd.getpwuid = getpwuid
""")
    code = """
import subprocess, sys
from pathlib import Path
import src
assert Path.home().is_dir() and not [*Path.home().iterdir()]
subprocess.run([sys.executable, "-c", "import src"], check=True)
"""
    path = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "PATH": os.environ["PATH"]}
    words = [sys.executable, "-c", code]
    run = subprocess.run(
        words, env=path | {"TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert run.returncode == 0 and run.stdout == "", run.stderr
    (line,) = run.stderr.splitlines()
    assert line.startswith("There is no home folder; HOME is now ") and str(tmp_path) in line


def test_a_classifier_has_a_layer_for_attacks_on_features(workspace):
    words = [*DATA, "++model.coarse.feature_layer='0'"]
    coarse = load_classifier("coarse", *words, config_dir="conf")
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 4])
    made = attacks.fia(coarse, images, labels, 8 / 255, masks=2)
    assert torch.equal(made, attacks.fia(coarse, images, labels, 8 / 255, masks=2, layer="0"))
    assert not torch.equal(made, attacks.ilpd(coarse, images, labels, 8 / 255, steps=10))
    assert not any(module._forward_hooks for module in coarse.modules())


@pytest.mark.slow
def test_a_classifier_is_the_one_of_the_command_line(sweep):
    workspace = sweep.parents[1]
    before = torch.random.get_rng_state(), random.getstate()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workspace)
        Path("conf/experiment").mkdir(exist_ok=True)
        Path("conf/experiment/own.yaml").write_text(EXPERIMENT)
        with initialize_config_dir(str(workspace / "conf"), **VERSION_BASE):
            coarse = load_classifier("coarse", "experiment=own", *DATA, config_dir="conf")
            assert GlobalHydra.instance().is_initialized()
    assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert not coarse.training and not any(one.requires_grad for one in coarse.parameters())
    rows = load_sweep(sweep).predictions.query(
        "source == 'coarse' and target == 'coarse' and eps_255 == 0"
    )
    rows = rows[rows["variant"] == "float32"]
    images = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})
    chosen = images[rows["index"].tolist()].images / 255
    with torch.no_grad():
        confidence, predicted = coarse(chosen).softmax(1).max(1)
    assert predicted.tolist() == rows["predicted"].tolist()
    assert torch.allclose(confidence, torch.tensor(rows["confidence"].to_numpy()), atol=1e-5)


@pytest.mark.slow
def test_without_weights_the_refusal_is_the_command_that_trains_them(
    workspace, run_in, monkeypatch, capsys
):
    file = workspace / "conf" / "model" / "fine.yaml"
    file.write_text(re.sub("weights: .*", "weights: null", file.read_text()))
    words = [*DATA, "training.epochs=1", "tracking=none", "report=none"]
    with pytest.raises(ValueError, match=r"model\.fine\.weights=PATH") as refusal:
        load_classifier("fine", *words, config_dir="conf")
    _, _, command = str(refusal.value).partition("train it: python -m src.main ")
    assert run_in(workspace, *shlex.split(command)) == 0
    fine = load_classifier("fine", *words, config_dir="conf")
    (stored,) = (workspace / "cache" / "checkpoints").glob("fine-*.safetensors")
    given = load_classifier("fine", *words, f"model.fine.weights={stored}", config_dir="conf")
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(fine(images), given(images))


@pytest.mark.slow
def test_sweeps_are_one_frame_whose_rates_are_those_of_their_jobs(sweep, run_tiny):
    words = ["attack=none", "source=null", "hydra.run.dir=outputs/clean"]
    assert run_tiny(sweep.parents[1], *words) == 0
    both = load_sweep(sweep, str(sweep.parent / "clean"))
    of_clean = both["attack"].str.startswith("clean images")
    clean, frame = both[of_clean], both[~of_clean]
    assert len(clean) == 2 * 23 and set(clean["eps_255"]) == {0} and set(clean["source"]) == {""}
    assert len(frame) == len(load_sweep(sweep).predictions)
    assert set(frame["variant"]) == {"float32", "uint8", "noise", "shuffled"}
    assert set(frame["source"]) == {"coarse", "fine"} and set(frame["attack"]) == {"fgsm"}
    assert frame["target_label"].isna().all() and set(frame["norm"]) == {"linf"}
    keys = ["variant", "source", "protocol"]
    for job in sweep.glob("*/rates.csv"):
        for (variant, source, protocol), stated in pd.read_csv(job).groupby(keys):
            mine = frame[(frame["variant"] == variant) & (frame["source"] == source)]
            found = rates(mine, source, ["fine"], protocol)
            stated = stated[found.columns].reset_index(drop=True)
            pd.testing.assert_frame_equal(found, stated, check_dtype=False)
