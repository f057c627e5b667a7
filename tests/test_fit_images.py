"""Training images of fits: their classes, splits, target labels, keys and files."""

import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from src import attacks
from src.api.transfer import transfer
from src.data import load_dataset
from src.data.cifar10_mini import CLASSES
from src.run.check_job import check_job, open_job
from src.run.data import DataSets
from tests.config.test_settings import read
from tests.test_fitted_line import DATA, states, success

UAP = ["attack=uap", "attack.epochs=1", "attack.fit_batch=20", "epsilon.grid=[8]", "n_images=20"]
UAP += ["rerun=false"]
QUIET = {"progress_bar": False}


def save_images(place, count=40, split="train", names=CLASSES, skipped=()):
    """Write images to class folders, with paths in the order of the data; return their classes."""
    data, classes = load_dataset(split, DATA).subset(count), {}
    for number in range(len(data)):
        batch = data[number]
        label = int(batch.labels)
        if label not in skipped:
            file = place / names[label] / f"{number:04}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(batch.images.permute(1, 2, 0).numpy()).save(file)
            classes[file.relative_to(place).as_posix()] = label
    return dict(sorted(classes.items()))


def opened(place, *words):
    """Return the images that a job is fitted on: their classes and target labels."""
    fitted = f"attack.fit_images={place}"
    shown = ["dataset=cifar10_mini", "source=coarse", "targets=[coarse]"]
    settings = read(*UAP, fitted, *shown, *words, extra=Path("conf"))
    sets = DataSets()
    return open_job(check_job(settings, sets), sets)[1].fit_images


def same(one, two):
    """Tell whether two sets hold the same images with the same classes."""
    return sorted(one.image_digests) == sorted(two.image_digests)


def test_class_folders_are_numbered_by_name(workspace):
    save_images(workspace / "named")
    save_images(workspace / "both" / "train")
    save_images(workspace / "both" / "val", 20, split="test")
    save_images(workspace / "some", skipped=(0, 3))
    save_images(workspace / "other", names=["plane", "car", *CLASSES[2:]])
    save_images(workspace / "digits", names=[*map(str, range(10))])
    expected = load_dataset("train", DATA).subset(40)
    for place in ("named", "both"):
        assert same(opened(place), expected)
    assert {*opened("some").labels} == {1, 2, 4, 5, 6, 7, 8, 9}
    assert {*opened("some").image_digests} < {*expected.image_digests}
    for place in ("other", "digits"):
        with pytest.raises(ValueError, match=f"fit_images={place}.*Name them alike"):
            opened(place)


def test_images_of_a_list_need_a_folder_of_class_folders(workspace):
    """Neither a list of training images nor its numbering is guessed at."""
    save_images(workspace / "train")
    classes = save_images(workspace / "images", 40, "test")
    rows = pd.DataFrame({"ImageId": [*classes], "TrueLabel": [*classes.values()]})
    rows.to_csv("images.csv", index=False)
    words = ["dataset=image_csv", "dataset.root=.", "dataset.first_label=0"]
    words += [f"dataset.class_names=[{','.join(CLASSES)}]", "dataset.num_classes=10"]
    assert same(opened("train", *words), load_dataset("train", DATA).subset(40))
    for place, told in {
        "null": r"\(attack.fit_images=None\): .* no training split. Set attack.fit_images=FOLDER.",
        "images.csv": r".*images.csv\): this is not a folder with a folder of images per class.",
        "nowhere": r".*nowhere\): this is not a folder .*",
    }.items():
        with pytest.raises(ValueError, match=rf"^attack=uap is fitted on training images {told}$"):
            opened(place, *words)
    words += ["attack.target_label=data", "dataset.csv=aims.csv"]
    digests = set()
    for goal in (3, 7):
        rows[rows["TrueLabel"] != goal].assign(TargetClass=goal).to_csv("aims.csv", index=False)
        images = opened("train", *words)
        assert {*images.target_labels} == {goal}
        digests.add(images.digest())
    assert len(digests) == 2  # a part of the fit's key


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1176, 5)).eval()


def pictures(count, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=random)


def confidences(net, images, labels, attack="uap", **words):
    frame = transfer({"a": net}, {"a": net}, images, labels, attacks=attack, **words, **QUIET)
    return frame[frame["eps_255"] > 0].sort_values("index")["confidence"].to_numpy()


@pytest.mark.slow
def test_a_fit_takes_its_own_target_labels_whatever_the_evaluated_images(net):
    images, train = pictures(20, 0), pictures(12, 1)
    labels = net(images / 255).argmax(1)
    aims, attack = (labels + 1) % 5, {"uap": {"epochs": 2}}
    classes = torch.arange(12) % 5
    fitted = (train, classes, (classes + 2) % 5)
    rows = confidences(net, images, labels, attack, target_labels=aims, fit_images=fitted)
    order = torch.arange(19, -1, -1)
    turned = confidences(
        net, images[order], labels[order], attack, target_labels=aims[order], fit_images=fitted
    )
    np.testing.assert_array_equal(turned[order.numpy()], rows)
    states = attacks.uap.fit(
        net, train / 255, fitted[2], 8 / 255, epochs=2, targeted=True, true_labels=classes
    )
    adversarial = attacks.uap(net, images / 255, aims, 8 / 255, states=states, targeted=True)
    expected = net(adversarial).softmax(1).max(1).values.detach().numpy()
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_one_class_for_all_images_is_the_target_of_the_fit(net):
    images, train = pictures(20, 0), pictures(40, 1)
    labels, classes = net(images / 255).argmax(1), torch.arange(40) % 5
    images, labels = images[labels != 3], labels[labels != 3]
    attack, aims = {"uap": {"epochs": 1}}, torch.full((len(labels),), 3)
    one = confidences(net, images, labels, attack, target_labels=aims, fit_images=(train, classes))
    stated = (train, classes, torch.full((40,), 3))
    two = confidences(net, images, labels, attack, target_labels=aims, fit_images=stated)
    np.testing.assert_array_equal(one, two)


