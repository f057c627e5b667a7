"""Commands that are refused, and what a refusal leaves as it was."""

import os
import re
import subprocess
import sys
from contextlib import suppress

import pandas as pd
import pytest
import yaml
from PIL import Image

from src.data.cifar10_mini import CLASSES
from tests.conftest import REPOSITORY, own_attack

SURROGATE = "a\udcffb"  # as Python reads a name that is not UTF-8
FRESH = ["model.coarse.weights=null", "dataset.n_train=100"]


def test_files_of_the_users_are_kept_and_in_a_jobs_own_folder_refused(
    command_line, workspace, capfd
):
    (workspace / "mine").mkdir()
    (workspace / "mine" / "config.yaml").write_text("mine")
    assert command_line("hydra.run.dir=mine") == 2
    assert "config.yaml would be replaced" in capfd.readouterr().err
    assert os.listdir(workspace / "mine") == ["config.yaml"]
    assert command_line("-m", "attack=fgsm", "hydra.sweep.dir=mine") == 0
    assert (workspace / "mine" / "config.yaml").read_text() == "mine"


def test_data_that_cannot_be_had_is_asked_for_once_and_class_folders_lead_to_their_data_set(
    command_line, workspace, capfd, monkeypatch
):
    tried = []

    def unreachable(*arguments, **keywords):
        tried.append(arguments)
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.__init__", unreachable)
    assert command_line("-m", "dataset=cifar10", "attack=fgsm,bim") == 2
    out, err = capfd.readouterr()
    assert err.count("no route to host") == len(tried) == 1 and not out
    for way in ("dataset.root", "dataset=image_folder", "experiment=demo"):
        assert way in err
    for number, name in enumerate(CLASSES):
        (workspace / "own" / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), (25 * number, 0, 0)).save(f"own/test/{name}/0.png")
    words = ["dataset=cifar10", "dataset.root=own", "hydra.run.dir=out", "n_images=9"]
    assert command_line(*words) == 2 and "dataset=image_folder" in capfd.readouterr().err
    assert command_line("dataset=image_folder", *words[1:]) == 0
    assert len(pd.read_csv(workspace / "out" / "images.csv")) == 9


@pytest.mark.parametrize("attack", ["still", "bsr"])
def test_an_attack_that_fails_does_so_before_other_models_are_trained(
    run_job, workspace, capsys, attack
):
    code = "def still(model, images, labels, eps): return images[0]"
    own_attack(workspace, "still", "_target_: still_code.still", code)
    more = ["attack.blocks=33"] if attack == "bsr" else []  # of 32 pixels
    assert run_job(f"attack={attack}", "model.fine.weights=null", *FRESH[1:], *more) == 1
    printed = " ".join(capsys.readouterr().out.split())
    reasons = {"still": ", 3, 32, 32)", "bsr": "blocks=33"}
    assert f"attack={attack}" in printed and reasons[attack] in printed
    assert not (workspace / "cache" / "checkpoints").exists()


