"""Images and networks as people have them, compared with plain torch on the same files."""

import json
import os
import struct
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from src.data import load_dataset
from src.utils.refusals import warn_once

CODE = """
import torch
from torch import nn

COLOURS = torch.tensor({colours}) / 255


class Nearest(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.register_buffer("colours", COLOURS[: num_classes or len(COLOURS)])

    def forward(self, x):
        return -40 * ((x.mean((2, 3))[:, None] - self.colours) ** 2).sum(-1)


def trained(num_classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
"""
slow = pytest.mark.slow
GREYS = [20, 90, 160, 235]
COLOURS = np.array([(r, g, b) for r in GREYS for g in GREYS for b in GREYS])
COLOURS = COLOURS[np.random.RandomState(3).permutation(64)]
CODE = CODE.replace("{colours}", str(COLOURS.tolist()))
MODEL = "# @package model.{0}\nnetwork: {{_target_: nearest.{1}, num_classes: null}}\n"
MODEL += "mean: [0, 0, 0]\nstd: [1, 1, 1]\nweights: {2}\n"
FOLDER = ["dataset=image_folder", "dataset.root=d"]
FILE = ["dataset=arrays", "dataset.file=a.npz"]
QUICK = ["training=quick", "training.epochs=1", "clean_accuracy_check.action=warn"]


@pytest.fixture
def nearest(workspace: Path) -> Path:
    """A workspace with networks that classify one-coloured images by the nearest colour."""
    (workspace / "nearest.py").write_text(CODE)
    for name, target in (("near", "Nearest"), ("new", "trained")):
        text = MODEL.format(name, target, "null" if name == "new" else "included")
        (workspace / "conf" / "model" / f"{name}.yaml").write_text(text)
    return workspace


@pytest.fixture
def shown(nearest, run_job, capfd):
    """A function that classifies clean images: returns `k / n`, or what a failed job prints."""

    def show(*words: str, model: str = "near") -> str:
        warn_once.cache_clear()
        fixed = ["attack=none", "source=null", f"targets=[{model}]", "n_images=null"]
        code = run_job(*fixed, "hydra.run.dir=job", *words)
        text = "".join(capfd.readouterr())
        if code:
            assert "Traceback" not in text
            return text
        rows = pd.read_parquet("job/predictions.parquet")
        return f"{(rows['predicted'] == rows['label']).sum()} / {len(rows)}"

    return show


def alarms() -> dict[str, str]:
    return {its["name"]: its["finding"] for its in json.loads(Path("job/alarms.json").read_text())}


def class_names(names: list[str]) -> str:
    return f"dataset.class_names={json.dumps(names, separators=(',', ':'))}"


def write_folders(root: Path, names: dict[int, str]) -> None:
    """Write class folders; `names` maps the class of the network to the name of its folder."""
    for number, name in names.items():
        (root / name).mkdir(parents=True)
        for k in range(2):
            Image.fromarray(one_colour(number, k)).save(root / name / f"{k}.png")


def one_colour(number: int, seed: int = 0) -> np.ndarray:
    """Return an image of about the colour of a class, uint8 (8, 8, 3)."""
    noise = np.random.RandomState(100 * seed + number).randint(-8, 9, (8, 8, 3))
    return np.clip(COLOURS[number] + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("names", "tool"),
    [([f"c{k}" for k in range(12)], "timm"), (sorted(map(str, range(12))), "torchvision")],
)
def test_class_folders_in_the_order_of_another_tool(nearest, shown, caplog, names, tool):
    """The log and an alarm say what to type for a network with the order of `names`."""
    write_folders(nearest / "d", dict(enumerate(names)))
    setting = class_names(names)
    assert shown(*FOLDER) == "4 / 24"
    assert any(f"{tool}'s order" in text and setting in text for text in caplog.messages)
    assert f"24 / 24 = 100.00% with '{setting}'" in alarms()["labels_permuted"]
    assert shown(*FOLDER, setting) == "24 / 24"
    assert alarms() == {}


