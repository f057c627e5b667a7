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
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.models import squeezenet1_0

from src.models import architectures
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")]
PAGES += sorted(REPOSITORY.glob("docs/**/*.md"))
STARTS = "make|python|transferability|pip|torchrun|srun|mlflow|ray|source"
STARTS += "|[A-Z_]+=[^ `]+|.venv/bin/pre-commit"
BLOCK = re.compile(rf"^    ((?:{STARTS}) (?!  ).*?)(?:   .*)?$", re.MULTILINE)
INLINE = re.compile(rf"`((?:{STARTS}) [^`\n]+)`")
FILES = re.compile(r"^```(yaml|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SIZES = "n_images=4 seed=0 epsilon.grid=[0,4,8,16] trainer=cpu"
SIZES += " report=none tracking=none clean_accuracy_check.action=warn training.epochs=1"
SIZES = os.environ.get("DOCUMENTED_SIZES", SIZES).split()
"""Words that make any command of `src.main` small."""
WEIGHTS = {"vgg16": "vgg16_bn.pt", "resnet50": "resnet50.pt", "inception": "inception_v3.pt"}
DATA = ("dataset=image_folder", "dataset.root=FOLDER")
OWN = ("dataset=image", "dataset=cifar10_mini", "dataset=arrays", "experiment=", "attack.path=advs")
"""Words that name images that are at hand."""
ELSEWHERE = re.compile(r"(hydra/launcher|hydra\.launcher\.\w+|trainer|trainer\.\w+|tracking\.\w+)=")
"""Words of other machines and stores; test_launchers.py and test_distributed.py are about these."""
LAUNCHERS = {"processes": "joblib", "slurm": "submitit", "cluster": "ray"}
"""Extras of Hydra's launchers."""
PACKAGES = {"attack=torchattacks": "torchattacks"}
"""What commands need beyond the dependencies."""
DOWNLOADED = re.compile(
    "timm/|efficientnet_lite|experiment=nips17|experiment=tabench"
    "|(experiment|attack)=transferattack|resnet_small,clip|huggingface|exported"
)
"""Models whose weights their providers download, a clone of another library, and files that
`tests/data/test_sources.py` and `tests/models/test_onnx.py` have."""


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
    folder = tmp_path_factory.mktemp("documented")
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
    (folder / "docs").symlink_to(REPOSITORY / "docs")
    return folder


@pytest.fixture(scope="module")
def place(printed, run_in) -> Path:
    """A folder with what else the commands name: data, weights, a sweep, saved images."""
    folder = printed
    _write_data(folder)
    _write_weights(folder)
    sweep = ["-m", "experiment=demo", "save_adversarial=true", "hydra.sweep.dir=outputs/DATE"]
    assert run_in(folder, *small(sweep)) == 0
    for card in ("mine.card", "bim.card"):
        assert run_in(folder, "outputs/DATE", "-o", card, module="src.card") == 0
    (audit,) = (one for one in MAIN if "hydra.sweep.dir=outputs/audit" in one)
    assert run_in(folder, *small(words_of(audit))) == 0
    for table, place in {"answers": "DATE/0-fgsm-vgg_small", "audit": "audit"}.items():
        files = (folder / "outputs" / place).rglob("*.png")
        rows = sorted({f"{sha256(file.read_bytes()).hexdigest()},3" for file in files})
        (folder / f"{table}.csv").write_text("\n".join(["sha256,predicted", *rows]))
    for copy in ("outputs/A", "outputs/B", "PATH/A", "alone/outputs/DATE"):
        shutil.copytree(folder / "outputs" / "DATE", folder / copy)
    return folder


def _write_data(folder: Path) -> None:
    """Write class folders, lists, parts of ImageNet, and arrays."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    wordnet = ["n01440764", "n01443537", "n01484850", "n01491361"]
    files = [f"ILSVRC2012_val_{number:08}.JPEG" for number in range(1, 5)]
    for place, names in {
        "FOLDER": [f"{split}/class{k}/0.png" for split in ("test", "train") for k in range(10)],
        "FOLDER/images": [f"{label}.png" for label in range(10)],
        "imagenette2/val": [f"{name}/0.png" for name in wordnet],
        "imagenetv2": [f"{label}/0.png" for label in range(4)],
        "imagenet/val": files,
        "tiny-imagenet-200/val/images": [f"val_{label}.JPEG" for label in range(10)],
    }.items():
        for image, name in zip(pixels, names, strict=False):
            (folder / place / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / place / name)
    boxes = [f"{file[:-5]},{name} 1 2 30 40 " for file, name in zip(files, wordnet, strict=True)]
    labels = ["filename,label", *(f"{label}.png,{label}" for label in range(10))]
    listed = ["ImageId,TrueLabel,TargetClass", *(f"{k},{k + 1},1" for k in range(10))]
    tiny = [f"val_{label}.JPEG\tn0000000{label}\t0\t0\t9\t9" for label in range(10)]
    for name, lines in {
        "FOLDER/images.csv": listed,
        "FOLDER/labels.csv": labels,
        "labels.csv": labels,
        "imagenet/val.txt": [f"{file} {label}" for label, file in enumerate(files)],
        "imagenet/LOC_val_solution.csv": ["ImageId,PredictionString", *boxes],
        "tiny-imagenet-200/val/val_annotations.txt": tiny,
    }.items():
        (folder / name).write_text("\n".join(lines))
    for name, source in {"PATH": "", "advs": "images", "images": "images"}.items():
        shutil.copytree(folder / "FOLDER" / source, folder / name)
    np.savez(folder / "images.npz", images=pixels[:10], labels=np.arange(10))
    np.save(folder / "images.npy", pixels[:10])
    np.save(folder / "labels.npy", np.arange(10))


def _write_weights(folder: Path) -> None:
    small = {"num_classes": 10, "image_size": 32}
    networks = {
        "vgg16_bn.pt": architectures.vgg16(**small),
        "resnet50.pt": architectures.resnet50(**small),
        "inception_v3.pt": architectures.inception_v3(**small),
        "imagenet-mobilenetv2_100.pt": timm.create_model("mobilenetv2_100"),
        "resnet26.pt": timm.create_model("resnet26"),
        "imagenet-squeezenet1_0.pt": squeezenet1_0(),
        "generator.pt": nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid()),
        "mynet.pt": nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)),
    }
    np.save(folder / "mine.npy", np.full((3, 32, 32), 1 / 255))
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / name)


def small(words: list[str]) -> list[str]:
    """Return a command's words with those that make it small, and with data and weights."""
    words = [word for word in words if not ELSEWHERE.match(word)]
    files = WEIGHTS | ({"timm": "resnet26.pt"} if "source=timm" in words else {})
    weights = [f"model.{name}.weights={file}" for name, file in files.items()]
    named = re.findall(r"\w+", " ".join(words))
    sides = [f"model.{name}.input_size=64" for name in ("mobilenet", "squeezenet") if name in named]
    own = any(word.startswith(OWN) for word in words if word != "experiment=transferlab")
    return [*words, *SIZES, *weights, *sides, *(() if own else DATA)]


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
def test_a_documented_command_runs(place, run_in, capsys, command):
    words = words_of(command)
    if DOWNLOADED.search(command):
        pytest.skip("its weights, or its library, are downloads")
    for word, package in PACKAGES.items():
        if word in command:
            pytest.importorskip(package)
    words = words if {"--help", "--cfg"} & set(words) else small(words)
    missing = "experiment=zhao2021" in command  # of ImageNet, whose weights are gigabytes
    assert run_in(place, *words) == 2 * missing, capsys.readouterr()
    assert ("weight files are missing" in capsys.readouterr().err) == missing


OTHERS = [one for one in COMMANDS if one not in MAIN]
PLACEHOLDERS = {"KIND": "curves", "PRESET": "small", "FOLDER": "outputs/DATE"}
PLACEHOLDERS["SIGNATURE"] = f"fooled,joint,n=9/9{10 * '|text'}"
OF_ENOUGH = {"confidence-groups": (1, "demo"), "image": (2, "photographs")}
OF_ENOUGH["strip"] = OF_ENOUGH["image"]
"""Stored sweeps for figures that need many images or certain ones, and their place in a command."""
REFUSED = re.compile("attacks .|compare|sources|figure strip|--beside photographs")
"""No clone, or too few images, targets or pictures, or other images."""


@pytest.mark.slow
@pytest.mark.parametrize("command", OTHERS)
def test_another_documented_command_is_one(place, run_in, command, capsys):
    if re.search("--tries|figure success|--question|--fetch", command):
        pytest.skip("an earlier option, or it needs files of the reader's or a download")
    words = [word for word in shlex.split(command) if not re.match("[A-Z_]+=", word)]
    match [PLACEHOLDERS.get(word, word) for word in words]:
        case ["make", target, *_]:
            subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, check=True)
        case ["pip", "install", *_, package]:
            project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
            extras = project["optional-dependencies"].keys()
            assert set(re.findall(r"\[(.*)\]", package)) <= extras
        case ["python", "-m", "benchmarks", *more]:
            with pytest.raises(SystemExit):
                run_in(place, *more, "--rounds", "none", module="benchmarks.__main__")
            assert "--rounds: none is not a whole number" in capsys.readouterr().err  # the rest is
        case ["python", "-m", module, *more] if module.startswith("src."):
            if module == "src.figure" and more[0] in OF_ENOUGH:
                at, name = OF_ENOUGH[more[0]]
                more.insert(at, f"docs/results/{name}")
            named = any((place / word.rpartition("=")[2]).exists() for word in more)
            several = module in ("src.table", "src.figure")  # these are refused then
            folder = place / "alone" if several and not named else place
            package = module in ("src.report", "src.models", "src.attacks")
            code = run_in(folder, *more, module=f"{module}.__main__" if package else module)
            assert code == (2 if REFUSED.search(command) else 0), capsys.readouterr()
        case _:
            assert words[0] in ("source", "pip", "ray", "python", "mlflow", ".venv/bin/pre-commit")