REFUSED = [
    (["-m", "source=coarse,nonet"], ("source", "'nonet'", "coarse, convnext,")),
    (["-m", "attack=fgsm,bim", "attack.stpes=5"], ("attack.stpes", "fgsm, bim", "steps")),
    (["-m", "attack=fgsm", "attack.steps=5"], ("attack.steps", "fgsm")),
    (["attack=fgsm", "attack.steps=5"], ("attack.steps", "attack=fgsm", "norm")),
    (["attack=bim", "attack.restarts=2"], ("attack.restarts=2 needs attack.random_start",)),
    (["attack=fgsm", "attack=bim"], ("attack",)),
    (["attack=fgsm,bim"], ("attack=fgsm,bim", " -m ")),
    (["source=coarse,fine"], ("source=coarse,fine", " -m ", "[A,B]")),
    (["attack=fgms"], ("attack/fgms", "mean fgsm?")),
    (["atack.norm=l2"], ("'atack.norm'", "mean attack?")),
    (["n_images=range(2,4)"], ("n_images=range(2,4)", " -m ")),
    (["defences=[jpeg,", "none]"], ("defences=[jpeg,", "no blanks")),
    (["-m", "attack=fgsm,bim", "trainer.devices=2"], ("trainer.devices", "trainer=default")),
    (["dataset=image_folder", "dataset.root=gone"], ("dataset.root=gone",)),
    (["tracking=mlflow", "tracking.uri=nonsense://x"], ("nonsense://x", "tracking=none")),
    (["dataset=_saved"], ("dataset=_saved", "arrays, cifar10")),
    (["-m", "dataset=_common,cifar10"], ("dataset=_common", "arrays, cifar10")),
    (["plan=false"], ("plan=false", "default, only")),
    (["-m", "epsilon=4,8"], ("epsilon=4,8", "default, fine", "'epsilon.grid=[8]'")),
    (["trainer=[cpu,gpu]"], ("trainer=[cpu,gpu]", "trainer.KEY=VALUE")),
    (["eps=8"], ("'eps'", "'epsilon.grid=[8]'")),
    (["attack.epsilon=16"], ("attack.epsilon", "'epsilon.grid=[8]'")),
    (["attack=fgsm", "--nope", "-m"], ("--nope",)),
    (["--config-name=mine"], ("--config-name", "--config-dir")),
    (["-m", "hydra.sweeper._target_=a.b"], ("sweeper",)),
    (["model=[fine]"], ("model=[fine]", "source or targets")),
    (["-m", "hydra.sweep.subdir=x"], ("hydra.sweep.subdir", "hydra:job.num")),
    (["hydra.run.dir="], ("hydra.run.dir",)),
    (["attack.name=foo"], ("attack.name=foo",)),
    (["-m", "attack=fgsm_l2,fgsm", "save_adversarial=true"], ("epsilon.grid", "0.5", "=false")),
    (["attack._target_=src.attacks.fgsm_l2", "~attack.norm"], ("attack.norm", "l2")),
    (["model.fine.mean=[0.5]"], ("model.fine.mean", "3")),
    (["trainer.devices=0"], ("trainer.devices", "0")),
    (["model.fine.network._target_=a.b"], ("model.fine.network", "a.b")),
    (["+model.fine.network.bogus=1"], ("model.fine", "bogus")),
    (["cache.dir=/proc/x"], ("/proc/x",)),
]


@pytest.mark.parametrize(("words", "parts"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_a_refusal_is_a_line_with_the_key_or_file_the_value_and_what_is_allowed(
    run_job, workspace, capfd, words, parts
):
    assert run_job(*words) == 2
    out, err = capfd.readouterr()
    assert [part for part in parts if part not in err] == []
    assert err.count("\n") == 1 and not out and len(err.split()) <= 60
    assert not (workspace / "outputs").exists()


def test_a_list_of_names_has_only_those_to_choose_and_comes_without_a_guess(run_job, capfd):
    assert run_job("source=nosuchnet") == run_job("source=") == 2
    for line in capfd.readouterr().err.splitlines():
        names = re.findall(r"\w+", line)
        assert "vgg_small" in names and not {"answers", "timm", "torchvision"} & {*names}
    assert run_job("source=vgg61") == run_job("attack=fgms") == 2
    for line in capfd.readouterr().err.splitlines():
        assert "Did you mean " in line and not {"convnext", "bim"} & {*re.findall(r"\w+", line)}


@pytest.mark.parametrize(("root", "named"), [("gone", True), (".", False)])
def test_missing_weights_lead_to_the_demo_and_a_missing_folder_is_named_with_them(
    run_job, capfd, root, named
):
    weights = ["++model.fine.url=https://example.org/x.pt", "model.fine.weights=x.pt"]
    assert run_job(*weights, "dataset=image_folder", f"dataset.root={root}") == 2
    line = capfd.readouterr().err
    assert {"x.pt.", "plan=only.", "experiment=demo."} <= {*line.split()}
    assert (f"dataset.root={root} " in line) == named and line.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["controls=true", "n_images=1"], 2, "controls=true needs at least 2 images"),
        (
            ["attack.target_label=data"],
            2,
            "attack.target_label=data, but the data set has no target labels",
        ),
        (["trainer.devices=-1"], 1, "trainer: "),
    ],
)
def test_a_job_that_its_data_or_device_forbid_says_so(run_job, capfd, words, code, named):
    assert run_job(*words) == code
    out, err = capfd.readouterr()
    assert named in (out + err).replace("\n", "") and "Traceback" not in out + err


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [[], ["-m", "attack=fgsm,bim"]])
@pytest.mark.parametrize(("side", "value"), [([], ""), (["model.fine.input_size=48"], "=48")])
def test_images_of_several_sizes_are_refused_before_the_first_job_with_a_size_to_set(
    run_job, workspace, capfd, sweep, side, value
):
    for number, name in enumerate(CLASSES):
        (workspace / "own" / "test" / name).mkdir(parents=True)
        Image.new("RGB", (80, 64), (25 * number, 0, 0)).save(f"own/test/{name}/0.png")
    words = ["dataset=image_folder", "dataset.root=own", "n_images=null", "source=coarse", *side]
    assert run_job(*words, *sweep) == 2
    out, err = capfd.readouterr()
    assert "64 x 80" in err and err.endswith(f"dataset.image_size{value}\n") and not out
    assert not (workspace / "outputs").exists()


