"""What a command takes, printed before its first job, against what it took."""

import json
import re
from pathlib import Path

import pytest
import torch

from src.artifacts.record import job_record
from src.models import PixelClassifier


@pytest.fixture
def plan(command_line, printed_by):
    """A function that plans a command, and returns the lines it prints."""

    def run(*words, exits=0):
        code, printed = printed_by(command_line, *words, "plan=true")
        assert code == exits, printed
        return printed

    return run


def count(name, printed):
    (number,) = re.findall(rf"Plan: .*?([\d,]+) {name}", printed)
    return int(number.replace(",", ""))


def test_a_plan_computes_nothing_and_states_what_the_command_takes(plan, command_line, workspace):
    words = ["-m", "attack=bim,mi", "attack.steps=3", "rerun=false", "hydra.sweep.dir=out"]
    printed = plan(*words)
    assert {path.name for path in workspace.iterdir()} == {"conf", "cache"}
    assert [path.name for path in (workspace / "cache").iterdir()] == ["speeds.json"]
    assert count("gradients", printed) == 2 * 23 * (1 + 2 * 2)
    # Clean images once for both jobs; one or two storage formats have the same logits.
    assert count("predictions", printed) == 2 * 23 + 2 * 2 * 2 * 23
    assert command_line(*words) == 0
    records = [job_record(folder) for folder in sorted((workspace / "out").glob("[0-9]-*"))]
    assert sum(record.gradients for record in records) == 2 * 23 * (1 + 2 * 2)
    again = plan(*words)
    assert count("gradients", again) == count("predictions", again) == 0
    assert "all rows of 2 jobs." in again
    grown = plan(*words, "epsilon.grid=[0,0.5,2,8]")
    assert count("gradients", grown) == 2 * 23 * (1 + 2)


def test_speeds_are_measured_once(plan, workspace):
    path = workspace / "cache" / "speeds.json"
    plan("attack=bim")
    first = json.loads(path.read_bytes())
    ((_, known),) = first.items()
    assert {name.rpartition(" ")[0] for name in known} == {
        "gradient coarse",
        "prediction coarse",
        "prediction fine",
    }
    plan("attack=bim")
    assert json.loads(path.read_bytes()) == first


def test_speeds_are_those_of_batches_that_fit_into_the_memory(plan, workspace, monkeypatch):
    forward, sizes = PixelClassifier.forward, set()

    def cramped(self, images):
        sizes.add(len(images))
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, images)

    monkeypatch.setattr(PixelClassifier, "forward", cramped)
    assert "about" in plan("attack=bim") and sizes == {1, 2, 8}


def test_a_command_that_takes_too_long_is_refused_before_it_begins(command_line, workspace, capsys):
    assert command_line("hydra.run.dir=out", "max_hours=1e-6") == 2
    assert "max_hours" in capsys.readouterr().err and not (workspace / "out").exists()
    assert command_line("hydra.run.dir=out", "max_hours=100") == 0


def test_a_plan_lists_missing_files_with_the_commands_that_get_them(plan, workspace):
    words = ["model.fine.weights=there/fine.pth", "++model.fine.url=https://example.org/fine.pth"]
    printed = plan(*words)
    assert "curl -L --create-dirs -o there/fine.pth https://example.org/fine.pth" in printed
    assert count("gradients", printed) == 23
    printed = plan("dataset=image_folder", "dataset.root=nowhere", "n_images=null", "attack=bim")
    assert "dataset=image_folder: " in printed and "19 gradients per image" in printed
    words = ["dataset=cifar10", "n_images=null", "model.coarse.weights=null"]
    printed = plan("-m", "attack=fgsm,bim", *words)
    assert "Trained on first use: coarse." in printed and "the command downloads it" in printed


def test_jobs_that_run_elsewhere_have_gradients_alone(plan):
    printed = plan("-m", "attack=bim,mi", "attack.steps=3", "hydra/launcher=processes")
    assert count("gradients", printed) == 2 * 23 * 5 and "about" not in printed


def test_a_plan_lists_trainings_once_and_jobs_that_cannot_run(plan, workspace):
    words = ["model.coarse.weights=null", "training.n_images=500", "training.epochs=2"]
    printed = plan("-m", "attack=fgsm,bim", *words)
    assert len(re.findall(r"coarse \(500 images, 2 epochs, \d+ s\)", printed)) == 1
    assert not (workspace / "cache" / "checkpoints").exists()
    printed = plan("model.fine.mean=null", exits=1)
    assert "refused: model fine: mean or std is null" in printed


def test_a_model_after_an_epoch_is_a_source_beside_the_trained_one(plan, command_line, capfd):
    words = ["model.coarse.weights=null", "training.n_images=100", "training.epochs=2"]
    words += ["source=coarse.epoch1", "clean_accuracy_check.action=warn"]
    both = ["targets=[coarse,coarse.epoch1]", "hydra.run.dir=out"]
    assert "needs training.keep_epochs=[1]" in plan(*words, *both, exits=1)
    words.append("training.keep_epochs=[1]")
    assert plan(*words, *both).count("coarse (100 images, 2 epochs") == 1
    assert command_line(*words, *both) == 0
    digests = job_record(Path("out")).weights
    assert digests["coarse"] != digests["coarse.epoch1"]
    alone = [*words, "targets=[coarse.epoch1]", "hydra.run.dir=alone"]
    assert "coarse (" not in plan(*alone) and command_line(*alone) == 0
    assert job_record(Path("alone")).weights == {"coarse.epoch1": digests["coarse.epoch1"]}
    assert command_line(*words[1:], *both) == 2
    assert "set its weights to null" in capfd.readouterr().err


def test_images_that_are_attacked_again_are_planned(plan, command_line):
    words = ["attack=bim", "attack.steps=3", "rerun=false", "report.examples=0"]
    words += ["store.images_mb=0", "hydra.run.dir=out"]
    assert command_line(*words) == 0
    assert count("gradients", plan(*words)) == 0
    assert count("gradients", plan(*words, "controls=true")) == 23 * (1 + 2 * 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm", ["model.timm.network.model_name=resnet10t.c3_in1k"]),
        ("torchvision", ["model.torchvision.network.name=squeezenet1_1"]),
    ],
)
def test_a_plan_downloads_no_network(plan, monkeypatch, name, words):
    def download(*_, **__):
        raise AssertionError("a download")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    words = [f"targets=[coarse,{name}]", "n_images=10", *words]
    words += ["model.torchvision.network.num_classes=10"] if name == "torchvision" else []
    printed = plan(*words)
    assert f"model {name} downloads its weights" in printed and "refused" not in printed
