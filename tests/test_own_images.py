"""Images as people have them, from the command line, compared with plain torch on the same files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.models import squeezenet1_1
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from src.data.classes import imagenet_ids
from src.models import load_weights
from src.run.data import forget_datasets

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
def shown(nearest, command_line, capfd):
    """A function that classifies clean images and returns the exit code, `k / n`, and all text."""

    def show(*words: str, model: str = "near") -> tuple[int, str, str]:
        forget_datasets()  # other folders of the same name
        fixed = ["attack=none", "source=null", f"targets=[{model}]", "n_images=null"]
        code = command_line(*fixed, "hydra.run.dir=job", *words)
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


@pytest.mark.parametrize("names", [range(12), range(1, 13), range(-3, 9), range(0, 24, 2)])
def test_class_folders_that_are_numbers(nearest, shown, names):
    write_folders(nearest / "d", dict(enumerate(map(str, names))))
    code, ratio, text = shown(*FOLDER)
    assert (code, ratio) == (0, "24 / 24")
    assert text.count("sorted as numbers") <= 1


def test_some_of_a_networks_classes(nearest, shown):
    write_folders(nearest / "d", {3: "3", 10: "10", 11: "11"})
    code, _, text = shown(*FOLDER, model="twelve")
    assert code != 0 and "'dataset.class_names=[A,B,...]'" in text and "Traceback" not in text
    names = ",".join(map(str, range(12)))
    assert shown(*FOLDER, f"dataset.class_names=[{names}]", model="twelve")[:2] == (0, "6 / 6")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("0 1 2 3", "0 1 3 4"),
        ("1 2 3 4", "0 1 2 3"),
        ("0 1 2 3", "ant bee cat dog"),
        ("ant bee cat dog", "0 1 2 3"),
        ("ant bee cat dog", "ant bee cat eel"),
    ],
)
def test_training_images_of_other_classes_are_refused(nearest, shown, train, test):
    write_folders(nearest / "d" / "train", dict(enumerate(train.split())))
    write_folders(nearest / "d" / "test", dict(enumerate(test.split())))
    code, _, text = shown(*FOLDER, "training=quick", "training.epochs=1", model="new")
    assert code != 0 and "cannot be trained on image_folder: its classes" in text


def test_parts_of_imagenet_as_in_plain_torch(nearest, shown, real_data, tmp_path):
    """Photographs in folders of WordNet ids and of numbers, and flat with three kinds of lists."""
    shutil.unpack_archive(real_data / "imagenet-nips2017-250.tar", tmp_path, filter="data")
    rows = pd.read_csv(tmp_path / "images.csv").iloc[:12]
    ids, weights = imagenet_ids(), real_data / "imagenet-squeezenet1_1.pt"
    labels, names = (rows["TrueLabel"] - 1).tolist(), [f"{name}.png" for name in rows["ImageId"]]
    for name, label in zip(names, labels, strict=True):
        for folder in (f"wordnet/{ids[label]}", f"numbers/{label}", "flat/images"):
            (nearest / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "images" / name, nearest / folder / name)
    pairs = [*zip(names, labels, strict=True)]
    lists = {
        "val.txt": [f"{name} {label}" for name, label in pairs],
        "names.csv": ["file;label", *(f"{name};{label}" for name, label in pairs)],
        "LOC_val_solution.csv": [
            "ImageId,PredictionString",
            *(f"{Path(name).stem},{ids[label]} 1 2 30 40 " for name, label in pairs),
        ],
    }
    for name, lines in lists.items():
        (nearest / "flat" / name).write_text("\n".join(lines))
    mean, std = "[0.485, 0.458, 0.408]", "[0.00392, 0.00392, 0.00392]"
    text = MODEL.format("squeeze", "torchvision.models.squeezenet1_1", mean, std)
    (nearest / "conf/model/squeeze.yaml").write_text(
        f"{text.replace('num_classes: null', '')}weights: {weights}\n".replace(", }", "}")
    )
    network = squeezenet1_1().eval()
    load_weights(network, weights)
    prepare = Compose([Resize(256), CenterCrop(224), ToTensor()])
    images = torch.stack([prepare(Image.open(tmp_path / "images" / name)) for name in names])
    scaled = (images - torch.tensor([0.485, 0.458, 0.408]).view(3, 1, 1)) / 0.00392
    with torch.no_grad():
        correct = int((network(scaled).argmax(1) == torch.tensor(labels)).sum())
    cut = ["dataset.resize=256", "dataset.image_size=224"]
    flat = ["dataset=image_csv", "dataset.root=flat", *cut]
    kaggle = ["dataset.csv=LOC_val_solution.csv", "dataset.label_column=PredictionString"]
    columns = ["dataset.id_column=file", "dataset.label_column=label", "dataset.first_label=0"]
    headless = ["dataset.id_column=0", "dataset.label_column=1", "dataset.first_label=0"]
    for words in (
        ["dataset=imagenet", "dataset.root=wordnet"],
        ["dataset=image_folder", "dataset.root=numbers", "dataset.class_names=imagenet", *cut],
        [*flat, "dataset.csv=names.csv", *columns],
        [*flat, "dataset.csv=val.txt", *headless],
        [*flat, *kaggle],
    ):
        assert shown(*words, model="squeeze")[:2] == (0, f"{correct} / 12")
    code, _, text = shown("dataset=image_folder", "dataset.root=wordnet", *cut, model="squeeze")
    assert code != 0 and "set dataset.class_names=imagenet" in text