def test_what_the_config_shows_is_refused_before_torch_is_imported(workspace, tiny_run):
    words = [*tiny_run, "model.fine.weights=gone.pt"]
    script = f"import sys\nfrom src.main import main\nstatus = main({words})\n"
    script += "print('torch' in sys.modules)\nsys.exit(status)\n"
    run = [sys.executable, "-c", script]
    told = subprocess.run(run, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (2, "False\n")
    assert "gone.pt is not a file" in told.stderr and told.stderr.count("\n") == 1


def test_cfg_of_a_sweep_prints_its_first_job(command_line, workspace, capfd):
    words = ["attack=bim,fgsm", "attack.steps=3,4", "source=fine,coarse", "--cfg", "job"]
    assert command_line("-m", *words) == 0
    printed = yaml.safe_load(capfd.readouterr().out)
    assert (printed["attack"]["steps"], printed["source"]) == (3, "fine")
    assert not (workspace / "outputs").exists()


def test_cfg_of_a_sweep_through_files_prints_its_first_job(command_line, workspace, capfd):
    assert command_line("-m", "attack=glob(fgsm*)", "--cfg", "job") == 0
    assert yaml.safe_load(capfd.readouterr().out)["attack"]["_target_"] == "src.attacks.fgsm"


def test_hydras_help_is_printed(command_line, workspace, capfd):
    assert command_line("--hydra-help", "attack=bim") == 0
    assert "--multirun" in capfd.readouterr().out


@pytest.mark.parametrize(
    "word",
    [
        *("attack=glob(zz*)", "source=glob(*)", "seed=range(3,0)", "seed=range(0,3,0)"),
        *("seed=interval(0,3)", "seed=range(0,1e12)"),
    ],
)
@pytest.mark.parametrize("flags", [("-m",), ("-m", "--cfg", "job")])
def test_a_sweep_without_a_value_or_with_too_many_is_refused(
    command_line, workspace, capfd, word, flags
):
    assert command_line(*flags, word) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{word}: ")
    assert not (workspace / "outputs").exists()


@pytest.mark.parametrize("key", ["seed", "source", "targets", "attack", "cache", "epsilon.grid"])
def test_a_deleted_key_that_the_program_needs_is_named(command_line, workspace, capfd, key):
    assert command_line(f"~{key}") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{key}")


def test_a_deleted_reference_budget_is_the_default(command_line, workspace, capfd):
    assert command_line("experiment=demo", "~epsilon.reference", "plan=only") == 0


@pytest.mark.parametrize(
    ("word", "named"),
    [("attack=FGSM", "fgsm?"), ("attack=mi/x", "attack has "), ("epsilon=x/y", "epsilon has ")],
)
def test_an_unknown_option_is_refused_with_those_of_its_group(
    command_line, workspace, capfd, word, named
):
    assert command_line(word) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert named in line


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_folder_whose_name_is_not_utf_8_is_refused(command_line, workspace, capfd, quote):
    assert command_line(f"hydra.run.dir={quote}{SURROGATE}{quote}") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("hydra.run.dir=") and "UTF-8. Rename" in line
    assert not list(workspace.glob("a*"))


@pytest.mark.parametrize("key", ["precision", "attack_precision"])
def test_tf32_is_refused_where_the_device_has_none(run_job, workspace, capfd, key):
    words = ["-m", "attack=fgsm,bim", "trainer=cpu", f"trainer.{key}=tf32", "hydra.sweep.dir=out"]
    assert run_job(*words) == 2
    error = capfd.readouterr().err
    assert f"trainer.{key}=tf32: this device (cpu) has no TF32" in error
    assert not (workspace / "out").exists() and not [*workspace.glob("cache/*")]


def test_a_refusal_runs_no_job_if_nobody_reads_it(run_job, workspace, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with (
        monkeypatch.context() as patch,
        suppress(BrokenPipeError),
        os.fdopen(write, "w", 1) as pipe,
    ):
        patch.setattr(sys, "stderr", pipe)
        code = run_job("-m", "trainer.precision=tf32", "trainer=cpu", "hydra.sweep.dir=out")
    assert code == 2 and not (workspace / "out").exists()
