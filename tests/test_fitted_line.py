"""Attacks that fit a state to training images, from a command to tables and files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from src import attacks
from src.api.transfer import transfer
from src.artifacts.record import job_record
from src.attacks import TrainingImages
from src.cache.rows import FOLDER
from src.config.compose import compose_words
from src.config.read import read_job
from src.data import load_dataset
from src.data.cifar10_mini import CLASSES
from src.run.check_job import check_job, open_job
from src.run.data import DataSets
from tests.conftest import killed, own_attack
from tests.test_distributed import started_by_torchrun

UAP = ["attack=uap", "attack.fit_n_images=60", "attack.fit_batch=20", "rerun=false"]
ON_IMAGES = ["attack=uap", "attack.epochs=1", "attack.fit_batch=20", "epsilon.grid=[8]"]
ON_IMAGES += ["n_images=20", "rerun=false"]
DATA = {"_target_": "src.data.cifar10_mini.cifar10_mini"}


def states():
    files = Path("cache/fitted").glob("*.safetensors")
    return {file.name: str(load_file(file)) for file in files}


def success(folder):
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    return table[table["eps_255"] == 8].set_index(["target", "index"])["predicted"]


def fit_gradients(folder):
    return job_record(Path(folder)).fit_gradients


@pytest.mark.slow
def test_an_attack_is_fitted_once_for_each_budget_and_every_job_shows_the_gradients(
    workspace, run_job, printed_by
):
    text = printed_by(run_job, *UAP, "plan=only")[1]
    assert "Fitted at the first batch" in text and "within its job" in text
    assert not Path("cache/fitted").exists()
    assert run_job(*UAP, "hydra.run.dir=one") == 0
    first = states()
    assert len(first) == 2 and fit_gradients("one") == 2 * 3 * 60
    assert job_record(Path("one")).gradients == 0
    shutil.rmtree(Path("cache") / FOLDER)
    assert run_job(*UAP, "hydra.run.dir=two", "epsilon.grid=[0,0.5,4,8]") == 0
    assert len(states()) == 3 and first.items() <= states().items()
    assert success(Path("one")).equals(success(Path("two")))
    for grid, gradients in (("[8]", 180), ("[0.5,4,8]", 540)):  # all rows are stored
        assert run_job(*UAP, "hydra.run.dir=again", f"epsilon.grid={grid}") == 0
        assert fit_gradients("again") == gradients
    assert "Fitted" not in printed_by(run_job, *UAP, "epsilon.grid=[8]", "plan=only")[1]
    assert run_job(*UAP, "source=fine", "hydra.run.dir=three") == 0
    assert len(states()) == 3 + 2
    shutil.rmtree("cache/fitted")  # the rows stay, at an unknown cost
    assert run_job(*UAP, "hydra.run.dir=four") == 0 and fit_gradients("four") is None
    assert success(Path("four")).equals(success(Path("one"))) and not states()


@pytest.mark.slow
def test_jobs_of_other_steps_share_trained_weights(workspace, run_job):
    words = ["attack=lgv", "attack.fit_n_images=40", "attack.fit_batch=20", "attack.epochs=1"]
    words += ["source=coarse", "training.flip=false", "rerun=false"]
    for steps in (1, 2):
        assert run_job(*words, f"attack.steps={steps}", f"hydra.run.dir={steps}") == 0
    assert len(states()) == 1 and fit_gradients("1") == fit_gradients("2") == 40


SLOPE = """
import os, torch
from pathlib import Path
from torch.nn.functional import cross_entropy
def slope(model, images, labels, eps, seeds, *, fit_n_images=40, room=99, training_images):
    def fit():
        Path("fits", f"{os.getpid()}-{len(list(Path('fits').iterdir()))}").touch()
        total = 0
        for number, batch in enumerate(training_images.batches(0, 20)):
            if number and Path("fail").exists():
                exec(Path("fail").read_text())
            inputs = batch.images.requires_grad_()
            cross_entropy(model(inputs), batch.labels, reduction="sum").backward()
            total = total + inputs.grad.sum(0)
        return {"gradient": total}
    gradient = training_images.fitted(0, fit)["gradient"]
    if len(images) > room:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return (images + eps * gradient.sign()).clamp(0, 1)
