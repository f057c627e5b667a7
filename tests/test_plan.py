"""What a command takes, printed before its first job, against what it took."""

import re
from os import utime
from shutil import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from src.artifacts.record import job_record
from tests.conftest import own_attack


@pytest.fixture
def plan(run_job, printed_by, monkeypatch):
    """A function that plans a command without a run of a network, and returns what it prints."""

    def run(*words, code=0):
        with monkeypatch.context() as patch:
            patch.delattr("torch.nn.Linear.forward")
            status, printed = printed_by(run_job, *words, "plan=only")
        assert status == code, printed
        return printed

    return run


def count(name, printed):
    (number,) = re.findall(rf"Plan: .*?([\d,]+) {name}", printed)
    return int(number.replace(",", ""))


@pytest.mark.slow
def test_a_plan_computes_nothing_and_states_what_the_command_takes(plan, run_job, workspace):
    words = ["-m", "attack=bim,mi", "attack.steps=3", "rerun=false", "hydra.sweep.dir=out"]
    printed = plan(*words)
    assert {path.name for path in workspace.iterdir()} == {"conf", "cache"}
    assert not [*(workspace / "cache").iterdir()] and "unknown until" in printed
    assert count("gradients", printed) == 2 * 23 * (1 + 2 * 2)
    # Clean images once for both jobs; one or two storage formats have the same logits.
    assert count("predictions", printed) == 2 * 23 + 2 * 2 * 2 * 23
    assert run_job(*words) == 0
    records = [job_record(folder) for folder in sorted((workspace / "out").glob("[0-9]-*"))]
    assert sum(record.gradients for record in records) == 2 * 23 * (1 + 2 * 2)
    again = plan(*words)
    assert count("gradients", again) == count("predictions", again) == 0
    assert "all rows of 2 jobs" in again and "Already stored" not in plan(*words, "rerun=true")
    grown = plan(*words, "epsilon.grid=[0,0.5,2,8]")
    assert count("gradients", grown) == 2 * 23 * (1 + 3 * 2) and "Already" not in grown
    assert re.search(r"about \d+ s at the pace of earlier jobs", grown)
    (workspace / "cache" / "seconds.json").write_text('{"a": -1}')
    assert "unknown until" in plan(*words, "n_images=9")


def test_a_plan_lists_missing_files_with_the_commands_that_get_them(plan, workspace):
    words = ["model.fine.weights=there/fine.pth", "++model.fine.url=https://example.org/fine.pth"]
    printed = plan(*words)
    assert "curl -L --create-dirs -o there/fine.pth https://example.org/fine.pth" in printed
    assert count("gradients", printed) == 23
    printed = plan("dataset=image_folder", "dataset.root=nowhere", "n_images=null", "attack=bim")
    assert "dataset=image_folder: " in printed and "19 gradients per image" in printed
    words = ["dataset=cifar10", "dataset.root=nowhere", "model.coarse.weights=null"]
    printed = plan("-m", "attack=fgsm,bim", *words)
    assert "first: coarse." in printed and "downloads" in printed
    assert count("gradients", printed) == 23 * (1 + 19)
    printed = plan("-m", "attack=bim,mi", "hydra/launcher=processes")
    assert "unknown" not in printed  # no hours


NETWORK = """
from torch import linspace, nn

def build():
    linspace(0, 1, 2).tolist()  # no tensor on the meta device has values
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
"""


