"""What a command takes, printed before its first job, against what it took."""

import json
import re
import shutil

import pyarrow.parquet as parquet
import pytest
import torch

from src.artifacts.record import job_record
from src.models import PixelClassifier


@pytest.fixture
def plan(run_job, printed_by):
    """A function that plans a command, and returns the lines it prints."""

    def run(*words, exits=0):
        code, printed = printed_by(run_job, *words, "plan=only")
        assert code == exits, printed
        return printed

    return run


def count_rows(folder):
    """Number of stored predictions, of clean and adversarial images."""
    files = (folder / "cache").glob("rows-*/*/*/*.parquet")
    named = [file for file in files if file.parent.name in ("clean images", "float32")]
    return sum(parquet.read_metadata(file).num_rows for file in named)


def count(name, printed):
    (number,) = re.findall(rf"Plan: .*?([\d,]+) {name}", printed)
    return int(number.replace(",", ""))


@pytest.mark.slow
def test_a_plan_computes_nothing_and_states_what_the_command_takes(plan, run_job, workspace):
    words = ["-m", "attack=bim,mi", "attack.steps=3", "rerun=false", "hydra.sweep.dir=out"]
    printed = plan(*words)
    assert {path.name for path in workspace.iterdir()} == {"conf", "cache"}
    assert [path.name for path in (workspace / "cache").iterdir()] == ["speeds.json"]
    assert count("gradients", printed) == 2 * 23 * (1 + 2 * 2)
    # Clean images once for both jobs; one or two storage formats have the same logits.
    assert count("predictions", printed) == 2 * 23 + 2 * 2 * 2 * 23
    assert run_job(*words) == 0
    records = [job_record(folder) for folder in sorted((workspace / "out").glob("[0-9]-*"))]
    assert sum(record.gradients for record in records) == 2 * 23 * (1 + 2 * 2)
    again = plan(*words)
    assert count("gradients", again) == count("predictions", again) == 0
    assert "all rows of 2 jobs." in again
    grown = plan(*words, "epsilon.grid=[0,0.5,2,8]")
    assert count("gradients", grown) == 2 * 23 * (1 + 2)


@pytest.mark.slow
def test_a_plan_states_what_the_job_then_computes(plan, run_job, workspace):
    words = ["attack=bim", "attack.steps=3", "rerun=false", "hydra.run.dir=out"]

    def compare(*more):
        planned, before = plan(*words, *more), count_rows(workspace)
        assert run_job(*words, *more) == 0
        gradients = count("gradients", planned)
        assert job_record(workspace / "out").gradients == gradients
        assert count_rows(workspace) - before == count("predictions", planned)
        return gradients, count("predictions", planned)

    assert compare() == (23 * 5, 23 * (2 + 2 * 2))
    images, predictions = compare("n_images=40")  # not all of the 23 need be among them
    assert 17 * 5 <= images <= 23 * 5 and predictions == images // 5 * 6
    assert compare("epsilon.grid=[0,0.5,2,8]") == (23 * 2 + 23, 23 * 2)
    for table in ("float32", "images"):  # predictions of both targets, and adversarial images
        for folder in (workspace / "cache").glob(f"rows-*/*/{table}"):
            shutil.rmtree(folder)
    again, predictions = compare()
    assert again > 0 and predictions == 23 * 2 * 2
    assert compare() == (0, 0)
    printed = plan(*words, "rerun=true")
    assert count("gradients", printed) == 23 * 5 and count("predictions", printed) == 23 * 6


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


def test_a_command_that_takes_too_long_is_refused_before_it_begins(run_job, workspace, capsys):
    assert run_job("hydra.run.dir=out", "plan.max_hours=1e-6") == 2
    said = capsys.readouterr().err
    assert "plan.max_hours" in said and "fits" not in said and not (workspace / "out").exists()
    assert run_job("hydra.run.dir=out", "plan.max_hours=100") == 0


def test_a_plan_lists_missing_files_with_the_commands_that_get_them(plan, workspace):
    words = ["model.fine.weights=there/fine.pth", "++model.fine.url=https://example.org/fine.pth"]
    printed = plan(*words)
    assert "curl -L --create-dirs -o there/fine.pth https://example.org/fine.pth" in printed
    assert count("gradients", printed) == 23
    printed = plan("dataset=image_folder", "dataset.root=nowhere", "n_images=null", "attack=bim")
    assert "dataset=image_folder: " in printed and "19 gradients per image" in printed
    words = ["dataset=torchvision", "dataset.name=SVHN", "dataset.root=nowhere", "n_images=null"]
    printed = plan("-m", "attack=fgsm,bim", *words, "model.coarse.weights=null")
    assert "Trained on first use: coarse." in printed and "dataset=SVHN: " in printed