@pytest.mark.slow
def test_unknown_target_labels_of_training_images_are_refused_where_they_are_needed(net):
    images, train = pictures(20, 0), pictures(12, 1)
    labels = net(images / 255).argmax(1)
    words = {"target_labels": (labels + 1) % 5, "fit_images": (train, torch.arange(12) % 5)}
    with pytest.raises(ValueError, match=r"attack=uap .* without target labels"):
        confidences(net, images, labels, **words)
    lgv = {"lgv": {"epochs": 1, "steps": 2, "fit_batch": 4}}  # it trains on the true classes
    assert len(confidences(net, images, labels, lgv, **words)) == 20
    for rule in ("random", "next", "least_likely"):
        assert len(confidences(net, images, labels, **words | {"target_labels": rule})) == 20


def test_evaluated_pixels_are_refused_whatever_their_labels(net, workspace, run_job, capfd):
    images = pictures(12, 0)
    labels = net(images / 255).argmax(1)
    others = pictures(12, 1)
    others[7] = images[3]
    aims = (labels + 1) % 5
    with pytest.raises(ValueError, match=r"attack=uap is fitted .* Pass fit_images\."):
        confidences(net, images, labels)
    for goal, fitted in {
        (None, (others, labels)),
        (None, (others, (labels + 2) % 5)),
        (aims, (others, labels, aims)),
    }:
        with pytest.raises(ValueError, match=r"1 of the evaluated images, such as image 3\."):
            confidences(net, images, labels, target_labels=goal, fit_images=fitted)
    save_images(workspace / "images", 20, "test")
    assert run_job(*UAP, "attack.fit_images=images") != 0
    assert "20 of the evaluated images" in "".join(capfd.readouterr())


def test_pixels_are_compared_as_stored_and_as_prepared(workspace, run_job, capfd):
    """The evaluated images are resized; the training images are what they become."""
    classes = save_images(workspace / "test", 20, "test")
    prepared = load_dataset(
        "test", {"_target_": "src.data.image_files.image_folder", "root": "test"}, image_size=16
    )
    for number in range(len(prepared)):
        place = workspace / "small" / [*classes][number]
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(prepared[number].images.permute(1, 2, 0).numpy()).save(place)
    words = ["dataset=image_folder", "dataset.root=test", "dataset.image_size=16"]
    words += ["model.coarse.input_size=32", "model.fine.input_size=32"]
    assert run_job(*UAP, *words, "attack.fit_images=small") != 0
    assert "20 of the evaluated images" in "".join(capfd.readouterr())


def damage(file, change):
    """Change the bytes of a file's tensors."""
    content = bytearray(file.read_bytes())
    start = 8 + struct.unpack("<Q", bytes(content[:8]))[0]
    change(content, start)
    file.write_bytes(content)


def flip_a_sign(content, start):
    content[-1] ^= 0x80


def truncate(content, start):
    del content[start + 10 :]


@pytest.mark.parametrize(
    "change",
    [
        truncate,
        pytest.param(flip_a_sign, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_fit_is_made_again(workspace, run_job, capfd, change):
    save_images(workspace / "train")
    assert run_job(*UAP, "attack.fit_images=train", "hydra.run.dir=one") == 0
    before, (file,) = states(), Path("cache/fitted").glob("*.safetensors")
    damage(file, change)
    words = ["attack.fit_images=train", "hydra.run.dir=two"]
    assert run_job(*UAP, *words, "epsilon.grid=[8,4]") == 0
    assert "is damaged" in capfd.readouterr().out
    assert before.items() <= states().items()
    assert success(Path("one")).equals(success(Path("two")))
    assert run_job(*UAP, *words, "rerun=true") == 0 and "Fitting" in capfd.readouterr().out


@pytest.mark.slow
def test_a_fit_of_another_key_is_not_believed(workspace, run_job):
    save_images(workspace / "train")
    fitted = ["attack.fit_images=train"]
    assert run_job(*UAP, *fitted, "seed=0") == run_job(*UAP, *fitted, "seed=1") == 0
    before = states()
    one, two = (Path("cache/fitted") / name for name in before)
    two.write_bytes(one.read_bytes())
    for seed in (0, 1):
        assert run_job(*UAP, *fitted, f"seed={seed}", "n_images=21") == 0
    assert states() == before


def test_files_are_read_again_and_modules_stay_as_they_are(net, tmp_path):
    images = pictures(8, 0)
    labels = net(images / 255).argmax(1)
    for level in (8, -8):
        np.save(tmp_path / "p.npy", np.full((3, 16, 16), level / 255, np.float32))
        attack = {"uap": {"file": str(tmp_path / "p.npy")}}
        expected = net((images / 255 + level / 255).clamp(0, 1)).softmax(1).max(1).values
        rows = confidences(net, images, labels, attack)
        np.testing.assert_allclose(rows, expected.detach().numpy(), atol=1e-6)
    module = nn.Conv2d(3, 3, 1).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    torch.save(nn.Conv2d(3, 3, 1).state_dict(), tmp_path / "a.pt")
    words = {"network": module, "file": str(tmp_path / "a.pt")}
    attacks.generator(net, images / 255, labels, 8 / 255, **words)
    assert module.training and all(value.requires_grad for value in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