@pytest.mark.parametrize(
    "content, as_module",
    [
        ({"2.weight": torch.zeros(10, 3), "2.bias": torch.zeros(10)}, True),
        ({"2.weight": torch.zeros(10, 48)}, False),
        (torch.nn.Linear(1, 1), False),
    ],
)
def test_a_plan_refuses_a_weight_file_as_the_job_does(
    plan, run_job, workspace, capsys, content, as_module
):
    if as_module:
        (workspace / "net_code.py").write_text(NETWORK)
        file, network = workspace / "conf" / "model" / "coarse.yaml", "{_target_: net_code.build}"
        _, _, rest = file.read_text().partition("mean:")
        file.write_text(f"# @package model.coarse\nnetwork: {network}\nmean:{rest}")
        assert "refused" not in plan("attack=fgsm")
    torch.save(content, "others.pth")
    words = ["-m", "attack=fgsm,bim", "model.coarse.weights=others.pth"]
    printed = plan(*words, code=1)
    assert run_job(*words) == 2
    (told,) = re.findall("A job will fail: (.*)", printed)
    assert "others.pth" in told and told in capsys.readouterr().err


COUNTED = """
import torch

def two_gradients(model, images, labels, eps):
    for _ in range(2):
        images = images.detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(images), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
        images = (images + eps / 2 * gradient.sign()).clamp(0, 1)
    return images.detach()
"""


def test_a_plan_knows_gradients_that_an_earlier_job_has_counted(plan, run_job, workspace):
    own_attack(workspace, "own", "_target_: own_code.two_gradients", COUNTED)
    words = ["attack=own", "hydra.run.dir=out"]
    assert "1 job whose attack states no number" in plan(*words)
    assert run_job(*words, "n_images=10") == 0
    printed = plan(*words)
    assert count("gradients", printed) == 23 * 2 * 2 and "pace of earlier jobs" in printed
    assert count("gradients", plan(*words, "epsilon.grid=[8]", "source=fine")) == 23 * 2
    (workspace / "own_code.py").write_text(COUNTED.replace("range(2)", "range(3)"))
    assert "states no number" in plan(*words)


@pytest.mark.parametrize(
    ("varied", "runs"),
    [
        ("trainer.precision=32-true,bf16-mixed", 2),
        ("model.fine.channels=RGB,BGR", 1.5),  # `coarse` is the same network in both jobs
        ("attack=fgsm,mi", 1),
    ],
)
def test_a_plan_counts_clean_predictions_once_per_key(plan, varied, runs):
    words = ["-m", "epsilon.grid=[4]", "storage=float32", "targets=[coarse,fine]", "n_images=10"]
    attacked = 2 * 2 * 10  # in each of two jobs, on two targets
    assert count("predictions", plan(*words, varied)) == attacked + runs * 2 * 10


def test_a_stored_job_is_told_by_the_content_of_its_files(plan, run_job, workspace, tiny_weights):
    words = ["n_images=6", "epsilon.grid=[4]", "rerun=false"]
    own = copy(tiny_weights / "fine.safetensors", workspace / "own.safetensors")
    words.append(f"model.fine.weights={own}")
    assert run_job(*words, "hydra.run.dir=out") == 0
    utime(own, (1, 1))
    assert "Already stored" in plan(*words)
    save_file({name: 2 * value for name, value in load_file(own).items()}, own)
    assert "Already stored" not in plan(*words)


SEEDLESS = """
def blend(model, images, labels, eps):
    return (images + eps * (images.mean(0) - images).sign()).clamp(0, 1)
"""


@pytest.mark.parametrize(
    ("first", "then", "stored"),
    [
        ("cache.images_mb=0", "cache.images_mb=300", False),  # adversarial images are kept
        ("cache.images_mb=0 report.examples=1", "cache.images_mb=0 report.examples=5", False),
        ("attack=blend trainer.batch_size=6", "attack=blend trainer.batch_size=3", False),
        ("attack=blend trainer.batch_size=6", "attack=blend trainer.batch_size=6", True),
        ("trainer.batch_size=6", "trainer.batch_size=3", True),
    ],
)
def test_a_stored_job_needs_no_work(plan, run_job, workspace, first, then, stored):
    own_attack(workspace, "blend", "_target_: blend_code.blend", SEEDLESS)
    words = ["n_images=6", "epsilon.grid=[4]", "rerun=false"]
    assert run_job(*words, *first.split(), "hydra.run.dir=out") == 0
    assert ("Already stored" in plan(*words, *then.split())) == stored
