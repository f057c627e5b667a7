"""The wheel and the editable installation: their one name, examples of documents, and imports."""

import json
import os
import re
import shutil
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

import pytest

from src.artifacts.record import job_record
from tests.conftest import REPOSITORY, replaced, run_python

pytestmark = pytest.mark.slow

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "conf")
BUILD = ("--quiet", "--no-index", "--no-build-isolation", "--no-deps")
CODE = """
from {0}.artifacts.record import git_commit
from {0}.cache.code_digest import code_of, program_digest
print(program_digest())
print(code_of({{"_target_": "src.models.small.vgg_small"}}))
print(code_of({{"_target_": "transferability.models.small.vgg_small"}}))
print(git_commit())
"""
BROKEN = 'raise SystemExit("the src of somebody else was imported")'
NOTEBOOK = f"""
import nbclient, nbformat
notebook = nbformat.read({str(REPOSITORY / "docs" / "notebook.ipynb")!r}, as_version=4)
nbclient.NotebookClient(notebook, timeout=600).execute()
outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
print(sum("image/png" in one.get("data", {{}}) for one in outputs), "pictures")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of what setuptools reads, as it builds in place."""
    versions = {one.name: one.version for one in distributions()}
    if "pip" not in versions or int(versions.get("setuptools", "0").partition(".")[0]) < 77:
        pytest.skip("pip and setuptools, 77 or later, build the wheel")
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
        else:
            shutil.copy(REPOSITORY / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    """The wheel, built from a copy."""
    build = tmp_path_factory.mktemp("build")
    run_python("-m", "pip", "wheel", *BUILD, f"--wheel-dir={build}", source, folder=build)
    return next(build.glob("*.whl"))


def installed(environment: Path, *words: str | Path) -> Callable[..., str]:
    """Install the program into a new environment; return a function that runs its commands.

    The dependencies are those of this environment, without its editable installation.
    """
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    install = ("--python", python, "install", *BUILD, "--force-reinstall", *words)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    run_python("-m", "pip", *install, folder=environment)
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


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory) -> Callable[..., str]:
    """A function that runs a command where only the wheel is installed, in a foreign repository."""
    environment = tmp_path_factory.mktemp("environment")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], [*author, "commit", "--quiet", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *words], cwd=environment, check=True)
    return installed(environment, wheel)


@pytest.fixture
def project(workspace) -> Path:
    """A folder with a package `src` of its own, which nobody may import."""
    (workspace / "src").mkdir()
    (workspace / "src" / "__init__.py").write_text(BROKEN)
    return workspace


