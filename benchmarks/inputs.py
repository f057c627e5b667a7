"""The models and images that the sweeps are of, as words of the program's command line."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from src.utils.files import write_text

_PER_CLASS = {"train": 100, "test": 100}  # of CIFAR-10's 5,000 and 1,000
_IMAGENET = {
    "mobilenet": """
network:
  {_target_: timm.create_model, model_name: mobilenetv2_100, pad_type: same, num_classes: null}
mean: [0.5, 0.5, 0.5]
std: [0.5, 0.5, 0.5]
weights: 'DATA/imagenet-mobilenetv2_100.pt'""",
    "squeezenet": """
network: {_target_: torchvision.models.squeezenet1_0, num_classes: null}
mean: [0.485, 0.456, 0.406]
std: [0.229, 0.224, 0.225]
weights: 'DATA/imagenet-squeezenet1_0.pt'""",
}


class Input(NamedTuple):
    """Images and models that every library attacks.

    Attributes:
        name: Name of the input and of its folder.
        models: Names of the models, each a source and a target.
        words: Words of the command line that name models and images.
    """

    name: str
    models: tuple[str, ...]
    words: tuple[str, ...]


def demo(folder: Path) -> Input:
    """Return the images and models of `make demo`, which need no files."""
    models = ("vgg_small", "resnet_small", "inception_small")
    return Input("demo", models, ("experiment=demo", "epsilon.reference=null"))


def cifar(folder: Path) -> Input:
    """Return CIFAR-10 with two large models, which are trained for a moment: they are timed."""
    root = folder / "images"
    for split, most in _PER_CLASS.items():
        if not (root / split).exists():
            with tarfile.open(_data() / f"cifar10-jpeg-{split}.tar.xz") as archive:
                files = (one for one in archive if one.isfile())
                chosen = [one for one in files if int(Path(one.name).stem) < most]
                archive.extractall(root / ".part", chosen, filter="data")
            (root / ".part" / split).rename(root / split)  # whole, or not there
    words = ("dataset=image_folder", f"dataset.root='{root}'", "training.epochs=1")
    return Input("cifar", ("vgg16", "resnet50"), (*words, "clean_accuracy_check.action=warn"))


def photographs(folder: Path) -> Input:
    """Return 250 photographs of the NIPS 2017 competition with two ImageNet models."""
    data = _data()
    if not (root := folder / "photographs").exists():
        shutil.unpack_archive(data / "imagenet-nips2017-250.tar", folder / ".part", filter="data")
        (folder / ".part").rename(root)  # whole, or not there
    for name, text in _IMAGENET.items():
        text = f"# @package model.{name}{text}\ninput_size: 224\n"
        write_text(folder / "model" / f"{name}.yaml", text.replace("DATA", str(data)))
    words = (
        f"hydra.searchpath=['file://{folder}']",  # what --config-dir adds
        "dataset=image_csv",
        f"dataset.root='{root}'",
    )
    return Input("photographs", tuple(_IMAGENET), words)


def _data() -> Path:
    folder = os.environ.get("TRANSFER_DATA")
    if not folder or not Path(folder).is_dir():
        raise FileNotFoundError
    return Path(folder).absolute()


INPUTS: dict[str, Callable[[Path], Input]] = {
    "demo": demo,
    "cifar": cifar,
    "photographs": photographs,
}
"""Functions of an absolute folder for their files; FileNotFoundError without TRANSFER_DATA."""
