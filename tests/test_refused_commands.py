"""Commands that are refused, and what a refusal leaves as it was."""

import os
import subprocess
import sys

import pandas as pd
from PIL import Image

from src.data.cifar10_mini import CLASSES
from tests.conftest import REPOSITORY, TINY_RUN, own_attack


def test_files_of_the_users_are_kept_and_in_a_jobs_own_folder_refused(run_job, workspace, capfd):
    (workspace / "mine").mkdir()
    (workspace / "mine" / "config.yaml").write_text("mine")
    assert run_job("hydra.run.dir=mine") == 2
    assert "config.yaml would be replaced" in capfd.readouterr().err
    assert os.listdir(workspace / "mine") == ["config.yaml"]
    assert run_job("-m", "attack=fgsm", "hydra.sweep.dir=mine") == 0
    assert (workspace / "mine" / "config.yaml").read_text() == "mine"


def test_data_that_cannot_be_had_is_asked_for_once_and_class_folders_lead_to_their_data_set(
    run_job, workspace, capfd, monkeypatch
):
    tried = []

    def unreachable(*arguments, **keywords):
        tried.append(arguments)
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.__init__", unreachable)
    assert run_job("-m", "dataset=cifar10", "attack=fgsm,bim") == 2
    out, err = capfd.readouterr()
    assert err.count("no route to host") == len(tried) == 1 and not out
    for way in ("dataset.root", "dataset=image_folder", "experiment=demo"):
        assert way in err
    for number, name in enumerate(CLASSES):
        (workspace / "own" / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (25 * number, 0, 0)).save(f"own/test/{name}/0.png")
    words = ["dataset=cifar10", "dataset.root=own", "hydra.run.dir=out", "n_images=9"]
    assert run_job(*words) == 2 and "dataset=image_folder" in capfd.readouterr().err
    assert run_job("dataset=image_folder", *words[1:]) == 0
    assert len(pd.read_csv(workspace / "out" / "images.csv")) == 9


def test_an_attack_that_fails_does_so_before_other_models_are_trained(run_job, workspace, capsys):
    code = "def still(model, images, labels, eps): return images[0]"
    own_attack(workspace, "still", "_target_: still_code.still", code)
    assert run_job("attack=still", "model.fine.weights=null", "dataset.n_train=100") == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "attack=still" in printed and ", 3, 32, 32)" in printed
    assert not (workspace / "cache" / "checkpoints").exists()


def test_what_the_config_shows_is_refused_before_torch_is_imported(workspace):
    words = [*TINY_RUN, "model.fine.weights=gone.pt"]
    script = f"import sys, src\nfrom src.main import main\nstatus = main({words})\n"
    script += "print('torch' in sys.modules)\nsys.exit(status)\n"
    run = [sys.executable, "-c", script]
    told = subprocess.run(run, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (2, "False\n")
    assert "gone.pt is not a file" in told.stderr and told.stderr.count("\n") == 1


def test_a_folder_whose_name_is_not_utf_8_is_refused(run_job, workspace, capfd):
    for name in ("a\udcffb", '"a\udcffb"'):  # as Python reads a name that is not UTF-8
        assert run_job(f"hydra.run.dir={name}") == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("hydra.run.dir=") and "UTF-8. Rename" in line
        assert not list(workspace.glob("a*"))