"""


@pytest.fixture
def fits(workspace):
    """A function that counts the fits of `attack=slope`, a function with training images."""
    own_attack(workspace, "slope", "_target_: slope_code.slope\nroom: 99", SLOPE)
    (workspace / "fits").mkdir()
    return lambda: len([*Path("fits").iterdir()])


OWN = ["attack=slope", "rerun=false", "n_images=20", "trainer.batch_size=10"]


def test_a_function_is_fitted_at_its_first_batch_which_may_then_be_halved(run_job, fits):
    assert run_job(*OWN, "plan=only") == 0 and fits() == 0
    assert run_job(*OWN, "hydra.run.dir=one") == 0 and fits() == 1
    assert fit_gradients("one") == 40
    assert job_record(Path("one")).gradients == 0
    assert run_job(*OWN, "attack.room=4", "hydra.run.dir=halved") == 0 and fits() == 2
    assert job_record(Path("halved")).config["trainer"]["batch_size"] == 5
    assert success(Path("halved")).equals(success(Path("one")))


def test_a_fit_that_fails_ends_its_job_and_begins_again(run_job, fits, capfd):
    for code, said in (
        ("raise torch.OutOfMemoryError('CUDA out of memory.')", "fit needs more free memory"),
        ("raise KeyError('odd')", "attack=slope: KeyError: 'odd'"),
        ("import errno; raise OSError(errno.ENOSPC, 'No space left on device')", "No space left"),
    ):
        Path("fail").write_text(code)
        before = fits()
        assert run_job(*OWN) != 0 and fits() == before + 1 and not states()
        text = "".join(capfd.readouterr())
        assert said in text and "Traceback" not in text
    Path("fail").write_text("import signal; os.kill(os.getpid(), signal.SIGKILL)")
    killed(lambda: run_job(*OWN))
    Path("fail").unlink()
    Path("cache/fitted").rename("cache/locks")
    Path("cache/fitted").write_text("no folder")
    assert run_job(*OWN) != 0 and "cannot be written" in "".join(capfd.readouterr())
    Path("cache/fitted").unlink()
    assert run_job(*OWN, "hydra.run.dir=one") == 0 and len(states()) == 1
    assert run_job(*OWN, "rerun=true", "hydra.run.dir=two") == 0
    assert success(Path("one")).equals(success(Path("two")))


@pytest.mark.slow
def test_one_of_several_processes_fits_and_all_equal_one(workspace, run_job, fits):
    for name, words in (("uap", UAP), ("slope", OWN)):
        assert run_job(*words, f"hydra.run.dir={name}") == 0
    expected = states()
    shutil.rmtree("cache")
    ddp = ["trainer.strategy=ddp", "trainer.devices=2", "hydra.run.dir=many"]
    for name, *words in (("uap", *UAP), ("slope", *OWN), ("slope", *OWN, "rerun=true")):
        started_by_torchrun(run_job, [*words, *ddp], 2)
        assert success(Path("many")).equals(success(Path(name)))
        assert fit_gradients("many") == fit_gradients(name)
    assert states() == expected and fits() == 3


def save_images(place, count=40, split="train", names=CLASSES):
    """Write images to class folders, with paths in the order of the data; return their classes."""
    data, classes = load_dataset(split, DATA).subset(count), {}
    for number in range(len(data)):
        batch = data[number]
        label = int(batch.labels)
        file = place / names[label] / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(batch.images.permute(1, 2, 0).numpy()).save(file)
        classes[file.relative_to(place).as_posix()] = label
    return dict(sorted(classes.items()))


def opened(place, *words):
    """Return the images that a job is fitted on: their classes and target labels."""
    shown = ["dataset=cifar10_mini", "source=coarse", "targets=[coarse]"]
    fitted = f"attack.fit_images={place}"
    config = compose_words([*ON_IMAGES, fitted, *shown, *words], Path("conf"))
    sets = DataSets()
    return open_job(check_job(read_job(config, config.hydra), sets), sets)[1].fit_images


def test_class_folders_are_numbered_by_name(workspace):
    """Neither a list of training images nor its numbering is guessed at."""
    save_images(workspace / "train")
    save_images(workspace / "both" / "train")
    save_images(workspace / "both" / "val", 20, split="test")
    save_images(workspace / "other", names=["plane", "car", *CLASSES[2:]])
    classes = save_images(workspace / "images", 40, "test")
    rows = pd.DataFrame({"ImageId": [*classes], "TrueLabel": [*classes.values()]})
    rows.to_csv("images.csv", index=False)
    words = ["dataset=image_csv", "dataset.root=.", "dataset.first_label=0"]
    words += [f"dataset.class_names=[{','.join(CLASSES)}]", "dataset.num_classes=10"]
    expected = sorted(load_dataset("train", DATA).subset(40).image_digests)
    for place, more in (("train", []), ("both", []), ("train", words)):
        assert sorted(opened(place, *more).image_digests) == expected
    for place, told in {
        "other": "fit_images=other.*Name them alike",
        "null": "no training split. Set attack.fit_images=FOLDER",
        "images.csv": "not a folder with a folder of images per class",
        "nowhere": "not a folder",
    }.items():
        with pytest.raises(ValueError, match=told):
            opened(place, *words)
    words += ["attack.target_label=data", "dataset.csv=aims.csv"]
    rows[rows["TrueLabel"] != 3].assign(TargetClass=3).to_csv("aims.csv", index=False)
    assert {*opened("train", *words).target_labels} == {3}


@pytest.fixture
def classified():
    """A network, twenty images, and the classes that the network predicts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1176, 5)
    net, images = nn.Sequential(*layers).eval(), pictures(20, 0)
    return net, images, net(images / 255).argmax(1)


