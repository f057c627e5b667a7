"""Every command that the pages print is composed, and run on small sizes with their files."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")]
PAGES += sorted(REPOSITORY.glob("docs/**/*.md"))
STARTS = "make|python|transferability|pip|torchrun|srun|mlflow|ray|source"
STARTS += "|[A-Z_]+=[^ `]+|.venv/bin/pre-commit"
BLOCK = re.compile(rf"^    ((?:{STARTS}) (?!  ).*?)(?:  .*)?$", re.MULTILINE)
INLINE = re.compile(rf"`((?:{STARTS}) [^`\n]+)`")
FILES = re.compile(r"^```(yaml|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SIZES = "n_images=4 seed=0 epsilon.grid=[0,4,8] report=none tracking=none trainer=cpu"
SIZES += " clean_accuracy_check.action=warn training.epochs=1"
SIZES = os.environ.get("DOCUMENTED_SIZES", SIZES).split()
"""Words that make any command of `src.main` small."""
ELSEWHERE = re.compile(r"(hydra/launcher|hydra\.launcher\.\w+|trainer|trainer\.\w+|tracking\.\w+)=")
"""Words of other machines and stores; test_launchers.py and test_distributed.py are about these."""
LAUNCHERS = {"processes": "joblib", "slurm": "submitit", "cluster": "ray"}
"""Extras of Hydra's launchers."""
NOT_HERE = re.compile(
    "clip|timm/|efficientnet_lite|onnx|exported|experiment=(nips17|tabench)|transferattack"
)
"""Models of other packages, which test_clip.py and tests/models are about, and downloads."""
AT_HAND = re.compile("experiment=demo(?!.*(dataset=|mynet|attack=cda|attack.file|huggingface))")
"""Commands on data and weights of this repository; of the others the plan is printed."""


def commands() -> list[str]:
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    found = [one for text in texts for kind in (BLOCK, INLINE) for one in kind.findall(text)]
    return sorted({as_in_a_clone(" ".join(one.split())) for one in found})


def as_in_a_clone(command: str) -> str:
    """Return a command of the installed form as the same command of a clone."""
    match = re.match(r"transferability(?: ([a-z]+)(?= |$))?", command)
    return f"python -m src.{match[1] or 'main'}{command[match.end() :]}" if match else command


COMMANDS = commands()
MAIN = [one for one in COMMANDS if "-m src.main" in one]


def words_of(command: str) -> list[str]:
    """Return the words after `-m src.main`."""
    words = shlex.split(command)
    return words[words.index("src.main") + 1 :]


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> Path:
    """A folder with the files that the pages print."""
    return write_printed(tmp_path_factory.mktemp("documented"))


def write_printed(folder: Path) -> Path:
    """Write the files that the pages print into a folder."""
    for path in PAGES:
        for language, text in FILES.findall(path.read_text(encoding="utf-8")):
            if language == "python" and (module := re.match(r"# (\w+\.py)", text)):
                with (folder / module[1]).open("a") as file:
                    file.write(text)
            model = re.match(r"# @package (model|defence)\.(\w+)", text)
            file = re.match(r"# mine/(attack|dataset|panel|tracking)/(\w+)\.yaml", text)
            if found := model or file:
                file = folder / "mine" / found[1] / f"{found[2]}.yaml"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
    for name in ("mobilenetv2", "squeezenet1_0", "squeezenet1_1"):  # the reader's
        (folder / "mine" / "model" / f"{name}.yaml").write_text("weights: included\n")
    return folder


@pytest.fixture(scope="module")
def place(printed, run_in) -> Path:
    """A folder with what else the commands name: images, a sweep, saved images, answers."""
    folder = printed
    _write_images(folder / "FOLDER")
    for name, source in {"PATH": "", "advs": "images", "images": "images"}.items():
        shutil.copytree(folder / "FOLDER" / source, folder / name)
    rows = [f"{label}.png,{label}" for label in range(10)]
    for place in (folder, folder / "PATH"):
        (place / "labels.csv").write_text("\n".join(["filename,label", *rows]))
    (folder / "docs").symlink_to(REPOSITORY / "docs")
    sweep = ["-m", "experiment=demo", "save_adversarial=true", "hydra.sweep.dir=outputs/DATE"]
    assert run_in(folder, *small(sweep)) == 0
    for card in ("mine.card", "bim.card"):
        assert run_in(folder, "outputs/DATE", "-o", card, module="src.card") == 0
    files = (folder / "outputs" / "DATE" / "0-fgsm-vgg_small").rglob("*.png")
    rows = sorted({f"{sha256(file.read_bytes()).hexdigest()},3" for file in files})
    for table in ("answers.csv", "audit.csv"):
        (folder / table).write_text("\n".join(["sha256,predicted", *rows]))
    for copy in ("outputs/A", "outputs/B", "outputs/audit", "PATH/A", "alone/outputs/DATE"):
        shutil.copytree(folder / "outputs" / "DATE", folder / copy)
    return folder


def _write_images(folder: Path) -> None:
    random, rows = np.random.default_rng(0), ["ImageId,TrueLabel,TargetClass"]
    (folder / "images").mkdir(parents=True)
    for split in ("train", "test"):
        for label in range(10):
            (folder / split / f"class{label}").mkdir(parents=True)
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"class{label}" / "0.png")
            Image.fromarray(pixels).save(folder / "images" / f"{label}.png")
            rows += [f"{label},{label + 1},1"] if split == "test" else []
    (folder / "images.csv").write_text("\n".join(rows))


