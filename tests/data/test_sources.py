"""Data sets by name: those of torchvision, CIFAR-10's images, and what conf/dataset describes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from scipy.io import savemat

from src.data import load_dataset
from src.data.cifar10_mini import cifar10_mini

CONF = Path(__file__).parents[2] / "conf" / "dataset"
COMMON = ("n_images", "seed", "image_size", "num_classes", "class_names")
SPLITS = ("train", "test")


def cifar(folder):
    folder.mkdir()
    pixels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    fine = folder.name == "cifar-100-python"
    files = SPLITS if fine else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for file in files:
        rows = {"data": pixels, "fine_labels" if fine else "labels": [1, 0]}
        (folder / file).write_bytes(pickle.dumps(rows))
    key, meta = ("fine_label_names", "meta") if fine else ("label_names", "batches.meta")
    (folder / meta).write_bytes(pickle.dumps({key: ["ant", "bee"]}))


DIGITS = np.arange(32 * 32 * 3 * 2, dtype=np.uint8).reshape(32, 32, 3, 2)


def svhn(root):
    for split in SPLITS:
        savemat(root / f"{split}_32x32.mat", {"X": DIGITS, "y": np.array([[9], [10]])})


def flowers(folder):
    (folder / "jpg").mkdir(parents=True)
    for number in (1, 2):
        size = (40, 30 + number)
        Image.new("RGB", size, (number,) * 3).save(folder / "jpg" / f"image_0000{number}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": [[77, 1]]})
    savemat(folder / "setid.mat", {"trnid": [[1, 2]], "tstid": [[1, 2]]})


def imagenette(folder):
    for place in ("train/n01440764", "train/n02102040", "val/n01440764", "val/n02102040"):
        (folder / place).mkdir(parents=True)
        Image.new("RGB", (40, 30)).save(folder / place / "a.jpeg", format="JPEG")


LAYOUTS = {
    "CIFAR10": (cifar, "cifar-10-batches-py", ("bee", "ant")),
    "CIFAR100": (cifar, "cifar-100-python", ("bee", "ant")),
    "SVHN": (svhn, "", ("nine", "zero")),
    "Flowers102": (flowers, "flowers-102", ("passion flower", "pink primrose")),
    "Imagenette": (imagenette, "imagenette2", ("tench", "English springer")),
}


def of_torchvision(split, name, root, **options):
    source = {"_target_": "src.data.library_datasets.torchvision_dataset", "kind": name}
    source |= {"root": str(root), "download": False}
    return load_dataset(split, source, lock_folder=root / "locks", **options)


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_are_read_as_torchvision_keeps_them(name, tmp_path, monkeypatch):
    """The invariants of each data set of torchvision."""
    for module in ("cifar", "svhn", "flowers102"):  # other checksums than the published
        place = f"torchvision.datasets.{module}.check_integrity"
        monkeypatch.setattr(place, lambda path, _: path is not None)
    write, place, classes = LAYOUTS[name]
    write(tmp_path / place)
    large = {"image_size": 16} if name in ("Flowers102", "Imagenette") else {}
    for split in SPLITS:
        images = of_torchvision(split, name, tmp_path, **large)
        names = [images.class_names[label] for label in images[:].labels]
        assert tuple(names[:2]) == classes
        assert images[:].images.shape[2] == images.image_size
    if name == "SVHN":
        assert np.array_equal(images[:].images.numpy(), DIGITS.transpose(3, 2, 0, 1))
    if large:
        with pytest.raises(ValueError, match=r"set dataset\.image_size"):
            of_torchvision("test", name, tmp_path)[:]


def load(name, split="test", **changes):
    """Load what conf/dataset/NAME.yaml describes, with other values for some keys."""
    given = {"n_images": None, "seed": 0, **changes}
    whole = OmegaConf.create()
    whole.dataset = OmegaConf.merge(OmegaConf.load(CONF / f"{name}.yaml"), given)
    source = OmegaConf.to_container(whole, resolve=True)["dataset"]
    assert source.pop("name") == name
    return load_dataset(split, source, **{key: source.pop(key) for key in COMMON})


def test_training_takes_all_and_the_test_a_balanced_subset():
    dataset = load("cifar10_mini", n_images=30)
    assert (len(dataset), dataset.num_classes, dataset.image_size) == (30, 10, 32)
    assert np.bincount(dataset.labels).tolist() == [3] * 10
    assert len(load("cifar10_mini", "train", n_images=30, n_train=70)) == 70


def test_class_names_rename_the_folders_or_number_them(tmp_path, write_classes):
    root = str(write_classes(tmp_path, ["ape", "zebra"]))
    dataset = load("image_folder", root=root, class_names=["cow", "bee"], num_classes=2)
    assert dataset.class_names == ("cow", "bee") and dataset.labels.tolist() == [0, 0, 1, 1]
    every = ["zebra", "bee", "ape"]
    dataset = load("image_folder", root=root, class_names=every)
    assert dataset.class_names == tuple(every)
    assert dataset[:].labels.tolist() == dataset.labels.tolist() == [2, 2, 0, 0]
    assert dataset.digest() != load("image_folder", root=root).digest()


class Own:
    """A data set with an argument `train`, as torchvision's have."""

    targets, classes = (0, 1), ("x", "y")

    def __init__(self, root, train=True):
        self.grey = 10 * train

    def __getitem__(self, position):
        return np.full((4, 4, 3), self.grey + position, dtype=np.uint8), self.targets[position]


def test_the_split_is_passed_as_torchvision_takes_it():
    source = {"_target_": f"{__name__}.Own", "root": "here"}
    for split, grey in (("train", 11), ("test", 1)):
        dataset = load_dataset(split, source)
        assert dataset.class_names == ("x", "y")
        assert dataset[[1]].images.unique().tolist() == [grey]


REFUSED = [
    ({"num_classes": 5}, "num_classes=5"),
    ({"class_names": ["one"]}, r"class_names=\['one'\] .*\(ant, bee, "),
    ({"class_names": ["bee", "wasp"]}, "lacks ant, and has bee"),
    ({"class_names": ["ant", "cow", "bee", "ant"]}, "lists ant twice"),
    ({"root": None}, r"dataset\.root is not set"),
    ({"_target_": "src.data.nothing.here"}, r"src\.data\.nothing\.here"),
    ({"_target_": "builtins.dict"}, "targets"),
]


def test_a_wrong_configuration_is_refused(tmp_path, write_classes):
    root = str(write_classes(tmp_path, ["ant", "bee"]))
    for changes, message in REFUSED:
        with pytest.raises(ValueError, match=message) as caught:
            load("image_folder", **({"root": root} | changes))
        assert "\n" not in str(caught.value)
    for count in (1001, 0, 1e3, "many"):
        with pytest.raises(ValueError, match=f"dataset.n_test={count}: .* 1 to 1000"):
            cifar10_mini("test", n_test=count)
    for kind, told in (("SVHN", "not found or corrupted"), ("CIFAR1000", "CIFAR100")):
        with pytest.raises(ValueError, match=told):
            of_torchvision("test", kind, tmp_path)