def pictures(count, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=random)


def confidences(net, images, labels, attack="uap", **words):
    words["progress_bar"] = False
    frame = transfer({"a": net}, {"a": net}, images, labels, attacks=attack, **words)
    return frame[frame["eps_255"] > 0].sort_values("index")["confidence"].to_numpy()


@pytest.mark.slow
def test_a_fit_takes_its_own_target_labels(classified):
    net, images, labels = classified
    train, classes, attack = pictures(12, 1), torch.arange(12) % 5, {"uap": {"epochs": 2}}
    aims, fitted = (labels + 1) % 5, (train, classes, (classes + 2) % 5)
    rows = confidences(net, images, labels, attack, target_labels=aims, fit_images=fitted)
    data = TrainingImages.of(train / 255, classes, fitted[2])
    words = {"targeted": True, "training_images": data, "epochs": 2}
    adversarial = attacks.uap(net, images / 255, aims, 8 / 255, **words)
    expected = net(adversarial).softmax(1).max(1).values.detach().numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_evaluated_pixels_are_refused_whatever_their_labels(classified, workspace, run_job, capfd):
    net, images, labels = classified
    others, aims = pictures(20, 1), (labels + 1) % 5
    others[7] = images[3]
    with pytest.raises(ValueError, match="Pass fit_images"):
        confidences(net, images, labels)
    for goal, fitted in ((None, [aims]), (aims, [labels, aims])):
        with pytest.raises(ValueError, match=r"1 of the evaluated images, such as image 3\."):
            confidences(net, images, labels, target_labels=goal, fit_images=(others, *fitted))
    save_images(workspace / "test", 20, "test")
    assert run_job(*ON_IMAGES, "attack.fit_images=test") != 0
    assert "20 of the evaluated images" in "".join(capfd.readouterr())


def test_a_damaged_fit_is_made_again(workspace, run_job, capfd):
    save_images(workspace / "train")
    assert run_job(*ON_IMAGES, "attack.fit_images=train", "hydra.run.dir=one") == 0
    before, (file,) = states(), Path("cache/fitted").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x80  # a sign
    file.write_bytes(content)
    shutil.rmtree(Path("cache") / FOLDER)
    words = ["attack.fit_images=train", "hydra.run.dir=two"]
    assert run_job(*ON_IMAGES, *words, "epsilon.grid=[8,4]") == 0
    assert "is damaged" in capfd.readouterr().out
    assert before.items() <= states().items()
    assert success(Path("one")).equals(success(Path("two")))
    assert run_job(*ON_IMAGES, *words, "rerun=true") == 0 and "Fitting" in capfd.readouterr().out