def small(words: list[str]) -> list[str]:
    """Return a command's words with those that make it small."""
    return [*(word for word in words if not ELSEWHERE.match(word)), *SIZES]


def composed():
    """Yield the commands; slow are those whose flags and top-level keys others have, too."""
    known: set[str] = set()
    for command in sorted(MAIN, key=len, reverse=True):
        keys = {word.partition("=")[0] for word in words_of(command)}
        new = {key for key in keys if "." not in key} - known
        known |= new
        yield pytest.param(command, marks=[] if new else pytest.mark.slow)


@pytest.mark.parametrize("command", [*composed()])
def test_a_documented_command_composes(printed, run_in, capsys, command):
    words = words_of(command)
    for word in words:
        if extra := LAUNCHERS.get(word.removeprefix("hydra/launcher=")):
            pytest.importorskip(f"hydra_plugins.hydra_{extra}_launcher")
    flags = {"-m", "--help", "--cfg", "job"}
    first = [re.sub(r"^([^=\[{]+=[^,\[{]+),.*", r"\1", word) for word in words if word not in flags]
    assert run_in(printed, "--cfg=job", *first) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", MAIN)
def test_a_documented_command_runs_or_plans_its_jobs(place, run_in, capsys, command):
    if NOT_HERE.search(command):
        pytest.skip("its models or its library are not here")
    for library in ("torchattacks", "torchattack"):
        if f"attack={library} " in command:
            pytest.importorskip(library)
    words = words_of(command)
    if not {"--help", "--cfg"} & set(words):
        words = [*small(words), *(() if AT_HAND.search(command) else ["plan=only"])]
    assert run_in(place, *dict.fromkeys(words)) == 0, capsys.readouterr()


OTHERS = [one for one in COMMANDS if one not in MAIN]


@pytest.mark.slow
@pytest.mark.parametrize("command", OTHERS)
def test_another_documented_command_is_one(place, run_in, command, capsys):
    words = [word for word in shlex.split(command) if not re.match("[A-Z_]+=", word)]
    if words[0] == "make":
        subprocess.run(["make", "-n", words[1]], cwd=REPOSITORY, capture_output=True, check=True)
    elif words[:2] == ["pip", "install"]:
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"].keys()
        assert set(re.findall(r"\[(.*)\]", words[-1])) <= extras
    elif words[:3] == ["python", "-m", "benchmarks"]:
        from benchmarks.__main__ import main

        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr("sys.argv", [*words[2:], "--rounds", "none"])
            main()
        assert "--rounds: none is not a whole number" in capsys.readouterr().err  # the rest is
    elif words[:2] == ["python", "-m"] and words[2].startswith("src."):
        module, words = words[2], words[3:]
        jobs = "outputs/DATE/0-fgsm-vgg_small outputs/A/0-fgsm-vgg_small"
        named = r"JOB OTHER|outputs/DATE/0-fgsm-vgg16 outputs/LATER/0-fgsm-vgg16"
        words = shlex.split(re.sub(named, jobs, shlex.join(words)))
        mine = {"KIND": "curves", "PRESET": "small", "FOLDER": "outputs/DATE"}
        words = [mine.get(word, word) for word in words]
        if words[:1] == ["image"]:
            index = pd.read_csv(place / "outputs/DATE/0-fgsm-vgg_small/images.csv")["index"]
            words[1:2] = [str(index[0]), "outputs/DATE"]
        elif words[:1] == ["confidence-groups"]:
            words.insert(1, "docs/results/demo")  # of enough images
        own = any((place / word.rpartition("=")[2]).exists() for word in words)
        one = module in ("src.table", "src.figure") and not own
        # No clone, few images or targets, no network, weights, pictures, paper; an earlier option.
        refused = module in ("src.compare", "src.sources") or (module == "src.attacks" and words)
        named = r"strip|model\.mine\.|check mobilenet|figure success|--tries|--question"
        refused = refused or re.search(named, command)
        if module in ("src.report", "src.models", "src.attacks"):
            module += ".__main__"
        if "--fetch" not in words:
            code = run_in(place / "alone" if one else place, *words, module=module)
            printed = capsys.readouterr()
            assert code == (2 if refused else 0) or "Not compared" in printed.err, printed
    else:
        assert words[0] in ("source", "pip", "ray", "python", "mlflow", ".venv/bin/pre-commit")


SNIPPETS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (language, code) in enumerate(FILES.findall(page.read_text(encoding="utf-8")))
    if language == "python" and not re.match(r"# \w+\.py", code)  # a file, which commands run
]


@pytest.mark.slow
@pytest.mark.parametrize("code", SNIPPETS)
def test_the_python_of_a_page_runs(place, run_in, monkeypatch, code):
    if NOT_HERE.search(code) or "mlflow" in code:  # tests/tracking is about these
        pytest.skip("its weights or runs are not here")
    monkeypatch.chdir(place)
    if 'load_table("entropy"' in code:  # of the page's own measurement
        (command,) = (one for one in MAIN if "measurements={entropy" in one)
        assert run_in(place, *small(words_of(command)), "hydra.run.dir=outputs/ENTROPY") == 0
        code = code.replace("outputs/DATE", "outputs/ENTROPY")
    code = code.replace('frame="outputs/DATE"', 'frame="docs/results/demo"')  # of enough images
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 4])
    given = {"images": images, "labels": labels, "index": torch.arange(2)}
    exec(code, given)
    if "adversarial" in given:
        assert given["adversarial"].shape == (2, *images.shape)
        assert ((given["adversarial"] - images).abs().amax((1, 2, 3, 4)) > 0).all()
    if "frame" in given:
        assert len(given["frame"])
