"""Public models by name: from the caches of their libraries, or from a server on this machine."""

import hashlib
import os
import pickle
import sys
import tarfile
import threading
import warnings
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from torchvision import models

from src import load_classifier, transfer
from src.models import build_classifier, weights_digest
from src.models.providers import facts_of, load_network, open_provider, section_of
from src.utils.model_names import check_listed
from tests.conftest import run_words

TIMM, VISION = "timm/resnet18.a1_in1k", "torchvision/squeezenet1_1.IMAGENET1K_V1"
HUB, COMMIT = "hub/owner/repo@{}/net", "0123456789" * 4
ROBUST = "robustbench/cifar10/Linf/Carmon2019Unlabeled"
HUBCONF = """
from torch import nn

def net(pretrained=False):
    layer = nn.Linear(3 * 8 * 8, 5)
    nn.init.constant_(layer.weight, float(pretrained))
    return nn.Sequential(nn.Flatten(), layer)
"""
ZOO = {  # the part of RobustBench that the program calls, and no more
    "__init__.py": "",
    "model_zoo/__init__.py": """
from torch import nn
from robustbench.model_zoo.enums import BenchmarkDataset as Data, ThreatModel

model = {"model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), "gdrive_id": "xyz"}
large = model | {"preprocessing": "BicubicRes256Crop224"}
model_dicts = {
    Data.cifar_10: {ThreatModel.Linf: {"Carmon2019Unlabeled": model}},
    Data.imagenet: {ThreatModel.Linf: {"Salman2020Do_R18": large}},
}
""",
    "model_zoo/enums.py": """
from enum import Enum

BenchmarkDataset = Enum("BenchmarkDataset", {"cifar_10": "cifar10", "imagenet": "imagenet"})
ThreatModel = Enum("ThreatModel", {"Linf": "Linf"})
""",
    "utils.py": """
import torch
from pathlib import Path
from robustbench.model_zoo import model

def load_model(name, folder, data, threat):
    network = model["model"]()
    network.load_state_dict(torch.load(Path(folder, data, threat, f"{name}.pt")))
    return network.eval()
""",
}


class Malicious:
    """A pickle of it makes a folder when it is read."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty folder as the current one and as the caches of timm and torch.hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    return tmp_path


def keep(home: Path, name: str, network: torch.nn.Module) -> Path:
    """Save weights where the provider's library looks for them."""
    if name == TIMM:
        folder = home / "hf" / "models--timm--resnet18.a1_in1k"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        path = folder / "snapshots" / COMMIT / "model.safetensors"
    elif name == VISION:
        url = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
        path = home / "torch" / "hub" / "checkpoints" / url.rpartition("/")[2]
    else:
        path = home / "models" / "cifar10" / "Linf" / "Carmon2019Unlabeled.pt"
    path.parent.mkdir(parents=True)
    save = save_file if name == TIMM else torch.save
    save(network.state_dict(), path)
    return path


@pytest.fixture
def robustbench(home, monkeypatch):
    """A stand-in for the package, and what its model is."""
    for name, text in ZOO.items():
        path = home / "packages" / "robustbench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    about = home / "packages" / "robustbench-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: robustbench\nVersion: 1.2\n")
    forget()
    monkeypatch.syspath_prepend(home / "packages")
    yield torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    forget()


def forget():
    for name in [name for name in sys.modules if "robustbench" in name]:
        del sys.modules[name]


class Hub(BaseHTTPRequestHandler):
    """Server of one file, as Hugging Face has it, too; it sends a part, or the whole."""

    body, sent, status = b"", 1.0, 200
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        self.do_HEAD()
        if self.status == 200 and self.command == "GET" and "/api/" not in self.path:
            self.wfile.write(self.body[: int(self.sent * len(self.body))])

    def do_HEAD(self):
        self.asked.append(self.path)
        known = self.status == 200 and ("/api/" in self.path or "config" not in self.path)
        self.send_response(self.status if known or self.status != 200 else 404)
        body = b'{"id": "timm/resnet18.a1_in1k", "sha": "%s"}' % COMMIT.encode()
        size = len(body if "/api/" in self.path else self.body) * known
        self.send_header("Content-Length", str(size))
        self.send_header("ETag", f'"{hashlib.sha256(self.body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if "/api/" in self.path and known:
            self.wfile.write(body)

    def log_message(self, *_):
        """Print nothing."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server of the weights of both models, and the digest of torchvision's network."""
    network, server = models.squeezenet1_1().eval(), type("Server", (Hub,), {"asked": []})
    torch.save(network.state_dict(), tmp_path / "squeezenet.pth")
    with ThreadingHTTPServer(("127.0.0.1", 0), server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        server.body = (tmp_path / "squeezenet.pth").read_bytes()
        digest = hashlib.sha256(server.body).hexdigest()[:8]
        weights = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.value
        monkeypatch.setattr(weights, "url", f"{address}/squeezenet1_1-{digest}.pth")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server, weights_digest(network)
        running.shutdown()


def cached(folder: Path) -> list[Path]:
    return [*folder.glob("torch/hub/checkpoints/*"), *folder.glob("hf/*/snapshots/*/*")]


def test_weights_are_fetched_once_even_by_two_processes(hub, tmp_path, at_once):
    server, digest = hub
    at_once(*[partial(load_network, VISION)] * 2)
    for _ in range(2):
        assert weights_digest(load_network(VISION)) == digest
    assert len(cached(tmp_path)) == 1 and len(server.asked) <= 2


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *[(VISION, damage) for damage in ({"sent": 0.5}, {"status": 404}, {"body": b"other" * 9})],
        (TIMM, {"sent": 0.5}),
        pytest.param(TIMM, {"status": 404}, marks=pytest.mark.slow),
    ],
)
def test_what_is_damaged_or_missing_is_refused_and_not_kept(hub, tmp_path, name, damage):
    for key, value in damage.items():
        setattr(hub[0], key, value)
    with pytest.raises(ValueError, match=rf"^{name}: "):
        load_network(name)
    assert not cached(tmp_path)


