"""The Python interface: attacks on any model, models of the catalogue, sweeps."""

import os
import random
import re
import subprocess
import sys

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from src import load_classifier, load_sweep
from src.data import load_dataset
from src.utils.hydra_versions import VERSION_BASE
from tests.conftest import REPOSITORY, TINY_RUN

DEMO = REPOSITORY / "docs" / "results" / "demo"
DATA = ["dataset=cifar10_mini", "dataset.n_train=40", "n_images=23"]

NO_HOME = "import pwd\npwd.getpwuid = {}.__getitem__  # no number is there\n"
AT_HOME = "from pathlib import Path\nimport src\nassert not [*Path.home().iterdir()]"


def test_a_user_without_a_home_folder_gets_one_and_is_told_once(tmp_path):
    """As in a container whose user number the system does not know."""
    (tmp_path / "sitecustomize.py").write_text(NO_HOME)
    path = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "PATH": os.environ["PATH"]}
    path["TMPDIR"] = str(tmp_path)
    words = [sys.executable, "-c", AT_HOME]
    run = subprocess.run(words, env=path, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == "", run.stderr
    (line,) = run.stderr.splitlines()
    assert "HOME is now " in line and str(tmp_path) in line


def test_no_library_gives_advice_on_a_login_node_of_slurm(workspace):
    """Warnings are errors there; a job trains a network, and attacks it."""
    (workspace / "srun").touch(0o755)
    path = {"PATH": f"{workspace}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    words = [sys.executable, "-W", "error::UserWarning", "-m", "src.main", *TINY_RUN]
    words += ["model.fine.weights=null", "training.epochs=1", "dataset.n_train=40"]
    run = subprocess.run(words, env=os.environ | path, capture_output=True, text=True)
    assert run.returncode == 0 and run.stderr == "" and "Trained fine" in run.stdout, run
    assert not re.search("srun|litlogger|litmodels", run.stdout)


@pytest.mark.slow
def test_a_classifier_is_the_one_of_the_command_line(tracked_sweep, workspace):
    before = torch.random.get_rng_state(), random.getstate()
    with initialize_config_dir(str(workspace / "conf"), **VERSION_BASE):
        coarse = load_classifier("coarse", *DATA, config_dir="conf")
        with pytest.raises(ValueError, match=r"train it: python -m src\.main .*vgg16"):
            load_classifier("vgg16", *DATA)
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
