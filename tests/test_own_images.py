"""Images as people have them, compared with plain torch on the same files."""

import json
import os
import re
import struct
import zipfile
from fnmatch import fnmatch
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


def twelve(num_classes):
    return Nearest(12)
"""
slow = pytest.mark.slow
GREYS = [20, 90, 160, 235]
COLOURS = np.array([(r, g, b) for r in GREYS for g in GREYS for b in GREYS])
COLOURS = COLOURS[np.random.RandomState(3).permutation(64)]
MODEL = "# @package model.{0}\nnetwork: {{_target_: {1}, num_classes: null}}\nmean: {2}\nstd: {3}\n"


@pytest.fixture
def nearest(workspace: Path) -> Path:
    """A workspace with networks that classify one-coloured images by the nearest colour."""
    (workspace / "nearest.py").write_text(CODE.format(colours=COLOURS.tolist()))
    for name, target in (("near", "Nearest"), ("twelve", "twelve"), ("new", "trained")):
        text = MODEL.format(name, f"nearest.{target}", "[0, 0, 0]", "[1, 1, 1]")
        weights = "null" if name == "new" else "included"
        path = workspace / "conf" / "model" / f"{name}.yaml"
        path.write_text(f"{text}weights: {weights}\n")
    return workspace


@pytest.fixture
def shown(nearest, run_job, capfd):
    """A function that classifies clean images and returns the exit code, `k / n`, and all text."""

    def show(*words: str, model: str = "near") -> tuple[int, str, str]:
        warn_once.cache_clear()
        fixed = ["attack=none", "source=null", f"targets=[{model}]", "n_images=null"]
        code = run_job(*fixed, "hydra.run.dir=job", *words)
        out, err = capfd.readouterr()
        ratio = ""
        if code == 0:
            rows = pd.read_parquet("job/predictions.parquet")
            ratio = f"{(rows['predicted'] == rows['label']).sum()} / {len(rows)}"
        return code, ratio, out + err

    return show


def one_colour(number: int, seed: int = 0) -> np.ndarray:
    """Return an image of about the colour of a class, uint8 (8, 8, 3)."""
    noise = np.random.RandomState(100 * seed + number).randint(-8, 9, (8, 8, 3))
    return np.clip(COLOURS[number] + noise, 0, 255).astype(np.uint8)


def write_folders(root: Path, names: dict[int, str], count: int = 2) -> None:
    """Write class folders; `names` maps the class of the network to the name of its folder."""
    for number, name in names.items():
        (root / name).mkdir(parents=True)
        for k in range(count):
            Image.fromarray(one_colour(number, k)).save(root / name / f"{k}.png")


FOLDER = ["dataset=image_folder", "dataset.root=d"]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ([f"c{number}" for number in range(12)], "sorted as text: c0, c1, c10, ...* timm's order"),
        (sorted(map(str, range(12))), "sorted as numbers: 0, 1, 2, ...* torchvision's order"),
    ],
)
def test_class_folders_in_the_order_of_another_tool(nearest, shown, caplog, names, line):
    """The log and an alarm say what to type for a network with the order of `names`."""
    write_folders(nearest / "d", dict(enumerate(names)))
    setting = f"dataset.class_names={json.dumps(names, separators=(',', ':'))}"
    code, ratio, _ = shown(*FOLDER)
    assert (code, ratio) == (0, "4 / 24")
    assert any(fnmatch(text, f"*{line}*") and setting in text for text in caplog.messages)
    alarms = {
        its["name"]: its["finding"] for its in json.loads(Path("job/alarms.json").read_text())
    }
    assert f"24 / 24 = 100.00% with '{setting}'" in alarms["labels_permuted"]
    assert shown(*FOLDER, setting)[:2] == (0, "24 / 24")
    assert json.loads(Path("job/alarms.json").read_text()) == []


@pytest.mark.parametrize("names", [["c2", "c0", "c1", "c3"], ["2", "0", "1", "3"]])
def test_a_checkpoint_that_numbers_the_classes_otherwise(nearest, shown, names):
    write_folders(nearest / "d", {number: name for number, name in enumerate(names)})
    buffers = {"colours": torch.tensor(COLOURS[:4]) / 255}
    stated = {
        "names": ["a", "b"],
        "class_to_idx": {name: number for number, name in enumerate(names)},
    }
    torch.save({"state_dict": buffers, "hyper_parameters": stated}, nearest / "net.pt")
    path = nearest / "conf" / "model" / "near.yaml"
    path.write_text(path.read_text().replace("weights: included", "weights: net.pt"))
    code, _, text = shown(*FOLDER)
    setting = f"dataset.class_names={json.dumps(names, separators=(',', ':'))}"
    assert code != 0 and f"'{setting}'" in text
    assert shown(*FOLDER, setting)[:2] == (0, "8 / 8")
    for others in (["x", *names[1:]], [*names[::-1], "background"], names[:2], list(range(4))):
        if sorted(map(str, others)) != sorted(names):
            torch.save({"state_dict": buffers, "names": others}, nearest / "net.pt")
            assert shown(*FOLDER, setting)[:2] == (0, "8 / 8")  # they prove no other order


def test_copies_of_one_image_raise_an_alarm(nearest, shown, colours):
    images, labels = np.repeat(colours[0][:1], 40, axis=0), np.arange(40) % 5
    np.savez(nearest / "a.npz", images=images, labels=labels)
    assert shown("dataset=arrays", "dataset.file=a.npz")[:2] == (0, "8 / 40")
    alarms = {
        its["name"]: its["finding"] for its in json.loads(Path("job/alarms.json").read_text())
    }
    assert alarms["copies_of_images"] == "1 of the 40 images are distinct"


def test_some_of_a_networks_classes(nearest, shown):
    write_folders(nearest / "d", {3: "3", 10: "10", 11: "11"})
    code, _, text = shown(*FOLDER, model="twelve")
    assert (
        code != 0
        and "set dataset.class_names (imagenet, or all in order)" in text
        and "Traceback" not in text
    )
    names = ",".join(map(str, range(12)))
    assert shown(*FOLDER, f"dataset.class_names=[{names}]", model="twelve")[:2] == (0, "6 / 6")


def test_training_images_of_other_classes_are_refused(nearest, shown):
    write_folders(nearest / "d" / "train", dict(enumerate("0123")))
    write_folders(nearest / "d" / "test", dict(enumerate("0134")))
    code, _, text = shown(*FOLDER, "training=quick", "training.epochs=1", model="new")
    assert code != 0 and "cannot be trained on image_folder: its classes" in text


@pytest.fixture(scope="module")
def colours():
    """Images of all 64 colours, uint8 (64, 8, 8, 3), and their labels."""
    return np.stack([one_colour(number) for number in range(64)]), np.arange(64)


ARRAYS = {
    "NHWC": lambda x: x,
    "NCHW": lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)),
    "fortran": lambda x: np.asfortranarray(x),
    "float32": lambda x: (x / 255).astype(np.float32),
    "float16": lambda x: (x / 255).astype(np.float16),
    "big-endian": lambda x: (x.transpose(0, 3, 1, 2) / 255).astype(">f8"),
}


def read(folder: Path, file: str = "a.npz") -> tuple[np.ndarray, np.ndarray]:
    """Return the images, (N, H, W, 3) uint8, and the labels in an array file."""
    source = {"_target_": "src.data.arrays.arrays", "file": str(folder / file)}
    batch = load_dataset("test", source)[:]
    return batch.images.permute(0, 2, 3, 1).numpy(), batch.labels.numpy()


@pytest.mark.parametrize("form", ARRAYS)
def test_arrays_of_every_form(tmp_path, colours, form):
    images, labels = ARRAYS[form](colours[0]), colours[1]
    np.savez(tmp_path / "a.npz", images=images, labels=labels.astype(np.uint8))
    assert all(map(np.array_equal, read(tmp_path), colours))


def test_array_files(nearest, shown, colours):
    images, labels = colours
    np.savez_compressed(nearest / "b.npz", X_test=images, Y_test=labels[:, None])
    assert all(map(np.array_equal, read(nearest, "b.npz"), colours))
    np.save(nearest / "x.npy", images)
    np.save(nearest / "y.npy", labels)
    words = ["dataset=arrays", "dataset.file=x.npy", "dataset.labels=y.npy"]
    assert shown(*words)[:2] == (0, "64 / 64")


def test_arrays_with_training_images_and_class_names(nearest, shown, colours):
    images, labels = colours[0][:4], colours[1][:4]
    many = {"train_images": np.concatenate([images] * 20), "train_labels": np.tile(labels, 20)}
    shared = {"class_names": np.array(["a", "b", "c", "d"])}
    np.savez(nearest / "a.npz", images=images, labels=labels, **many, **shared)
    np.savez(nearest / "b.npz", images=images, labels=labels)
    train = ["training=quick", "training.epochs=2", "clean_accuracy_check.action=warn"]
    assert shown("dataset=arrays", "dataset.file=a.npz", *train, model="new")[0] == 0
    code, _, text = shown("dataset=arrays", "dataset.file=b.npz", *train, model="new")
    assert code != 0 and "not train_images and train_labels" in text


@pytest.mark.parametrize(
    ("contents", "part"),
    [
        ({"images": np.zeros((4, 192), np.uint8), "labels": [0] * 4}, "(4, 192)"),
        ({"images": np.full((4, 8, 8, 3), 128.0), "labels": [0] * 4}, "above 1"),
        ({"images": np.full((4, 8, 8, 3), -1.0), "labels": [0] * 4}, "negative"),
        ({"images": np.full((4, 8, 8, 3), np.nan), "labels": [0] * 4}, "not finite"),
        ({"images": np.zeros((4, 8, 8, 3)), "labels": np.eye(4)}, "labels"),
        ({"images": np.zeros((4, 8, 8, 3)), "labels": [0] * 3}, "labels"),
        ({"images": np.zeros((4, 8, 8, 3)), "labels": [0, 1, 2, -1]}, "-1"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, "images and labels"),
        ({"images": np.zeros((0, 8, 8, 3)), "labels": np.zeros(0, int)}, "has no images"),
        ({"images": np.array([{}] * 4), "labels": [0] * 4}, "a.npz"),
        ({"images": np.zeros((4, 8, 9, 3)), "labels": [0] * 4}, "dataset.image_size"),
        (b"no array", "a.npz"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(tmp_path, contents, part):
    if isinstance(contents, dict):
        np.savez(tmp_path / "a.npz", **contents)
    else:
        (tmp_path / "a.npz").write_bytes(contents)
    with pytest.raises(ValueError, match=re.escape(part)):
        read(tmp_path)


def test_damaged_arrays_are_refused(tmp_path, colours):
    np.savez(tmp_path / "a.npz", images=colours[0], labels=colours[1])
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[2000] ^= 255
    for damaged in (content, content[:9000]):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.npz"):
            read(tmp_path)


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


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("spare", [b"", b"more"])
def test_arrays_of_every_version_of_the_format(tmp_path, colours, version, spare):
    pack(tmp_path / "a.npz", npy(colours[0], version) + spare)
    assert all(map(np.array_equal, read(tmp_path), colours))


@pytest.mark.parametrize("kind", [object, [("a", object)]])
def test_arrays_of_python_objects_are_refused(tmp_path, colours, kind):
    """Their bytes would be used as addresses."""
    pixels, labels = (array.astype(kind) for array in colours)
    for names in ({"images": pixels, "labels": colours[1]}, {"images": pixels, "labels": labels}):
        np.savez(tmp_path / "a.npz", **names)
        with pytest.raises(ValueError, match=r"a\.npz cannot be used: Object arrays"):
            read(tmp_path)
    content = npy(colours[0]).replace(b"'|u1'", b"'|O' ").ljust(200_000, b"A")
    pack(tmp_path / "a.npz", content)  # addresses of the file's choice
    with pytest.raises(ValueError, match=r"a\.npz cannot be used"):
        read(tmp_path)


def test_arrays_that_end_early_are_refused(tmp_path, colours):
    """They would be filled with the bytes of the arrays behind them."""
    pack(tmp_path / "a.npz", npy(colours[0])[:9000], **{"more.npy": bytes(20_000)})
    with pytest.raises(ValueError, match=r"a\.npz cannot be used"):
        read(tmp_path)
    pack(tmp_path / "a.npz", npy(colours[0])[:9000], **{"more.npy": bytes(20_000)})
    size, new = (struct.pack("<L", its) for its in (9000, len(npy(colours[0]))))
    content = (tmp_path / "a.npz").read_bytes()
    place = content.index(b"PK\1\2") + 24  # the length of `images` in the list of members
    assert content[place:][:4] == size
    (tmp_path / "a.npz").write_bytes(content[:place] + new + content[place + 4 :])
    with pytest.raises(ValueError, match=r"a\.npz cannot be used"):
        read(tmp_path)


def test_arrays_of_one_name_are_refused(tmp_path, colours):
    np.savez(tmp_path / "a.npz", images=colours[0], IMAGES=colours[0] // 2, labels=colours[1])
    with pytest.raises(ValueError, match=r"both images\.npy and IMAGES\.npy"):
        read(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("names", ["a.npz", "a.npy b.npy", "b.npy a.npy"])
def test_pipes_and_folders_are_no_arrays(tmp_path, colours, make, names):
    np.save(tmp_path / "b.npy", colours[1])
    make(tmp_path / names.replace("b.npy", "").strip())
    files = dict(
        zip(("file", "labels"), (str(tmp_path / name) for name in names.split()), strict=False)
    )
    with pytest.raises(ValueError, match=r"a\.np[yz] is not a file"):
        load_dataset("test", {"_target_": "src.data.arrays.arrays", **files})


def test_arrays_larger_than_memory_are_read_in_part(nearest, tmp_path):
    """A sparse file of 40 GB, of which ten images are read."""
    shape = (40_000, 1000, 1000, 1)
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, shape)
    np.save(tmp_path / "y.npy", np.zeros(shape[0], np.uint8))
    files = {"file": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy")}
    images = load_dataset("test", {"_target_": "src.data.arrays.arrays", **files}, n_images=10)
    assert images[:].images.shape == (10, 3, 1000, 1000)


@pytest.fixture
def saved(nearest, colours):
    """A function that saves a data set of Hugging Face in `d`; returns the package."""
    datasets = pytest.importorskip("datasets", reason="the extra `huggingface` is not installed")

    def make(count: int = 64, named: bool = True, image: str = "image", label: str = "label"):
        kind = datasets.Value("int64")
        if named:
            kind = datasets.ClassLabel(names=[f"c{number}" for number in range(64)])
        return datasets.Dataset.from_dict(
            {
                "id": [str(number) for number in range(count)],
                image: [Image.fromarray(image) for image in colours[0][:count]],
                label: colours[1][:count].tolist(),
            },
            features=datasets.Features(
                {"id": datasets.Value("string"), image: datasets.Image(), label: kind}
            ),
        )

    datasets.make = make
    yield datasets
    del datasets.make


HUGGING = ["dataset=huggingface", "dataset.root=d"]


@pytest.mark.parametrize("named", [pytest.param(True, marks=slow), False])
def test_data_sets_of_hugging_face_saved_on_disk(nearest, shown, saved, named):
    saved.make(named=named, image="picture", label="kind").save_to_disk(nearest / "d")
    assert shown(*HUGGING)[:2] == (0, "64 / 64")
    part = saved.DatasetDict({"validation": saved.make(named=named).shuffle(seed=1)})
    part["train"] = saved.make(named=named)
    part.save_to_disk(nearest / "e")
    training = ["training=quick", "training.epochs=1", "clean_accuracy_check.action=warn"]
    other = ["dataset=huggingface", "dataset.root=e"]
    assert shown(*other)[:2] == (0, "64 / 64")
    assert shown(*other, *training, model="new")[0] == 0
    assert shown(*other, "dataset.test_split=train")[:2] == (0, "64 / 64")


def test_data_sets_of_hugging_face_as_files(nearest, shown, saved, tmp_path, monkeypatch):
    monkeypatch.setattr(saved.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    (nearest / "d" / "data").mkdir(parents=True)
    saved.make().to_parquet(nearest / "d" / "data" / "test-00000-of-00001.parquet")
    assert shown(*HUGGING)[:2] == (0, "64 / 64")


def test_splits_and_rows_of_hugging_face_without_labels(nearest, shown, saved, caplog):
    whole = saved.make()
    rows = {"id": ["0"], "image": whole[:1]["image"], "label": [-1]}
    hidden = saved.Dataset.from_dict(rows, whole.features)
    unnamed = saved.Dataset.from_dict({**rows, "label": [None]}, whole.features)
    empty = saved.Dataset.from_dict({**rows, "image": [None], "label": [0]}, whole.features)
    saved.DatasetDict({"test": hidden, "validation": whole}).save_to_disk(nearest / "d")
    assert shown(*HUGGING)[:2] == (0, "64 / 64")
    assert "test has no labels, so validation is attacked" in caplog.text
    for number, (test, sentence) in enumerate(
        [
            (saved.concatenate_datasets([whole, hidden]), "row 64 of test has no label"),
            (saved.concatenate_datasets([whole, unnamed]), "row 64 of test has no label"),
            (empty, "its row has no image"),
        ]
    ):
        saved.DatasetDict({"test": test}).save_to_disk(nearest / f"e{number}")
        code, _, text = shown("dataset=huggingface", f"dataset.root=e{number}")
        assert code != 0 and sentence in text and "Traceback" not in text


def test_data_sets_of_hugging_face_that_leave_something_open_are_refused(nearest, shown, saved):
    two = saved.make().add_column("coarse", [0] * 64).cast_column("coarse", saved.ClassLabel(2))
    saved.DatasetDict({"train": two}).save_to_disk(nearest / "d")
    for words, sentence in (
        ([], "has the splits train. Set dataset.test_split=NAME"),
        (["dataset.test_split=tset"], "has the splits train"),
        (["dataset.test_split=train"], "dataset.label_column=None: use one of label, coarse"),
        (
            ["dataset.test_split=train", "dataset.label_column=id"],
            "label_column=id: use one of label, coarse",
        ),
        (["dataset.root=/nowhere/at"], "dataset.root=/nowhere/at cannot be loaded"),
    ):
        code, _, text = shown(*HUGGING[: 1 + ("nowhere" not in str(words))], *words)
        assert code != 0 and sentence in text and "Traceback" not in text
    words = ["dataset.test_split=train", "dataset.label_column=label"]
    assert shown(*HUGGING, *words)[:2] == (0, "64 / 64")
    files = sorted((nearest / "d" / "train").glob("*.arrow"))
    files[0].write_bytes(files[0].read_bytes()[:2000])
    code, _, text = shown(*HUGGING, *words)
    assert code != 0 and "Traceback" not in text
