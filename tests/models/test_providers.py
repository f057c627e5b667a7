"""Public models by name, from caches or a server on this machine, and their preprocessing."""

import hashlib
import os
import pickle
import re
import sys
import warnings
from enum import Enum
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import models

from src import load_classifier, transfer
from src.data import load_dataset
from src.models import build_classifier, weights_digest
from src.models.providers import facts_of, load_network, section_of
from tests.conftest import at_once, run_words

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


def keep(home: Path, name: str, network: nn.Module) -> Path:
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
    """A stand-in for the part of the package that the program calls, and what its model is."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))

    def load_model(name, folder, data, threat):
        network.load_state_dict(torch.load(Path(folder, data, threat, f"{name}.pt")))
        return network.eval()

    data, threat = Enum("B", {"cifar_10": "cifar10"}), Enum("T", {"Linf": "Linf"})
    listed = {data.cifar_10: {threat.Linf: {"Carmon2019Unlabeled": {"gdrive_id": "xyz"}}}}
    enums = SimpleNamespace(BenchmarkDataset=data, ThreatModel=threat)
    zoo, utils = SimpleNamespace(model_dicts=listed, enums=enums), SimpleNamespace()
    utils.load_model = load_model
    monkeypatch.setitem(sys.modules, "robustbench", SimpleNamespace(model_zoo=zoo, utils=utils))
    monkeypatch.setitem(sys.modules, "robustbench.model_zoo", zoo)
    monkeypatch.setattr("src.models.providers.version", lambda _: "1.2")
    return network


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The file that is downloaded, and the digest of its network."""
    network = models.squeezenet1_1().eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    digest = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()[:8]
    file = (tmp_path / "net.pth").rename(tmp_path / f"squeezenet1_1-{digest}.pth")
    monkeypatch.setattr(models.SqueezeNet1_1_Weights.IMAGENET1K_V1.value, "url", file.as_uri())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return file, weights_digest(network)


def test_weights_are_fetched_once_even_by_two_processes(server, tmp_path):
    file, digest = server
    at_once(*[partial(load_network, VISION)] * 2)
    file.unlink()
    assert weights_digest(load_network(VISION)) == digest
    assert len([*tmp_path.glob("torch/hub/checkpoints/*")]) == 1


@pytest.mark.parametrize("damaged", [True, False])
def test_what_is_damaged_or_missing_is_refused_and_not_kept(server, tmp_path, damaged):
    file, _ = server
    file.write_bytes(file.read_bytes()[:-1000]) if damaged else file.unlink()
    with pytest.raises(ValueError, match=rf"^{VISION}: "):
        load_network(VISION)
    assert not [*tmp_path.glob("torch/hub/checkpoints/*")]


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


@pytest.mark.parametrize(("name", "damage"), [(TIMM, "cut"), (VISION, "code"), (ROBUST, "cut")])
def test_damaged_files_and_code_are_refused(home, robustbench, name, damage, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else it tries again
    path = keep(home, name, nn.Linear(100, 100))
    path.write_bytes(pickle.dumps(Malicious()) if damage == "code" else path.read_bytes()[:-200])
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"cannot be loaded \("):
        warnings.simplefilter("ignore")
        load_network(name)
    assert not (home / "harm").exists()


NEAR = {
    "tim/resnet50": "Did you mean timm",
    "timm/resnt18": "Did you mean timm/resnet18",
    "torchvision/resnet50.a1_in1k": r"Did you mean timm/resnet50\.a1_in1k",
    "torchvision/resnet50.IMAGENET1K_V3": "IMAGENET1K_V2",
    HUB.format("main"): "40 digits",
    ROBUST: "robustbench is not installed: pip install",
}


def test_unknown_names_are_refused_with_near_ones(monkeypatch):
    monkeypatch.setitem(sys.modules, "robustbench", None)
    for name, told in NEAR.items():
        with pytest.raises(ValueError, match=told):
            section_of(name)


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
    names = [TIMM, "timm/resnet34.a1_in1k"]
    words = ["-m", "attack=fgsm,bim", f"source={TIMM}", f"targets=[{','.join(names)}]"]
    words += ["dataset=cifar10_mini", "dataset.class_names=imagenet", "trainer=cpu"]
    assert run_words(home, *words) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.strip().splitlines()
    assert line.startswith(f"{TIMM}: ") and len(line) < 400 + len(str(home))
    assert line.endswith(f"--fetch {TIMM} {names[1]}") and "experiment=demo" in line
    assert not printed.out and {path.name for path in home.iterdir()} <= {"cache"}


def test_from_python_names_and_modules_mix(home):
    network = models.squeezenet1_1().eval()
    keep(home, VISION, network)
    loaded = load_classifier(VISION)
    images = torch.randint(0, 256, (3, 3, 40, 40), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8)
    labels = loaded(images / 255).argmax(1)
    mine = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 40, 1000))
    frame = transfer([VISION], [VISION, {"mine": mine}], images, labels, progress_bar=False)
    clean = frame[(frame["eps_255"] == 0) & (frame["target"] != "mine")]
    assert clean["predicted"].tolist() == labels.tolist()
    with pytest.raises(ValueError, match="models must be"):
        transfer([mine], {"mine": mine}, images, labels)


def write_model(workspace, name, first, **keys):
    """Write the model `coarse` with another first layer's input, as a model file in `conf`."""
    file = workspace / "conf" / "model" / "coarse.yaml"
    settings = yaml.safe_load(file.read_text())
    state = load_file(settings["weights"])
    state["2.weight"], state["2.bias"] = first(state["2.weight"], state["2.bias"])
    save_file(state, workspace / f"{name}.safetensors")
    settings |= {"weights": f"{name}.safetensors", **keys}
    (workspace / "conf" / "model" / f"{name}.yaml").write_text(
        f"# @package model.{name}\n{yaml.safe_dump(settings)}"
    )


CAFFE = {"mean": [0.48502, 0.457957, 0.407604], "std": [1 / 255] * 3}


def for_caffe(weight, bias):
    """Change a linear layer so that it takes BGR pixels as Caffe's models do."""
    channels = weight.unflatten(1, (3, -1))
    # `coarse` was fitted on (x - 0.5) / 0.25, and x = mean + std * input
    scale = torch.tensor(CAFFE["std"]) / 0.25
    shift = (torch.tensor(CAFFE["mean"]) - 0.5) / 0.25
    bias = bias + (channels * shift[:, None]).sum((1, 2))
    return (channels * scale[:, None]).flip(1).flatten(1).contiguous(), bias


def test_a_check_finds_the_lines_of_a_models_file(run_in, workspace, capsys):
    wrong = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    write_model(workspace, "other", for_caffe, **wrong)
    words = ("check", "other", "--config-dir", "conf", "dataset=cifar10_mini")
    assert run_in(workspace, *words, module="src.models.__main__") == 0
    table, _, lines = capsys.readouterr().out.partition("file:\n")
    rows = re.findall(r"(\w[^\n]*?)  +(RGB|BGR) +\S.*? (\d+) / 200", table)
    assert rows[0][:2] == ("Caffe", "BGR") and "of the model" in [row[0] for row in rows]
    lines = yaml.safe_load(lines)
    assert lines.pop("channels") == "BGR" and list(lines) == ["mean", "std"]
    assert all(lines[name] == pytest.approx(CAFFE[name], abs=1e-5) for name in lines)
    data = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"}).subset(200)[:]
    coarse = load_classifier("coarse", "dataset=cifar10_mini", config_dir=workspace / "conf")
    correct = (coarse(data.images / 255).argmax(1) == data.labels).sum()
    assert int(rows[0][2]) == correct