@pytest.mark.slow
def test_weights_come_from_hugging_face(hub, tmp_path):
    network = timm.create_model("resnet18")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    hub[0].body = (tmp_path / "model.safetensors").read_bytes()
    assert weights_digest(load_network(TIMM)) == weights_digest(network)
    assert cached(tmp_path)


@pytest.mark.slow
def test_logits_are_those_of_the_librarys_own_network(home):
    for name, network in ((TIMM, timm.create_model("resnet18")), (VISION, models.squeezenet1_1())):
        keep(home, name, network.eval())
        section = section_of(name)
        classifier = build_classifier("public", **section, num_classes=1000, image_size=299)
        images = torch.rand(2, 3, 224, 224)
        mean, std = (torch.tensor(section[key]).view(3, 1, 1) for key in ("mean", "std"))
        with torch.no_grad():
            torch.testing.assert_close(classifier(images), network((images - mean) / std))
        assert section["input_size"] == 224


def test_a_commit_of_a_repository_is_run_and_said(home, caplog):
    folder = home / "torch" / "hub" / f"owner_repo_{COMMIT}"
    folder.mkdir(parents=True)
    (folder / "hubconf.py").write_text(HUBCONF)
    section = section_of(HUB.format(COMMIT))
    classifier = build_classifier("public", **section, num_classes=5, image_size=8)
    assert classifier.network[1].weight.unique() == 1  # pretrained=True was passed on
    assert classifier.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert f"runs code: net of https://github.com/owner/repo/tree/{COMMIT}" in caplog.text
    assert "ImageNet's are taken" in caplog.text


def test_models_of_robustbench_take_images_as_they_are(home, robustbench):
    keep(home, ROBUST, robustbench)
    section = section_of(ROBUST)
    classifier = build_classifier("public", **section, num_classes=10, image_size=8)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(classifier(images), robustbench(images))
    assert section["network"]["version"] == "1.2"
    assert section_of("robustbench/imagenet/Linf/Salman2020Do_R18")["input_size"] == 224


@pytest.mark.parametrize("name", [TIMM, VISION, HUB.format(COMMIT)])
def test_what_is_missing_is_named_with_its_place(home, name):
    with pytest.raises(ValueError, match=rf"^{name}: .*\(.*\)\. .* put http\S+ at {home}/\S+\. "):
        load_network(name)
    if "hub/" not in name:
        assert load_network(name, pretrained=False)


@pytest.mark.parametrize(
    ("name", "damage"),
    [(TIMM, "code"), (VISION, "code"), (VISION, "cut"), (ROBUST, "cut")],
)
def test_damaged_files_and_pickles_of_code_are_refused(
    home, robustbench, name, damage, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries again
    path = keep(home, name, torch.nn.Linear(100, 100))
    path.write_bytes(path.read_bytes()[:-200])
    if damage == "code" and name == TIMM:  # a repository without safetensors
        path.unlink()
        (path.parents[2] / ".no_exist" / COMMIT).mkdir(parents=True)
        (path.parents[2] / ".no_exist" / COMMIT / path.name).touch()
        path = path.with_name("pytorch_model.bin")
    if damage == "code":
        path.write_bytes(pickle.dumps(Malicious()))
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"cannot be loaded \("):
        warnings.simplefilter("ignore")
        load_network(name)
    assert not (home / "harm").exists()


NEAR = {
    "tim/resnet50": "Did you mean timm",
    "timm/resnt18": "Did you mean timm/resnet18",
    "timm/resnet50": r"timm/resnet50\.a1_in1k",
    "torchvision/resnet50.a1_in1k": r"Did you mean timm/resnet50\.a1_in1k",
    "torchvision/resnet50.IMAGENET1K_V3": "IMAGENET1K_V2",
    HUB.format("main"): "40 digits",
    ROBUST: "robustbench is not installed: pip install",
}


