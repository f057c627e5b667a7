"""The wheel and the editable installation: their one name, examples of documents, and imports."""

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
from tests.conftest import REPOSITORY, TINY_RUN, replaced, run_python

pytestmark = pytest.mark.slow

SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "src", "conf")
BUILD = ("--quiet", "--no-index", "--no-build-isolation", "--no-deps")
BROKEN = 'raise SystemExit("the src of somebody else was imported")'
NOTEBOOK = f"""
import nbclient, nbformat
notebook = nbformat.read({str(REPOSITORY / "docs" / "notebook.ipynb")!r}, as_version=4)
def shown():
    return [one.get("data", {{}}) for cell in notebook.cells for one in cell.get("outputs", ())]
def captions():
    htmls = [data.get("text/html", "") for data in shown()]
    return [html.partition(" Images: ")[0] for html in htmls if "caption" in html]
stored = captions()
nbclient.NotebookClient(notebook, timeout=600).execute()
print(sum("image/png" in data for data in shown()), "pictures", stored == captions())
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


def test_an_editable_installation_has_the_name_src_alone(source, tmp_path):
    run = installed(tmp_path / "environment", "--editable", source)
    code = "import src; print(src.__file__)"
    assert run("python", "-c", code, folder=tmp_path).startswith(str(source / "src"))
    assert "No module" in run("python", "-c", "import transferability", folder=tmp_path, code=1)
    told = run("transferability", "-m", "attack=mi,bim", "targets=[vgg16]", folder=tmp_path, code=2)
    assert told.endswith(" python -m src.main -m attack=mi,bim 'targets=[vgg16]'\n")


def test_a_git_address_installs_the_program_and_keeps_the_libraries(wheel, tmp_path):
    if not (REPOSITORY / ".git").exists():
        pytest.skip("this is no clone")
    environment = tmp_path / "environment"
    run = installed(environment, f"git+file://{REPOSITORY}")
    assert "  transferability attack=bim" in run("transferability", "--help", folder=tmp_path)
    words = ("install", "--dry-run", "--no-index", wheel)
    told = run_python("-m", "pip", "--python", environment / "bin/python", *words, folder=tmp_path)
    assert "satisfied: torch>=" in told and not re.search(r"Would install \S+ \S", told), told


def test_the_example_of_the_readme_runs_from_the_wheel(run, tmp_path):
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    code = re.sub("^from src", "from transferability", code, flags=re.MULTILINE)
    assert "| mi" in run("python", "-c", code, folder=tmp_path)


def test_the_notebook_runs_from_the_wheel(run, tmp_path):
    for name in ("nbformat", "nbclient", "ipykernel"):
        pytest.importorskip(name)
    assert "2 pictures True" in run("python", "-c", NOTEBOOK, folder=tmp_path)


def test_rows_computed_under_one_name_are_reused_under_the_other(run, project):
    words = [*replaced(TINY_RUN, "rerun=false"), "attack=fgsm", "targets=[coarse,vgg_small]"]
    run("transferability", *words, folder=project)
    (project / "src").rename(project / "another")
    run_python("-m", "src.main", *words, folder=project)
    jobs = sorted((project / "outputs").iterdir())
    same = run("transferability", "status", *map(str, jobs), folder=project)
    assert (
        "The same experiment." in same and job_record(jobs[1]).seconds is None
    )  # rows were stored
    assert job_record(jobs[0]).commit == "unknown"  # not that of the repository around


def test_another_src_is_not_imported(run, project):
    words = [*replaced(TINY_RUN, "report=default"), "attack=di,mi", "defences=[none,jpeg]"]
    assert "  transferability attack=bim" in run("transferability", "--help", folder=project)
    run("transferability", "-m", *words, "hydra.sweep.dir=out", folder=project)
    assert "mi" in run("transferability", "table", "out", folder=project)
    run("transferability", "status", "out", folder=project)
    run("transferability", "report", "folder=out", folder=project)
    (job, *_) = sorted((project / "out").glob("0-*"))
    run("transferability", "card", str(job), "-o", "mine.card", folder=project)
    assert "transferability attack=di" in run(
        "transferability", "card", "mine.card", "--commands", folder=project
    )
