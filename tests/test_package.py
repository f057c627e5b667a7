"""The wheel, installed without a checkout: it brings conf/ along and works in any folder."""

import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, run_python

pytestmark = pytest.mark.slow

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "conf")
BUILD = ("wheel", "--quiet", "--no-index", "--no-build-isolation", "--no-deps")
INSTALL = ("install", "--quiet", "--no-index", "--no-deps")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel installs, inside a git repository that is not the program's."""
    versions = {one.name: one.version for one in distributions()}
    if "pip" not in versions or int(versions.get("setuptools", "0").partition(".")[0]) < 77:
        pytest.skip("pip and setuptools, 77 or later, build the wheel")
    source, build = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("build")
    for name in SOURCES:  # a copy, as setuptools builds in place
        whole = REPOSITORY / name
        (shutil.copytree if whole.is_dir() else shutil.copy)(whole, source / name)
    run_python("-m", "pip", *BUILD, f"--wheel-dir={build}", source, folder=build)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], [*author, "commit", "--quiet", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=build, check=True)
    target = build / "installed"
    run_python("-m", "pip", *INSTALL, f"--target={target}", *build.glob("*.whl"), folder=build)
    return target


def test_every_config_is_installed(installed):
    for top in ("conf", "src"):
        own = REPOSITORY / top
        files = {path for path in own.rglob("*") if path.is_file() and path.suffix != ".pyc"}
        there = installed / "src" / "conf" if top == "conf" else installed / "src"
        assert not [path for path in files if not (there / path.relative_to(own)).is_file()]


def test_command_lines_answer_in_an_empty_folder(installed, tmp_path):
    helped = run_python("-m", "src.main", "--help", folder=tmp_path, path=installed)
    assert "attack: admix, bfa, bim," in helped
    words = ("experiment=demo", "attack=bim", "--cfg", "job")
    composed = run_python("-m", "src.main", *words, folder=tmp_path, path=installed)
    assert yaml.safe_load(composed)["attack"]["_target_"] == "src.attacks.bim"
    for module in ("src.report", "src.status", "src.table", "src.figure"):
        run_python("-m", module, "--help", folder=tmp_path, path=installed)
    assert not list(tmp_path.iterdir())


def test_the_demo_runs_in_an_empty_folder(installed, tmp_path):
    words = ("experiment=demo", "n_images=20", "tracking=none", "report=none")
    printed = run_python("-m", "src.main", *words, folder=tmp_path, path=installed)
    assert "fgsm on cifar10_mini, eps = 4/255" in printed
    (wheel,) = installed.parent.glob("*.whl")
    assert wheel.stat().st_size < 14e6


def test_a_job_and_its_report(installed, workspace, tiny_run):
    words = ("attack=fgsm", "report=default", "hydra.run.dir=outputs/out")
    printed = run_python("-m", "src.main", *tiny_run, *words, folder=workspace, path=installed)
    assert "fgsm on cifar10_mini" in printed
    page = workspace / "outputs" / "out" / "report.html"
    page.unlink()
    run_python("-m", "src.report", "folder=outputs/out", folder=workspace, path=installed)
    assert page.exists()
    assert "1 done" in run_python("-m", "src.status", folder=workspace, path=installed)
    assert not list(installed.rglob("outputs"))


def test_the_commit_is_not_that_of_the_repository_around(installed, tmp_path):
    words = "from src.artifacts.record import git_commit; print(git_commit())"
    assert run_python("-c", words, folder=tmp_path, path=installed).strip() == "unknown"
