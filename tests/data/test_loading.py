"""`load_dataset` on the configurations in conf/dataset, and on classes of torchvision's."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from src.data import LabelledImages, load_dataset

CONF = Path(__file__).parents[2] / "conf" / "dataset"
COMMON = ("n_images", "seed", "image_size", "num_classes", "class_names")


def load(name, split="test", **changes):
    """Load what conf/dataset/NAME.yaml describes, with other values for some keys."""
    given = {"n_images": None, "seed": 0, **changes}
    whole = OmegaConf.create()
    whole.dataset = OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), given)
    source = OmegaConf.to_container(whole, resolve=True)["dataset"]
    assert source.pop("name") == name
    return load_dataset(split, source, **{key: source.pop(key) for key in COMMON})


def downloaded(split, download):
    """A data set of one grey image that needs no download."""
    return LabelledImages([np.zeros((8, 8, 3), np.uint8)], np.array([0]), ("a",))


def test_images_that_are_there_need_no_lock_for_their_download(tmp_path):
    (tmp_path / "cache").write_text("no folder can be made here")
    source = {"_target_": f"{__name__}.downloaded", "download": True}
    assert len(load_dataset("test", source, lock_folder=tmp_path / "cache" / "images")) == 1


def test_training_takes_all_and_the_test_a_balanced_subset():
    dataset = load("cifar10_mini", n_images=30)
    assert (len(dataset), dataset.num_classes, dataset.image_size) == (30, 10, 32)
    assert np.bincount(dataset.labels).tolist() == [3] * 10
    assert len(load("cifar10_mini", "train", n_images=30, n_train=70)) == 70


def test_image_csv_has_the_names_of_imagenet(tmp_path, write_classes):
    write_classes(tmp_path, ["images"], images=3)
    (tmp_path / "images.csv").write_text("ImageId,TrueLabel\n0,1\n1,389\n2,1000\n")
    dataset = load("image_csv", root=str(tmp_path))
    names = [dataset.class_names[label] for label in dataset.labels]
    assert names == ["tench", "giant panda", "toilet tissue"] and dataset.num_classes == 1000
    plain = load("image_csv", root=str(tmp_path), num_classes=None, class_names=None)
    assert plain.class_names == tuple(map(str, range(1000)))


def test_class_names_rename_the_folders(tmp_path, write_classes):
    root = str(write_classes(tmp_path, ["n01", "n02"]))
    dataset = load("image_folder", root=root, class_names=["zebra", "ape"], num_classes=2)
    assert dataset.class_names == ("zebra", "ape") and dataset.labels.tolist() == [0, 0, 1, 1]


def test_folders_of_some_classes_are_numbered_by_the_names_of_all(tmp_path, write_classes):
    root = str(write_classes(tmp_path, ["ape", "zebra"], images=2))
    every = ["zebra", "bee", "ape"]
    dataset = load("image_folder", root=root, class_names=every)
    assert dataset.class_names == tuple(every) and dataset.labels.tolist() == [2, 2, 0, 0]
    assert dataset[:].labels.tolist() == [2, 2, 0, 0]
    assert len({dataset.digest(), load("image_folder", root=root).digest()}) == 2
    with pytest.raises(ValueError, match="class_names lists ape twice"):
        load("image_folder", root=root, class_names=["ape", *every])


def test_the_split_is_passed_as_torchvision_takes_it(monkeypatch):
    calls = []

    class Own:
        targets, classes = [0, 1], ["x", "y"]

        def __init__(self, root, train=True):
            calls.append((root, train))

        def __getitem__(self, position):
            return np.full((4, 4, 3), position, dtype=np.uint8), self.targets[position]

    monkeypatch.setattr("torchvision.datasets.Own", Own, raising=False)
    for split in ("train", "test"):
        dataset = load_dataset(split, {"_target_": "torchvision.datasets.Own", "root": "here"})
    assert calls == [("here", True), ("here", False)]
    assert dataset.class_names == ("x", "y")
    assert dataset[[1]].images.unique().tolist() == [1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 5}, "num_classes=5"),
        ({"class_names": ["one"]}, r"class_names=\['one'\] .*\(ant, bee, "),
        ({"class_names": ["bee", "wasp"]}, "lacks ant, and has bee in another place"),
        ({"root": None}, r"dataset\.root is not set"),
        ({"_target_": "src.data.nothing.here"}, r"src\.data\.nothing\.here"),
        ({"_target_": "builtins.dict"}, "targets"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path, write_classes, changes, message):
    root = str(write_classes(tmp_path, ["ant", "bee"], images=3))
    with pytest.raises(ValueError, match=message) as caught:
        load("image_folder", **({"root": root} | changes))
    assert "\n" not in str(caught.value)
