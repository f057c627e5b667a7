"""Every data source is a row of one table, with the same invariants for each."""

import pickle
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from src.config.resolvers import CONF
from src.data import ImageDataset, cifar10_mini
from src.data.cifar10_mini import ARCHIVE
from src.data.cifar10_mini import CLASSES as MINI
from src.data.library_datasets import NAMES
from src.run.data import DataSets
from src.utils.files import write_csv
from tests.config.test_settings import read
from tests.conftest import replaced

LABELS = np.array([0, 0, 0, 1, 1, 1])
CLASSES = ("ant", "bee")
NUMBERS = np.arange(len(LABELS)) + 1


def class_folders(folder, train, test, *, names=CLASSES, end="png", splits=("train", "val")):
    for split, images in zip(splits, (train, test), strict=True):
        for number, (image, label) in enumerate(zip(images, LABELS, strict=True)):
            path = folder / split / names[label] / f"{number}.{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path, "png")


def listed(folder, train, test):
    """Write images and their list, whose rows have another order than the files' names."""
    (folder / "images").mkdir()
    rows = []
    for number, image in enumerate(test):
        Image.fromarray(image).save(folder / "images" / f"{9 - number}.png")
        rows.append(f"{9 - number},{LABELS[number] + 1},{number + 1}")
    text = "\n".join(["ImageId,TrueLabel,TargetClass", *rows])
    (folder / "images.csv").write_text(text, encoding="utf-8-sig")


def npz(folder, train, test):
    labels = {"train_labels": LABELS, "labels": LABELS, "class_names": np.array(CLASSES)}
    np.savez(folder / "a.npz", train_images=train, images=test, **labels)


def hugging_face(folder, train, test):
    datasets = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    kinds = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=[*CLASSES])}
    splits = {
        split: datasets.Dataset.from_dict(
            {"picture": [*map(Image.fromarray, images)], "kind": LABELS}, datasets.Features(kinds)
        )
        for split, images in (("train", train), ("validation", test))
    }
    datasets.DatasetDict(splits).save_to_disk(folder)


def cifar(folder, train, test, *, fine=False):
    place = folder / ("cifar-100-python" if fine else "cifar-10-batches-py")
    place.mkdir()
    files = ["train"] if fine else [f"data_batch_{number}" for number in range(1, 6)]
    parts = zip(files, *(np.array_split(its, len(files)) for its in (train, LABELS)), strict=True)
    for file, images, labels in (*parts, ("test" if fine else "test_batch", test, LABELS)):
        rows = {"data": images.transpose(0, 3, 1, 2).reshape(-1, 3072)}
        rows["fine_labels" if fine else "labels"] = labels.tolist()
        (place / file).write_bytes(pickle.dumps(rows))
    key, meta = ("fine_label_names", "meta") if fine else ("label_names", "batches.meta")
    (place / meta).write_bytes(pickle.dumps({key: [*CLASSES]}))