@pytest.mark.slow
@pytest.mark.parametrize("dataset", [["cifar10"], ["torchvision", "dataset.name=CIFAR100"]])
def test_a_plan_knows_the_sizes_of_published_images(plan, workspace, dataset):
    words = [f"dataset={dataset[0]}", *dataset[1:], "n_images=null", "model.coarse.weights=null"]
    words += ["model.fine.weights=null", "dataset.root=nowhere", "++dataset.download=true"]
    classes = 100 if "torchvision" in dataset else 10
    words += [
        f"model.{name}.network._args_.2.out_features={classes}" for name in ("coarse", "fine")
    ]
    printed = plan("-m", "attack=fgsm,bim", *words, "training.epochs=7", "plan.tflops=1e-6")
    assert "not in nowhere; the command downloads it" in printed and "refused" not in printed
    assert re.search(r"coarse \(50,000 images, 7 epochs, [\d.e-]+ TFLOP, [^)]+\)", printed)
    assert "2 jobs, 10,000 images" in printed and "about" in printed
    assert count("gradients", printed) == 10_000 * (1 + 1 + 2 * 9)
    assert not any((workspace / "cache").iterdir())
    assert {path.name for path in workspace.iterdir()} == {"conf", "cache"}


def test_fits_are_planned_without_images(plan):
    printed = plan("attack=uap", "dataset=cifar10", "n_images=null", "plan.tflops=1e-6")
    assert "uap coarse" in printed.partition("Trainings and fits: ")[2] and "refused" not in printed


@pytest.mark.slow
def test_hours_follow_from_operations_and_a_stated_speed(plan, workspace):
    printed = plan("attack=bim", "plan.tflops=1e-12")
    coarse, fine = 2 * 10 * 3 * 4 * 4, 2 * 10 * 3 * 8 * 8  # products and sums of the linear layers
    flop = 23 * (1 + 2 * 9) * 2 * coarse + 23 * (1 + 2) * (coarse + fine)
    assert f"{float(f'{flop:.3g}') / 1e12:.3g} TFLOP" in printed
    hours = flop / 3600
    ((stated,),) = [re.findall(r"about ([\d,]+) h", printed)]
    assert float(stated) == pytest.approx(hours, abs=1) and "at 1e-12 TFLOP/s" in printed
    elsewhere = plan("-m", "attack=bim,mi", "plan.tflops=1e-12", "hydra/launcher=processes")
    assert "at 1e-12 TFLOP/s" in elsewhere
    assert not any((workspace / "cache").iterdir())  # nothing is measured


def test_jobs_that_run_elsewhere_have_gradients_alone(plan):
    printed = plan("-m", "attack=bim,mi", "attack.steps=3", "hydra/launcher=processes")
    assert count("gradients", printed) == 2 * 23 * 5 and "about" not in printed


@pytest.mark.slow
def test_a_plan_lists_trainings_once_and_jobs_that_cannot_run(plan, workspace):
    words = ["model.coarse.weights=null", "training.n_images=500", "training.epochs=2"]
    printed = plan("-m", "attack=fgsm,bim", *words)
    assert len(re.findall(r"coarse \(500 images, 2 epochs, [\d.e-]+ TFLOP, \d+ s\)", printed)) == 1
    assert not (workspace / "cache" / "checkpoints").exists()
    printed = plan("model.fine.mean=null", exits=1)
    assert "refused: model fine: mean or std is null" in printed


@pytest.mark.slow
def test_images_that_are_attacked_again_are_planned(plan, run_job):
    words = ["attack=bim", "attack.steps=3", "rerun=false", "report.examples=0"]
    words += ["cache.images_mb=0", "hydra.run.dir=out"]
    assert run_job(*words) == 0
    assert count("gradients", plan(*words)) == 0
    assert count("gradients", plan(*words, "controls=true")) == 23 * (1 + 2 * 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm", ["model.timm.network.model_name=resnet10t.c3_in1k"]),
        pytest.param(
            "torchvision", ["model.torchvision.network.name=squeezenet1_1"], marks=pytest.mark.slow
        ),
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
    assert f"model {name}: weights" in printed and "refused" not in printed


@pytest.mark.slow
def test_weights_of_an_installed_package_are_no_download(plan):
    words = ["targets=[coarse,efficientnet_lite0]", "n_images=10"]
    printed = plan(*words, "model.efficientnet_lite0.network.num_classes=10")
    assert "Plan: 1 job" in printed and "efficientnet_lite0" not in printed