(OF_ENTROPY,) = (one for one in MAIN if "measurements={entropy" in one)
SNIPPETS = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (language, code) in enumerate(FILES.findall(page.read_text(encoding="utf-8")))
    if language == "python" and re.match("import|from", code)  # no part of a file
]


@pytest.mark.slow
@pytest.mark.parametrize("code", SNIPPETS)
def test_the_python_of_a_page_runs(place, run_in, monkeypatch, code):
    if DOWNLOADED.search(code) or "mlflow" in code:
        pytest.skip("its weights are downloads, or tests/test_one_value.py runs it")
    monkeypatch.chdir(place)
    if 'load_table("entropy"' in code:  # of the page's own measurement
        (word,) = (word for word in words_of(OF_ENTROPY) if word.startswith("measurements="))
        sweep = small(["-m", "experiment=demo", word, "hydra.sweep.dir=outputs/ENTROPY"])
        assert run_in(place, *sweep) == 0
        code = code.replace("outputs/DATE", "outputs/ENTROPY")
    code = code.replace('frame="outputs/DATE"', 'frame="docs/results/demo"')  # of enough images
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([3, 4])
    given = {"images": images, "labels": labels, "index": torch.arange(2)}
    exec(code, given)
    if "adversarial" in given:
        assert given["adversarial"].shape == (2, *images.shape)
        assert ((given["adversarial"] - images).abs().amax((1, 2, 3, 4)) > 0).all()