def svhn(folder, train, test):
    for split, images in (("train", train), ("test", test)):
        digits = np.array([9, 10])[LABELS, None]  # a ten is a zero
        savemat(folder / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": digits})


def stl10(folder, train, test):
    place = folder / "stl10_binary"
    place.mkdir()
    for split, images in (("train", train), ("test", test)):
        images.transpose(0, 3, 2, 1).tofile(place / f"{split}_X.bin")
        (LABELS + 1).astype(np.uint8).tofile(place / f"{split}_y.bin")
    (place / "class_names.txt").write_text("\n".join(CLASSES))


def flowers(folder, train, test):
    place = folder / "flowers-102"
    (place / "jpg").mkdir(parents=True)
    for number, image in enumerate([*train, *test], 1):
        Image.fromarray(image).save(place / "jpg" / f"image_{number:05}.jpg", "png")
    savemat(place / "imagelabels.mat", {"labels": [[*np.array([77, 1])[LABELS]] * 2]})
    savemat(place / "setid.mat", {"trnid": NUMBERS[None], "tstid": NUMBERS[None] + len(LABELS)})


def mini(folder, train, test):
    with tarfile.open(folder / "mini.tar.xz", "w:xz") as archive:
        for split, images in (("test", test), ("train", train)):
            for number, image in enumerate(images):
                Image.fromarray(image).save(folder / "x.png")
                archive.add(folder / "x.png", f"{split}/{MINI[number]}/{number}.jpg")


class Source(NamedTuple):
    """A data set: what writes its two splits, the words that choose it, and its images' classes."""

    write: Callable[..., None]
    words: str
    classes: tuple[str, ...] = CLASSES
    labels: np.ndarray = LABELS
    side: int = 32
    trains: bool = True


AS_STORED = "dataset.image_size=null dataset.resize=null"
IDS, DOGS = ("n01440764", "n02102040"), ("tench", "English springer")
IMAGENETTE = {"names": IDS, "end": "jpeg", "splits": ("imagenette2/train", "imagenette2/val")}
SOURCES = {
    "image_folder": Source(partial(class_folders, splits=("train", "test")), ""),
    "imagenet": Source(partial(class_folders, names=IDS), AS_STORED, DOGS),
    "image_csv": Source(listed, "", ("tench", "goldfish"), trains=False),
    "nips17": Source(listed, AS_STORED, ("tench", "goldfish"), trains=False),
    "cifar10_mini": Source(mini, "dataset.n_train=6 dataset.n_test=6", MINI, NUMBERS - 1),
    "arrays": Source(npz, "dataset.file={}/a.npz"),
    "huggingface": Source(hugging_face, ""),
    "cifar10": Source(cifar, "dataset.num_classes=2"),
    "CIFAR10": Source(cifar, ""),
    "CIFAR100": Source(partial(cifar, fine=True), ""),
    "SVHN": Source(svhn, "", ("nine", "zero")),
    "STL10": Source(stl10, "", side=96),
    "Flowers102": Source(flowers, "", ("passion flower", "pink primrose")),
    "Imagenette": Source(partial(class_folders, **IMAGENETTE), "", DOGS),
}


def test_every_data_set_is_in_the_table():
    files = {path.stem for path in (CONF / "dataset").glob("[!_]*.yaml")}
    assert {*SOURCES} == files - {"torchvision"} | {*NAMES}


def images_of(name: str, split: str) -> np.ndarray:
    """Return the images of a split, uint8 (N, H, W, 3)."""
    random = np.random.default_rng(["train", "test"].index(split))
    side = SOURCES[name].side
    return random.integers(0, 256, (len(LABELS), side, side, 3), dtype=np.uint8)


@pytest.fixture
def load(tmp_path, monkeypatch) -> Callable[..., ImageDataset]:
    """A function that opens a split as a new command does, from files in a new folder."""
    for module in ("cifar", "svhn", "stl10", "flowers102"):  # other checksums than the published
        place = f"torchvision.datasets.{module}.check_integrity"
        monkeypatch.setattr(place, lambda path, _: path is not None)

    def opened(name: str, split: str = "test", *more: str, images=None, write=True):
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        folder.mkdir()
        source = SOURCES[name]
        monkeypatch.setattr(cifar10_mini, "ARCHIVE", folder / "mini.tar.xz")
        monkeypatch.setattr(cifar10_mini, "SIZES", {"test": 6, "train": 6})
        cifar10_mini.cifar10_mini.cache_clear()
        if write:
            train, test = images_of(name, "train"), images_of(name, "test")
            source.write(folder, train, test if images is None else images)
        words = [f"dataset=torchvision dataset.name={name}" if name in NAMES else f"dataset={name}"]
        words += [source.words.format(folder), "n_images=null"]
        words += [f"dataset.root={folder}"] * (name not in ("arrays", "cifar10_mini"))
        words += ["dataset.download=false"] * (name in ("nips17", "cifar10", *NAMES))
        return DataSets().open(read(*replaced(" ".join(words).split(), *more)), split)

    return opened


@pytest.mark.parametrize("name", SOURCES)
def test_splits_hold_the_images_and_classes_of_the_files(name, load):
    source = SOURCES[name]
    for split in ("train", "test"):
        if split == "train" and not source.trains:
            with pytest.raises(ValueError, match="no training split"):
                load(name, split)
            continue
        data = load(name, split)
        images, labels, index = data[:]
        assert images.dtype == torch.uint8 and images.is_contiguous()
        assert np.array_equal(images.permute(0, 2, 3, 1), images_of(name, split))
        assert [data.class_names[label] for label in labels] == [
            source.classes[n] for n in source.labels
        ]
        assert labels.tolist() == data.labels.tolist() and index.tolist() == [*range(len(LABELS))]
        assert (data.image_size, data.num_classes) == (source.side, len(data.class_names))
        small = load(name, split, "dataset.image_size=16")
        assert small[:].images.shape == (len(LABELS), 3, 16, 16)
    if not source.trains:  # it has target classes instead
        assert data.target_labels.tolist() == [*range(len(LABELS))]


@pytest.mark.parametrize("name", SOURCES)
def test_subsets_and_lists_are_parts_of_what_is_loaded_again(name, load, tmp_path):
    whole, part = load(name), load(name, "test", "n_images=4", "dataset.seed=1")
    assert len(part) == 4 and len({*np.unique(part.labels, return_counts=True)[1]}) == 1
    assert all(map(torch.equal, part[:], whole[part.indices]))
    write_csv(tmp_path / "list.csv", part.listed())
    again = load(name, "test", f"dataset.images={tmp_path}/list.csv")
    assert again.digest() == part.digest() == pickle.loads(pickle.dumps(part)).digest()
    assert part.digest() != whole.digest() == load(name).digest()


@pytest.mark.parametrize("name", SOURCES)
def test_a_changed_pixel_changes_the_digests_of_its_image(name, load):
    images = images_of(name, "test")
    images[4, 3, 2, 1] ^= 1
    whole, other = load(name), load(name, images=images)
    assert whole.digest() != other.digest()
    differ = whole.image_digests != other.image_digests
    assert differ.tolist() == [False] * 4 + [True, False]


@pytest.mark.parametrize("name", sorted({*SOURCES} - {"cifar10_mini"}))
def test_a_folder_without_the_files_is_refused_in_a_sentence(name, load):
    with pytest.raises(ValueError) as caught:
        load(name, write=False)
    assert "\n" not in str(caught.value)


def test_the_images_of_the_program_are_those_of_its_archive():
    with tarfile.open(ARCHIVE) as archive:
        files = archive.getnames()
        for split in ("train", "test"):
            data = DataSets().open(read("dataset=cifar10_mini", "n_images=30"), split)
            assert len(data) == (30 if split == "test" else 5000)
            of_split = [file for file in files if file.startswith(f"{split}/")]
            for image, label, index in zip(*data[:30], strict=True):
                file = of_split[index]
                pixels = np.asarray(Image.open(archive.extractfile(file)).convert("RGB"))
                assert np.array_equal(image.permute(1, 2, 0), pixels)
                assert data.class_names[label] == Path(file).parent.name
    assert np.bincount(data.labels).tolist() == [3] * 10


def test_class_names_rename_the_folders_or_number_them(load):
    dataset = load("image_folder", "test", "dataset.class_names=[cow,gnu]")
    assert dataset.class_names == ("cow", "gnu") and dataset.labels.tolist() == LABELS.tolist()
    dataset = load("image_folder", "test", "dataset.class_names=[bee,cow,ant]")
    assert dataset.class_names == ("bee", "cow", "ant")
    assert dataset[:].labels.tolist() == dataset.labels.tolist() == [2, 2, 2, 0, 0, 0]
    assert dataset.digest() != load("image_folder").digest()


REFUSED = [
    ("image_folder", "num_classes=5", "num_classes=5"),
    ("image_folder", "class_names=[one]", r"class_names=\['one'\] .*\(ant, bee, "),
    ("image_folder", "class_names=[bee,wasp]", "lacks ant, and has bee"),
    ("image_folder", "class_names=[ant,cow,bee,ant]", "lists ant twice"),
    ("image_folder", "root=null", r"dataset\.root is not set"),
    ("image_folder", "_target_=src.data.nothing.here", r"src\.data\.nothing\.here"),
    ("image_folder", "_target_=builtins.dict", "targets"),
    ("SVHN", "kind=CIFAR1000", "CIFAR100"),
]


def test_a_wrong_configuration_is_refused(load):
    for name, word, message in REFUSED:
        with pytest.raises(ValueError, match=message) as caught:
            load(name, "test", f"dataset.{word}")
        assert "\n" not in str(caught.value)
    for count in (1001, 0, 1e3, "many"):
        with pytest.raises(ValueError, match=f"dataset.n_test={count}: .* 1 to 6"):
            cifar10_mini.cifar10_mini("test", n_test=count)