def test_a_checkpoint_that_numbers_the_classes_otherwise(nearest, shown):
    names = ["c2", "c0", "c1", "c3"]
    write_folders(nearest / "d", dict(enumerate(names)))
    buffers = {"colours": torch.tensor(COLOURS[:4]) / 255}
    stated = {"class_to_idx": {name: number for number, name in enumerate(names)}}
    stated = {"state_dict": buffers, "hyper_parameters": {"names": ["a", "b"], **stated}}
    torch.save(stated, nearest / "net.pt")
    weights = "model.near.weights=net.pt"
    assert f"'{class_names(names)}'" in shown(*FOLDER, weights)
    for others in (None, ["x", *names[1:]], [*names[::-1], "background"], names[:2], [0, 1, 2, 3]):
        if others:  # they prove no other order
            torch.save({"state_dict": buffers, "names": others}, nearest / "net.pt")
        assert shown(*FOLDER, weights, class_names(names)) == "8 / 8"


@pytest.fixture(scope="module")
def colours() -> tuple[np.ndarray, np.ndarray]:
    """Images of all 64 colours, uint8 (64, 8, 8, 3), and their labels."""
    return np.stack([one_colour(number) for number in range(64)]), np.arange(64)


def test_arrays_in_two_files_or_with_training_images_and_class_names(nearest, shown, colours):
    images, labels = colours
    np.save(nearest / "x.npy", images)
    np.save(nearest / "y.npy", labels)
    assert shown("dataset=arrays", "dataset.file=x.npy", "dataset.labels=y.npy") == "64 / 64"
    images, labels = images[:4], labels[:4]
    many = {"train_images": np.concatenate([images] * 20), "train_labels": np.tile(labels, 20)}
    named = {"images": images, "labels": labels, "class_names": np.array(["a", "b", "c", "d"])}
    for shared in (4, 1, 0):  # classes whose evaluated images are also training images
        many["train_images"][:, 0, 0] = 255
        many["train_images"][np.tile(labels, 20) < shared] = np.tile(images[:shared], (20, 1, 1, 1))
        np.savez(nearest / "a.npz", **named, **many)
        assert shown(*FILE, *QUICK, model="new").endswith(" / 4")
        finding = f"new: trained on {shared} / 4 = {shared / 4:.2%} of the evaluated images"
        assert alarms().get("trained_on_images") == (finding if shared else None)
    np.savez(nearest / "a.npz", **named)
    assert "train_labels" in shown(*FILE, *QUICK, model="new")


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    """Return the bytes of a `.npy` file."""
    file = BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def pack(path: Path, pixels: bytes, **more: bytes) -> None:
    """Write an uncompressed `.npz` file whose `images` have these bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        members = {"images.npy": pixels, "labels.npy": npy(np.arange(64)), **more}
        for name, content in members.items():
            archive.writestr(name, content)


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images, (N, H, W, 3) uint8, and the labels in an array file."""
    file = str(folder / "a.npz")
    batch = load_dataset("test", {"_target_": "src.data.arrays.arrays", "file": file})[:]
    return batch.images.permute(0, 2, 3, 1).numpy(), batch.labels.numpy()


def stored(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., None]:
    """Return a function that writes a file with changed images."""
    return lambda path, images, labels: np.savez(
        path, images=change(images), labels=labels.astype(np.uint8)
    )


