"""The wheel, installed without a clone: it works in any folder, beside any package `src`."""

import os
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from src.artifacts.record import job_record
from tests.conftest import REPOSITORY, replaced, run_python

slow = pytest.mark.slow

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "conf")
BUILD = ("wheel", "--quiet", "--no-index", "--no-build-isolation", "--no-deps")
NET = """
from torch import nn
from .layers import Pool

class Net(nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(Pool(), nn.Flatten(), nn.Linear(48, num_classes))
"""
LAYERS = """
from torch import nn

class Pool(nn.AvgPool2d):
    def __init__(self):
        super().__init__(8)
"""
NET_FILE = """# @package model.mine
network: {_target_: src.models.net.Net}
mean: [0.5, 0.5, 0.5]
std: [0.25, 0.25, 0.25]
"""
MIRROR = """
from dataclasses import dataclass
from transferability.attacks import Philox
from transferability.utils.files import sha256_of

@dataclass(frozen=True)
class Mirror:
    copies: int = 2

    def __call__(self, images, random, copy):
        return images.flip(-1) if copy else images
"""
ATTACK = """
defaults: [mi, _self_]
steps: 2
transforms:
  - {_target_: myattacks.Mirror}
  - {_target_: transferability.attacks.DiverseInput, nearest: false, probability: 0.5, resize_rate: 1.1}
"""  # noqa: E501
CODE = """
from {0}.cache.code_digest import code_of, program_digest
print(program_digest(), code_of({{"_target_": "myattacks.Mirror"}}))
print(code_of({{"_target_": "{0}.models.small.vgg_small"}}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy, as setuptools builds in place."""
    versions = {one.name: one.version for one in distributions()}
    if "pip" not in versions or int(versions.get("setuptools", "0").partition(".")[0]) < 77:
        pytest.skip("pip and setuptools, 77 or later, build the wheel")
    source, build = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("build")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
        else:
            shutil.copy(REPOSITORY / name, source / name)
    run_python("-m", "pip", *BUILD, f"--wheel-dir={build}", source, folder=build)
    return next(build.glob("*.whl"))


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory) -> Callable[..., str]:
    """A function that runs a command of an environment in which only the wheel is installed.

    The dependencies are those of this environment, without its editable installation. A git
    repository that is not the program's is around it.
    """
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], [*author, "commit", "--quiet", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=environment, check=True)
    python = environment / "bin" / "python"
    install = (
        "--python",
        python,
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--force-reinstall",
        wheel,
    )
    run_python("-m", "pip", *install, folder=environment)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(command: str, *words: str, folder: Path, code: int = 0) -> str:
        done = subprocess.run(
            [environment / "bin" / command, *words],
            cwd=folder,
            env=variables | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def project(workspace) -> Path:
    """A folder with a package `src` of its own, and config files that name it."""
    (workspace / "src" / "models").mkdir(parents=True)
    for name, text in {"__init__": "", "models/__init__": "", "models/net": NET}.items():
        (workspace / "src" / f"{name}.py").write_text(text)
    (workspace / "src" / "models" / "layers.py").write_text(LAYERS)
    (workspace / "conf" / "model" / "mine.yaml").write_text(NET_FILE)
    (workspace / "conf" / "attack" / "mirror.yaml").write_text(ATTACK)
    (workspace / "myattacks.py").write_text(MIRROR)
    return workspace


@pytest.mark.slow
def test_the_wheel_has_every_file_and_leaves_the_name_src_to_others(wheel):
    names = {Path(name) for name in ZipFile(wheel).namelist()}
    assert {name.parts[0].partition("-")[0] for name in names} == {"transferability"}
    for folder, place in (("src", "."), ("conf", "conf")):
        own = [path for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
        files = {path.relative_to(REPOSITORY / folder) for path in own if path.suffix != ".pyc"}
        assert not {Path("transferability", place, file) for file in files} - names
    assert wheel.stat().st_size < 14e6


@slow
def test_keys_of_code_are_the_same_under_both_names(run, project):
    installed = run("python", "-c", CODE.format("transferability"), folder=project)
    (project / "src").rename(project / "another")  # it would hide the clone's
    assert run_python("-c", CODE.format("src"), folder=project) == installed


@slow
def test_command_lines_answer_in_an_empty_folder(run, tmp_path):
    helped = run("transferability", "--help", folder=tmp_path)
    assert "attack: admix, bfa, bim," in helped
    assert "  transferability attack=bim" in helped
    for name in ("report", "status", "table", "figure"):
        assert f"transferability {name}" in run("transferability", name, "--help", folder=tmp_path)
    assert "Did you mean table?" in run("transferability", "tabel", folder=tmp_path, code=2)
    assert not list(tmp_path.iterdir())


@slow
def test_beside_another_src_python_attacks_its_modules(run, project):
    code = """
import torch, transferability
from src.models.net import Net
images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
net = Net()
labels = net(images / 255).argmax(1)
frame = transferability.transfer({"net": net}, {"net": net}, images, labels, eps=8 / 255)
print(len(frame), transferability.transfer.__module__)
"""
    assert "8 transferability.api.transfer" in run("python", "-c", code, folder=project)


@slow
def test_beside_another_src_its_model_is_trained_attacked_resumed_and_swept(run, project, tiny_run):
    words = ["source=mine", "targets=[mine,coarse]", "rerun=false", "experiment=demo"]
    words = [*replaced(tiny_run, *words), "training.epochs=1"]
    assert "Training mine" in run("transferability", *words, folder=project)
    assert "Already stored: all rows" in run("transferability", *words, folder=project)
    sweep = ["-m", *words, "attack=fgsm,mirror", "hydra/launcher=processes"]
    printed = run("transferability", *sweep, "hydra.launcher.n_jobs=2", folder=project)
    assert "Still correct: mirror" in printed
    assert ": 2 done." in run("transferability", "status", folder=project)
    (project / "src" / "models" / "layers.py").write_text(f"{LAYERS}# changed")
    assert "Already stored: all" not in run("transferability", *words, folder=project)


@slow
def test_rows_computed_under_one_name_are_reused_under_the_other(run, project, tiny_run):
    words = [*replaced(tiny_run, "rerun=false"), "attack=mirror", "targets=[coarse,vgg_small]"]
    run("transferability", *words, folder=project)
    (project / "src").rename(project / "another")
    run_python("-m", "src.main", *words, folder=project)
    jobs = sorted((project / "outputs").iterdir())
    why = run("transferability", "status", "why", *map(str, jobs), folder=project)
    assert "No part differs" in why and job_record(jobs[1]).seconds is None  # rows were stored


@slow
def test_a_target_under_src_is_the_programs_if_it_has_one(run, project, tiny_run):
    data = "dataset._target_=src.data.cifar10_mini.cifar10_mini"
    both = (data, "attack=bim", "attack._target_=transferability.attacks.bim")
    assert "bim on cifar10_mini" in run("transferability", *tiny_run, *both, folder=project)
    missing = ("attack._target_=src.models.net.Missing",)
    refused = run("transferability", *tiny_run, *missing, folder=project, code=2)
    assert "src.models.net.Missing" in refused


BROKEN = 'raise SystemExit("the src of somebody else was imported")'
LOAD = """
import sys, yaml
from transferability.config.resolvers import CONF
from transferability.data import load_dataset
for file in (CONF / "dataset").glob("[!_]*.yaml"):
    try:
        load_dataset("test", {"_target_": yaml.safe_load(file.read_text())["_target_"]})
    except ValueError as error:
        print(error)
print("imported:", "src" in sys.modules)
"""


@slow
def test_another_src_is_not_imported_unless_its_name_is_typed(run, workspace, tiny_run):
    (workspace / "src").mkdir()
    (workspace / "src" / "__init__.py").write_text(BROKEN)
    words = [*replaced(tiny_run, "report=default"), "attack=di,mi", "defences=[none,jpeg]"]
    run("transferability", "-m", *words, "hydra.sweep.dir=out", folder=workspace)
    assert "mi" in run("transferability", "table", "out", folder=workspace)
    run("transferability", "status", "out", folder=workspace)
    run("transferability", "report", "folder=out", folder=workspace)
    (job, *_) = sorted((workspace / "out").glob("0-*"))
    run("transferability", "card", str(job), "-o", "mine.card", folder=workspace)
    assert "mine.card" in run("transferability", "verify", "mine.card", folder=workspace, code=2)
    run("transferability", "models", "check", "coarse", *words[:-2], folder=workspace)
    assert run("python", "-c", LOAD, folder=workspace).endswith("imported: False\n")
    typed = ("attack._target_=src.attacks.nowhere",)
    assert "somebody else" in run("transferability", *tiny_run, *typed, folder=workspace, code=2)


@slow
def test_a_job_and_its_report(run, workspace, tiny_run):
    words = ("attack=fgsm", "report=default", "hydra.run.dir=outputs/out", "--cfg", "job")
    composed = run("transferability", *tiny_run, *words, folder=workspace)
    assert yaml.safe_load(composed)["attack"]["_target_"] == "src.attacks.fgsm"
    assert "fgsm on" in run("transferability", *tiny_run, *words[:-2], folder=workspace)
    page = workspace / "outputs" / "out" / "report.html"
    assert "transferability --config-dir" in page.read_text()
    page.unlink()
    run("transferability", "report", "folder=outputs/out", folder=workspace)
    assert page.exists()


@slow
def test_the_commit_is_not_that_of_the_repository_around(run, tmp_path):
    words = "from transferability.artifacts.record import git_commit; print(git_commit())"
    assert run("python", "-c", words, folder=tmp_path).strip() == "unknown"
