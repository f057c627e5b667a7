"""Training images of fits: their classes, splits, target labels, keys and files."""

import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from src import attacks
from src.api.transfer import transfer
from src.data import load_dataset
from src.data.cifar10_mini import CLASSES
from src.run.check_job import check_job
from src.run.data import DataSets, open_data
from tests.config.test_settings import read
from tests.test_fitted_line import DATA, states, success

UAP = ["attack=uap", "attack.epochs=1", "attack.fit_batch=20", "epsilon.grid=[8]", "n_images=20"]
UAP += ["rerun=false"]
NAMED = f"dataset.class_names=[{','.join(CLASSES)}]"
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


def write_csv(path, classes, first=0, **columns):
    rows = {"ImageId": [*classes], "TrueLabel": [label + first for label in classes.values()]}
    pd.DataFrame({**rows, **columns}).to_csv(path, index=False)


def opened(place, *words):
    """Return the images that a job is fitted on: their classes and target labels."""
    fitted = f"attack.fit_images={place}"
    shown = ["dataset=cifar10_mini", "source=coarse", "targets=[coarse]"]
    settings = read(*UAP, fitted, *shown, *words, extra=Path("conf"))
    sets = DataSets()
    images = open_data(check_job(settings, sets), sets)[1].fit_images
    assert images is not None and images.num_classes == 10
    return images


def same(one, two):
    """Tell whether two sets hold the same images with the same classes."""
    return sorted(one.image_digests) == sorted(two.image_digests)


def test_class_folders_are_numbered_by_name(workspace):
    save_images(workspace / "named")
    save_images(workspace / "digits", names=[*map(str, range(10))])
    save_images(workspace / "some", skipped=(0, 3))
    save_images(workspace / "other", names=["plane", "car", *CLASSES[2:]])
    save_images(workspace / "from1", names=[*map(str, range(1, 11))], skipped=(9,))
    expected = load_dataset("train", DATA).subset(40)
    for place in ("named", "digits"):
        assert same(opened(place), expected)
    assert {*opened("some").labels} == {1, 2, 4, 5, 6, 7, 8, 9}
    assert {*opened("some").image_digests} < {*expected.image_digests}
    for place in ("other", "from1"):
        with pytest.raises(ValueError, match=f"fit_images={place}.*Name them alike"):
            opened(place)


@pytest.mark.slow
def test_the_split_train_is_read(workspace):
    save_images(workspace / "both" / "train", 40)
    save_images(workspace / "both" / "val", 20, split="test")
    assert same(opened("both"), opened("both/train")) and len(opened("both")) == 40


@pytest.mark.slow
def test_the_first_class_of_a_csv_is_known_or_asked_for(workspace):
    classes = save_images(workspace / "images")
    expected = load_dataset("train", DATA).subset(40)
    write_csv("zero.csv", classes)
    write_csv("one.csv", classes, first=1)
    for place, *words in (["zero.csv"], ["one.csv"], ["zero.csv", "attack.fit_first_label=0"]):
        assert same(opened(place, *words), expected)
    with pytest.raises(ValueError, match="TrueLabel='0'"):
        opened("zero.csv", "attack.fit_first_label=1")
    some = {name: label for name, label in classes.items() if label not in (0, 9)}
    for first in (0, 1):
        write_csv(f"some{first}.csv", some, first)
        with pytest.raises(ValueError, match=r"from 0 or from 1\. Set attack\.fit_first_label"):
            opened(f"some{first}.csv")
        images = opened(f"some{first}.csv", f"attack.fit_first_label={first}")
        assert {*images.image_digests} < {*expected.image_digests} and len(images) == len(some)
    write_csv("far.csv", classes, first=5)
    with pytest.raises(ValueError, match=r"labels have 1\d, which is not between 0 and 9"):
        opened("far.csv")


