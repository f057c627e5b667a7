"""The Python interface: attacks on any model, models of the catalogue, sweeps."""

import os
import random
import re
import shlex
import subprocess
import sys

import pandas as pd
import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from src import attacks, images_needed, load_classifier, load_sweep, rankings
from src.data import load_dataset
from src.utils.hydra_versions import VERSION_BASE
from tests.conftest import REPOSITORY

DEMO = REPOSITORY / "docs" / "results" / "demo"
DATA = ["dataset=cifar10_mini", "dataset.n_train=40", "n_images=23"]

EXPERIMENT = """
# @package _global_
source: fine
attack: {steps: 3}
diagnostics: {bisection: 2}
storage: uint8
"""  # what matters to an attack, and to no model


NO_HOME = """
import os, pwd

def getpwuid(number):
    raise KeyError(number)

pwd.getpwuid = getpwuid
"""
AT_HOME = """
import subprocess, sys
from pathlib import Path
import src
assert Path.home().is_dir() and not [*Path.home().iterdir()]
subprocess.run([sys.executable, "-c", "import src"], check=True)
"""


def test_a_user_without_a_home_folder_gets_one_and_is_told_once(tmp_path):
    """As in a container whose user number the system does not know."""
    (tmp_path / "sitecustomize.py").write_text(NO_HOME)
    path = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "PATH": os.environ["PATH"]}
    words = [sys.executable, "-c", AT_HOME]
    path["TMPDIR"] = str(tmp_path)
    run = subprocess.run(words, env=path, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "", run.stderr
    (line,) = run.stderr.splitlines()
    assert "HOME is now " in line and str(tmp_path) in line


def test_a_classifier_has_a_layer_for_attacks_on_features(workspace):
    words = [*DATA, "++model.coarse.feature_layer='0'"]
    coarse = load_classifier("coarse", *words, config_dir="conf")
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 4])
    made = attacks.fia(coarse, images, labels, 8 / 255, masks=2)
    assert torch.equal(made, attacks.fia(coarse, images, labels, 8 / 255, masks=2, layer="0"))
    assert not torch.equal(made, attacks.ilpd(coarse, images, labels, 8 / 255, steps=10))
    assert not any(module._forward_hooks for module in coarse.modules())


@pytest.mark.slow
def test_a_classifier_is_the_one_of_the_command_line(tracked_sweep, workspace):
    before = torch.random.get_rng_state(), random.getstate()
    (workspace / "conf" / "experiment").mkdir()
    (workspace / "conf" / "experiment" / "own.yaml").write_text(EXPERIMENT)
    with initialize_config_dir(str(workspace / "conf"), **VERSION_BASE):
        coarse = load_classifier("coarse", "experiment=own", *DATA, config_dir="conf")
        assert GlobalHydra.instance().is_initialized()
    assert torch.equal(torch.random.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert not coarse.training and not any(one.requires_grad for one in coarse.parameters())
    rows = load_sweep(tracked_sweep / "out").predictions
    rows = rows.query("attack == 'fgsm' and source == target == 'coarse' and eps_255 == 0")
    images = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"})
    with torch.no_grad():
        logits = coarse(images[rows["index"].tolist()].images / 255)
    confidence, predicted = logits.softmax(1).max(1)
    assert predicted.tolist() == rows["predicted"].tolist() and len(rows) == 150
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


@pytest.mark.parametrize("of", ["attack", pytest.param("source", marks=pytest.mark.slow)])
def test_results_have_the_rankings_of_their_folder(of):
    ranked = rankings(DEMO, of=of)
    pd.testing.assert_frame_equal(rankings(load_sweep(DEMO), of=of), ranked)
    assert ranked["eps_255"].iloc[0] == 4 and ranked["eps_255"].nunique() > 1
    groups = ranked.groupby(["eps_255", "attack" if of == "source" else "source"])
    assert groups["rank"].min().eq(1).all()


@pytest.mark.slow
def test_images_are_counted_from_the_discordance_seen():
    first = rankings(DEMO).query("eps_255 == 4 and source == 'mean of 3 sources'")
    discordance = first["discordance"].median()
    assert images_needed(0.01, frame=DEMO) == images_needed(0.01, discordance, len(first))
    with pytest.raises(ValueError, match="attacks=None"):
        images_needed(0.01, discordance=0.2)
    with pytest.raises(ValueError, match=r"^difference .* frame=results.$"):
        images_needed(load_sweep(DEMO), discordance=0.2, attacks=3)