def test_the_wheel_has_every_file_and_leaves_the_name_src_to_others(wheel):
    names = {Path(name) for name in ZipFile(wheel).namelist()}
    assert {name.parts[0].partition("-")[0] for name in names} == {"transferability"}
    for folder, place in (("src", "."), ("conf", "conf")):
        own = [path for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
        files = {path.relative_to(REPOSITORY / folder) for path in own if path.suffix != ".pyc"}
        assert not {Path("transferability", place, file) for file in files} - names
    assert wheel.stat().st_size < 15e6


def test_keys_of_code_are_the_same_under_both_names_and_the_commit_is_not_that_around(
    run, tmp_path
):
    printed = run("python", "-c", CODE.format("transferability"), folder=tmp_path).splitlines()
    own = run_python("-c", CODE.format("src"), folder=tmp_path).splitlines()
    assert own[:-1] == printed[:-1] and len({*printed}) == 3 and printed[-1] == "unknown"


def test_an_editable_installation_has_the_name_src_alone(source, tmp_path):
    run = installed(tmp_path / "environment", "--editable", source)
    code = "import src; print(src.__file__)"
    assert run("python", "-c", code, folder=tmp_path).startswith(str(source / "src"))
    assert "No module" in run("python", "-c", "import transferability", folder=tmp_path, code=1)
    told = run("transferability", "-m", "attack=mi,bim", "targets=[vgg16]", folder=tmp_path, code=2)
    assert told.endswith(" python -m src.main -m attack=mi,bim 'targets=[vgg16]'\n")
    told = run("transferability", "table", "out", folder=tmp_path, code=2)
    assert told.endswith(" python -m src.table out\n")


def test_the_example_of_the_readme_runs_in_a_clone_and_from_the_wheel(run, tmp_path):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    of_wheel = re.sub("^from src", "from transferability", code, flags=re.MULTILINE)
    printed = [run_python("-c", code, folder=tmp_path)]
    printed.append(run("python", "-c", of_wheel, folder=tmp_path))
    rows = [re.findall(r"^\|.*", text, re.MULTILINE) for text in printed]
    assert rows[0] == rows[1] and "| mi" in "".join(rows[0])


def test_the_notebook_runs_from_the_wheel(run, tmp_path):
    for name in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(name)
    assert "2 pictures" in run("python", "-c", NOTEBOOK, folder=tmp_path)


def test_command_lines_answer_in_an_empty_folder(run, tmp_path):
    helped = run("transferability", "--help", folder=tmp_path)
    assert "attack: admix, bfa, bim," in helped and "  transferability attack=bim" in helped
    assert "transferability table" in run("transferability", "table", "--help", folder=tmp_path)
    assert "Did you mean table?" in run("transferability", "tabel", folder=tmp_path, code=2)
    assert not list(tmp_path.iterdir())


def test_rows_computed_under_one_name_are_reused_under_the_other(run, project, tiny_run):
    words = [*replaced(tiny_run, "rerun=false"), "attack=fgsm", "targets=[coarse,vgg_small]"]
    run("transferability", *words, folder=project)
    (project / "src").rename(project / "another")
    run_python("-m", "src.main", *words, folder=project)
    jobs = sorted((project / "outputs").iterdir())
    why = run("transferability", "status", "why", *map(str, jobs), folder=project)
    assert "No part differs" in why and job_record(jobs[1]).seconds is None  # rows were stored


def test_another_src_is_not_imported(run, project, tiny_run):
    words = [*replaced(tiny_run, "report=default"), "attack=di,mi", "defences=[none,jpeg]"]
    run("transferability", "-m", *words, "hydra.sweep.dir=out", folder=project)
    assert "mi" in run("transferability", "table", "out", folder=project)
    run("transferability", "status", "out", folder=project)
    run("transferability", "report", "folder=out", folder=project)
    (job, *_) = sorted((project / "out").glob("0-*"))
    run("transferability", "card", str(job), "-o", "mine.card", folder=project)
    assert "mine.card" in run("transferability", "verify", "mine.card", folder=project, code=2)


START = """
import json, sys
import src

LIBRARIES = {
    "altair", "matplotlib", "mlflow", "pandas", "pytorch_lightning", "scipy.stats", "timm", "torch",
    "torch._dynamo", "torchmetrics", "torchvision",
}
JOB = "experiment=demo attack=fgsm source=resnet_small targets=[vgg_small] n_images=4 trainer=cpu"
JOB += " tracking=none report=none hydra.run.dir=sweep/job"

def note(step, *words):
    assert not words or main([*words]) == 0
    noted[step] = sorted(LIBRARIES & sys.modules.keys())

noted = {}
note("import src")
"""
NEW = """
from src.main import main
note("--help", "--help")
import src.table
note("src.table")
note("new job", *JOB.split())
"""
STORED = """
from src.card import main
note("card", "sweep", "--out", "one.card")
from src.report.__main__ import main
note("report", "one.card", "out=page")
from src.main import main
note("stored job", *JOB.split())
"""
TELL = "print(json.dumps(noted))"


def test_commands_import_what_they_use(tmp_path):
    """The libraries that compute with images take seconds to import."""

    def told(steps: str) -> dict[str, list[str]]:
        output = run_python("-c", START + steps + TELL, folder=tmp_path)
        assert "available" not in output  # Lightning's lines
        return json.loads(output.splitlines()[-1])

    new = told(NEW)
    assert new["import src"] == new["--help"] == [] and new["src.table"] == ["pandas"]
    assert not {"mlflow", "timm"} & {*new["new job"]}
    stored = told(STORED)
    assert stored["card"] == ["pandas"] and stored["report"] == ["altair", "pandas"]
    assert stored["stored job"] == ["altair", "pandas", "torch"]