def test_columns_and_numbering_are_those_of_the_data_set(workspace):
    """The evaluated images come from a CSV, and so do the training images."""
    for split, count in {"train": 40, "test": 20}.items():
        classes = save_images(workspace / split / "pictures", count, split)
        rows = {"file": [*classes], "class": [*classes.values()]}
        pd.DataFrame(rows).to_csv(workspace / split / "list.csv", index=False)
    dataset = ["dataset=image_csv", "dataset.root=test", "dataset.csv=list.csv", NAMED]
    dataset += ["dataset.folder=pictures", "dataset.id_column=file", "dataset.label_column=class"]
    dataset += ["dataset.first_label=0", "dataset.num_classes=10"]
    assert same(opened("train/list.csv", *dataset), opened("train/pictures", *dataset))


@pytest.mark.slow
def test_target_labels_are_those_of_the_csv_and_in_the_key(workspace, run_job):
    classes = save_images(workspace / "test" / "images", 20, "test")
    train = save_images(workspace / "train" / "images")
    for goal in (3, 7):
        aims = [goal if label != goal else goal + 1 for label in classes.values()]
        write_csv(f"test/t{goal}.csv", classes, TargetClass=aims)
        write_csv(f"train/t{goal}.csv", train, TargetClass=goal)
    write_csv("train/none.csv", train)
    shared = ["dataset=image_csv", "dataset.root=test", "dataset.first_label=0", NAMED]
    shared += ["attack.target_label=data", "dataset.num_classes=10"]
    images = opened("train/t3.csv", *shared, "dataset.csv=t7.csv")
    assert {*images.target_labels} == {3}
    with pytest.raises(ValueError, match="without target labels"):
        opened("train/none.csv", *shared, "dataset.csv=t3.csv")
    made = []
    for goal in (3, 7):
        words = [f"attack.fit_images=train/t{goal}.csv", "dataset.csv=t3.csv"]
        assert run_job(*UAP, *shared, *words) == 0
        made.append(states())
    assert len(made[1]) == 2 and len({*made[1].values()}) == 2


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
    for goal, fitted in {
        (None, (others, labels)),
        (None, (others, (labels + 2) % 5)),
        (aims, (others, labels, aims)),
    }:
        with pytest.raises(ValueError, match=r"1 of the evaluated images, such as image 3\."):
            confidences(net, images, labels, target_labels=goal, fit_images=fitted)
    classes = save_images(workspace / "images", 20, "test")
    aims = [(label + 1) % 10 for label in classes.values()]
    write_csv("test.csv", {name: (label + 5) % 10 for name, label in classes.items()}, 1)
    write_csv("aims.csv", classes, TargetClass=aims)
    for place in ("test.csv", "aims.csv"):
        assert run_job(*UAP, f"attack.fit_images={place}") != 0
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


def rename_a_tensor(content, start):
    header = content[8:start].replace(b"perturbation", b"perturbatiom")
    content[8:start] = header


@pytest.mark.parametrize(
    "change",
    [
        truncate,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (flip_a_sign, rename_a_tensor)),
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


@pytest.mark.slow
def test_rerun_fits_again(workspace, run_job):
    save_images(workspace / "train")
    assert run_job(*UAP, "attack.fit_images=train") == 0
    before, (file,) = states(), Path("cache/fitted").glob("*.safetensors")
    wrong = load_file(file)  # a valid file with other numbers, as if written by an older version
    wrong["perturbation"] = -wrong["perturbation"]
    metadata = json.loads(file.read_bytes()[8 : 8 + struct.unpack("<Q", file.read_bytes()[:8])[0]])
    save_file(wrong, file, metadata["__metadata__"])
    assert run_job(*UAP, "attack.fit_images=train", "rerun=true") == 0
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
    made = []
    for seed, name in ((1, "a"), (2, "b"), (1, "a")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            torch.save(nn.Conv2d(3, 3, 1).state_dict(), tmp_path / f"{name}.pt")
        words = {"network": module, "file": str(tmp_path / f"{name}.pt")}
        made.append(attacks.generator(net, images / 255, labels, 8 / 255, **words))
    assert torch.equal(made[0], made[2]) and not torch.equal(made[0], made[1])
    attacks.generator(net, images / 255, labels, 8 / 255, network=module)
    assert module.training and all(value.requires_grad for value in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