READ: dict[str, Callable[..., None]] = {
    "NCHW": stored(lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
    "fortran": stored(np.asfortranarray),
    "float32": stored(lambda x: (x / 255).astype(np.float32)),
    "big-endian": stored(lambda x: (x.transpose(0, 3, 1, 2) / 255).astype(">f8")),
    "compressed, with other names": lambda path, x, y: np.savez_compressed(
        path, X_test=x, Y_test=y[:, None]
    ),
    "format 2.0, and more behind it": lambda path, x, y: pack(path, npy(x, (2, 0)) + b"more"),
    "format 3.0": lambda path, x, y: pack(path, npy(x, (3, 0))),
}


@pytest.mark.parametrize("write", READ.values(), ids=[*READ])
def test_arrays_of_every_form(tmp_path, colours, write):
    write(tmp_path / "a.npz", *colours)
    assert all(map(np.array_equal, read(tmp_path), colours))


def saved(**arrays: object) -> Callable[..., None]:
    """Return a function that writes some arrays instead."""
    black = {"images": np.zeros((4, 8, 8, 3)), "labels": [0] * 4}
    return lambda path, *_: np.savez(path, **black | arrays)


def corrupted(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    np.savez(path, images=images, labels=labels)
    content = bytearray(path.read_bytes())
    content[2000] ^= 255
    path.write_bytes(content)


def with_addresses(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Bytes of the file's choice would be used as addresses of Python objects."""
    pack(path, npy(images).replace(b"'|u1'", b"'|O' ").ljust(200_000, b"A"))


def ending_early(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Its images would be filled with the bytes of the array behind them."""
    pack(path, npy(images)[:9000], **{"more.npy": bytes(20_000)})


def ending_early_unseen(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """And the list of members states the length that the images should have."""
    ending_early(path, images, labels)
    content, size = path.read_bytes(), struct.pack("<L", 9000)
    place = content.index(b"PK\1\2") + 24
    assert content[place:][:4] == size
    content = content[:place] + struct.pack("<L", len(npy(images))) + content[place + 4 :]
    path.write_bytes(content)


REFUSED: dict[str, tuple[str, Callable[..., object]]] = {
    "flat": (r"\(4, 192\)", saved(images=np.zeros((4, 192), np.uint8))),
    "above 1": ("above 1", saved(images=np.full((4, 8, 8, 3), 128.0))),
    "negative": ("negative", saved(images=np.full((4, 8, 8, 3), -1.0))),
    "nan": ("not finite", saved(images=np.full((4, 8, 8, 3), np.nan))),
    "one-hot labels": ("labels", saved(labels=np.eye(4))),
    "a label too few": ("labels", saved(labels=[0] * 3)),
    "a negative label": ("-1", saved(labels=[0, 1, 2, -1])),
    "other names": ("images and labels", lambda path, *_: np.savez(path, a=[1], b=[1])),
    "one name twice": (r"images\.npy and IMAGES\.npy", saved(IMAGES=np.ones((4, 8, 8, 3)))),
    "empty": ("no images", saved(images=np.zeros((0, 8, 8, 3)), labels=np.zeros(0, int))),
    "not square": ("dataset.image_size", saved(images=np.zeros((4, 8, 9, 3)))),
    "no array": ("a.npz", lambda path, *_: path.write_bytes(b"no array")),
    "a pipe": ("not a file", lambda path, *_: os.mkfifo(path)),
    "a folder": ("not a file", lambda path, *_: path.mkdir()),
    "damaged": (r"a\.npz", corrupted),
    "objects": ("Object arrays", saved(images=np.array([{}] * 4))),
    "labels that are objects": ("Object arrays", saved(labels=np.array([{}] * 4))),
    "records": ("Object arrays", saved(images=np.zeros((4, 8, 8, 3), [("a", object)]))),
    "addresses": ("cannot be read as images", with_addresses),
    "ending early": ("cannot be read as images", ending_early),
    "ending early, unseen": ("cannot be read as images", ending_early_unseen),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_cannot_be_used_are_refused(tmp_path, colours, name):
    reason, write = REFUSED[name]
    write(tmp_path / "a.npz", *colours)
    with pytest.raises(ValueError, match=reason):
        read(tmp_path)


def test_arrays_larger_than_memory_are_read_in_part_and_their_labels_are_a_file(tmp_path):
    """A sparse file of 40 GB, of which ten images are read."""
    shape = (40_000, 1000, 1000, 1)
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, shape)
    np.save(tmp_path / "y.npy", np.zeros(shape[0], np.uint8))
    files = {"file": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy")}
    images = load_dataset("test", {"_target_": "src.data.arrays.arrays", **files}, n_images=10)
    assert images[:].images.shape == (10, 3, 1000, 1000)


def test_splits_and_columns_of_hugging_face(nearest, shown, colours):
    """`tests.data.test_sources` has a data set of one label column, saved as two splits."""
    datasets = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(64)}
    columns = {"image": [*map(Image.fromarray, colours[0])], "label": colours[1].tolist()}
    hidden, features = columns | {"label": [-1] * 64}, datasets.Features(kinds)
    hidden, whole = (datasets.Dataset.from_dict(its, features) for its in (hidden, columns))
    two = whole.add_column("coarse", [0] * 64).cast_column("coarse", datasets.ClassLabel(2))
    datasets.DatasetDict({"test": hidden, "validation": whole}).save_to_disk(nearest / "hidden")
    datasets.DatasetDict({"train": two}).save_to_disk(nearest / "two")
    train = "dataset.test_split=train"
    for root, words, told in (
        ("hidden", [], "64 / 64"),  # of its validation split
        ("two", [], "dataset.test_split=NAME"),
        ("two", [train], "dataset.label_column=None: use one of label, coarse"),
        ("two", [train, "dataset.label_column=label"], "64 / 64"),
        ("/nowhere/at", [], "dataset.root=/nowhere/at cannot be read as a data set"),
    ):
        assert told in shown("dataset=huggingface", f"dataset.root={root}", *words)
