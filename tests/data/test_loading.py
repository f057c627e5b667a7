"""`load_dataset` on the configurations in conf/dataset."""

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from src.data import class_names_of, load_dataset

CONF = Path(__file__).parents[2] / "conf" / "dataset"


def config_of(name, n_images=None, **changes):
    """Resolve conf/dataset/NAME.yaml as the primary configuration would."""
    whole = OmegaConf.create({"n_images": n_images, "seed": 0, "cache_dir": "/nonexistent"})
    whole.dataset = OmegaConf.load(CONF / f"{name}.yaml")
    OmegaConf.set_struct(whole, True)
    for key, value in changes.items():
        OmegaConf.update(whole, f"dataset.{key}", value)
    return OmegaConf.to_container(whole, resolve=True)["dataset"]


def write_classes(root, classes, images=3):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", (4, 4), (i,) * 3).save(root / name / f"{i}.png")
    return str(root)


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_has_the_common_keys(path):
    config = config_of(path.stem, n_images=7)
    assert config["name"] == path.stem
    assert (config["n_images"], config["seed"]) == (7, 0)
    assert {"loader", "root", "image_size", "num_classes", "class_names"} <= set(config)


def test_photos_from_the_configuration():
    dataset = load_dataset(config_of("photos", n_images=30), "test")
    assert (len(dataset), dataset.num_classes, dataset.image_size) == (30, 10, 32)
    assert np.bincount(dataset.labels).tolist() == [3] * 10


def test_training_takes_the_whole_split():
    config = config_of("photos", n_images=30)
    config["loader"]["n_train"] = 70
    assert len(load_dataset(config, "train")) == 70


def test_image_folder_from_the_configuration(tmp_path):
    root = write_classes(tmp_path, ["bee", "ant"])
    dataset = load_dataset(config_of("image_folder", root=root, image_size=2), "test")
    assert dataset.class_names == ("ant", "bee")
    assert dataset[0][0].shape == (3, 2, 2)


def test_image_csv_from_the_configuration(tmp_path):
    write_classes(tmp_path, ["images"])
    (tmp_path / "images.csv").write_text("ImageId,TrueLabel\n0,1\n2,1000\n")
    dataset = load_dataset(config_of("image_csv", root=str(tmp_path)), "test")
    assert dataset.num_classes == 1000
    assert [dataset.class_names[label] for label in dataset.labels] == ["tench", "toilet tissue"]


def test_new_names_in_the_order_of_the_folders(tmp_path):
    root = write_classes(tmp_path, ["n01", "n02"])
    config = config_of("image_folder", root=root, class_names=["zebra", "ape"])
    dataset = load_dataset(config, "test")
    assert dataset.class_names == ("zebra", "ape")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_names_that_are_folders_number_them(tmp_path):
    root = write_classes(tmp_path, ["ant", "cat"])
    names = ["dog", "cat", "cow", "ant"]
    dataset = load_dataset(
        config_of("image_folder", root=root, class_names=names, num_classes=4), "test"
    )
    assert dataset.class_names == tuple(names)
    assert dataset.labels.tolist() == [3, 3, 3, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 1}, "num_classes=1, but the data has 2 classes: ant, bee"),
        ({"num_classes": 5}, "num_classes=5, but there are 2 class names"),
        ({"class_names": ["one"]}, r"class_names holds 1 names for the 2 classes .*\(ant, bee\)"),
        ({"class_names": []}, "class_names is an empty list"),
        ({"class_names": "cifar"}, "class_names='cifar'"),
        ({"class_names": ["ant", "bee", "ant"]}, "'ant' more than once"),
        ({"root": None}, "dataset.root is not set"),
        ({"image_size": 0}, "image_size=0"),
        ({"n_images": 7}, "n_images=7 is not between 1 and 6"),
        ({"loader._target_": "src.data.nothing.here"}, "loader._target_='src.data.nothing.here'"),
        ({"loader._target_": "collections.UserDict"}, "returned UserDict, not ImageRecords"),
    ],
)
def test_wrong_configuration_is_refused(tmp_path, changes, message):
    config = config_of("image_folder", root=write_classes(tmp_path, ["ant", "bee"]))
    for key, value in changes.items():
        config = OmegaConf.to_container(OmegaConf.merge(config, nested(key, value)))
        if key == "root":
            config["loader"]["root"] = value
    with pytest.raises(ValueError, match=message):
        load_dataset(config, "test")


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def test_unknown_loader_key_is_refused(tmp_path):
    config = config_of("image_folder", root=write_classes(tmp_path, ["ant"]))
    config["loader"]["colour"] = "red"
    with pytest.raises(ValueError, match=r"does not fit .*image_folder: .*'colour'"):
        load_dataset(config, "test")


def test_missing_key_and_wrong_split_are_refused():
    config = config_of("photos")
    del config["num_classes"]
    with pytest.raises(ValueError, match="lacks the key"):
        load_dataset(config, "test")
    with pytest.raises(ValueError, match="split='val'"):
        load_dataset(config_of("photos"), "val")


def test_imagenet_names():
    names = class_names_of("imagenet")
    assert len(names) == 1000
    assert names[388] == "giant panda"