def test_unknown_names_are_refused_with_near_ones(monkeypatch):
    forget()
    monkeypatch.setitem(sys.modules, "robustbench", None)
    for name, told in NEAR.items():
        with pytest.raises(ValueError, match=told):
            section_of(name)


@pytest.mark.slow
def test_the_list_of_the_release_is_that_of_its_libraries(home):
    for library in ("timm", "torchvision"):
        names = [f"{library}/{name}" for name in open_provider(library).names()]
        for name in names:
            check_listed(name)
        with pytest.raises(ValueError, match="no such model"):
            check_listed(f"{names[0]}x")


def test_stated_accuracies_are_for_the_classes_of_imagenet():
    facts = facts_of(section_of("torchvision/resnet50.IMAGENET1K_V2")["network"])
    assert facts.expected_accuracy == pytest.approx(0.80858) and len(facts.class_names) == 1000
    assert section_of("torchvision/resnet50.IMAGENET1K_V2").get("expected_accuracy") is None


def test_the_command_line_lists_and_fetches(home, capsys):
    keep(home, VISION, models.squeezenet1_1())
    assert run_words(home, "torchvision", "squeeze*", module="src.models.__main__") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["torchvision/squeezenet1_0.IMAGENET1K_V1", f"{VISION}\tcached"]
    assert run_words(home, "--fetch", VISION, module="src.models.__main__") == 0
    assert "checkpoints/squeezenet1_1" in capsys.readouterr().out
    for words in (["--fetch", TIMM], ["hub"], ["timm", "nosuch*"]):
        assert run_words(home, *words, module="src.models.__main__") == 2


def test_missing_weights_are_refused_once_before_anything_runs(home, capsys):
    keep(home, VISION, models.squeezenet1_1())
    names = [TIMM, "timm/resnet34.a1_in1k", VISION]
    words = ["-m", "attack=fgsm,bim", f"source={TIMM},{VISION}", f"targets=[{','.join(names)}]"]
    words += ["dataset=cifar10_mini", "dataset.class_names=imagenet", "trainer=cpu"]
    assert run_words(home, *words) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.strip().splitlines()
    assert line.startswith(f"{TIMM}: ") and len(line) < 400 + len(str(home))
    assert line.endswith(f"--fetch {TIMM} {names[1]}") and "experiment=demo" in line
    assert not printed.out and {path.name for path in home.iterdir()} <= {"torch", "cache"}


def test_from_python_names_and_modules_mix(home):
    network = models.squeezenet1_1().eval()
    keep(home, VISION, network)
    loaded = load_classifier(VISION)
    images = torch.randint(0, 256, (3, 3, 40, 40), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    labels = loaded(images / 255).argmax(1)
    mine = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 40 * 40, 1000))
    frame = transfer([VISION], [VISION, {"mine": mine}], images, labels, progress_bar=False)
    assert set(frame["source"]) == {"torchvision.squeezenet1_1.IMAGENET1K_V1"}
    assert set(frame["target"]) == {"torchvision.squeezenet1_1.IMAGENET1K_V1", "mine"}
    clean = frame[(frame["eps_255"] == 0) & (frame["target"] != "mine")]
    assert clean["predicted"].tolist() == labels.tolist()
    with pytest.raises(ValueError, match="models must be"):
        transfer([mine], {"mine": mine}, images, labels)


@pytest.mark.slow
def test_a_model_by_name_is_planned_and_run_on_photographs(real_data, home, capsys):
    name = "torchvision/squeezenet1_0.IMAGENET1K_V1"
    (home / "mine" / "model").mkdir(parents=True)
    text = f"# @package model.squeezenet\n{yaml.safe_dump(section_of(name))}"
    (home / "mine" / "model" / "squeezenet.yaml").write_text(text)
    with tarfile.open(real_data / "imagenet-nips2017-250.tar") as photographs:
        photographs.extractall(home, filter="data")
    words = ["--config-dir=mine", "targets=[squeezenet]", "attack=none"]
    words += ["dataset=image_csv", "dataset.root=.", "tracking=none", "report=none", "trainer=cpu"]
    assert run_words(home, *words, "plan=only") == 0
    assert f"python -m src.models --fetch {name}" in capsys.readouterr().out
    weights = torch.load(real_data / "imagenet-squeezenet1_0.pt")
    place = home / "torch" / "hub" / "checkpoints" / "squeezenet1_0-b66bff10.pth"
    place.parent.mkdir(parents=True)
    torch.save({key: value.float() for key, value in weights.items()}, place)
    assert run_words(home, *words) == 0
    printed = capsys.readouterr().out
    assert (
        "--fetch" not in printed and "122 / 250 = 48.80%, but its weights state 58.09%" in printed
    )
