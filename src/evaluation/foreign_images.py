"""Adversarial images of another program: two folders of image files, and a CSV that lists them.

Reference:
    TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack), transferattack/utils.py,
    `AdvDataset` and `save_images`: a flat folder of images named as the clean ones, and a
    `labels.csv` beside the folder of the clean ones. Labels count from 0. It resizes clean images
    to 224 x 224 before it attacks, and stores by rounding down.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from src.config.settings import AttackSettings, SavedSettings, TargetLabelRule
from src.data import LabelledImages, to_rgb
from src.data.image_csv import image_csv
from src.evaluation.saved_images import UNKNOWN, LazyImages, SavedImages


def open_foreign_images(settings: SavedSettings) -> SavedImages:
    """Open two folders of images; those that the CSV does not list are left out."""
    if settings.clean is None or settings.eps_255 is None:
        raise ValueError("the images of another program need attack.clean and attack.eps_255.")
    table = Path(settings.labels or Path(settings.clean).parent / "labels.csv")
    adversarial, clean = (_listed(folder, table) for folder in (settings.path, settings.clean))
    origin, aimed = settings.origin, clean.target_labels
    if origin.targeted and aimed is None:
        raise ValueError("attack.origin.targeted=true needs a CSV with a column targeted_label.")
    name = origin.attack
    if name == UNKNOWN:  # it is called by its folder
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", Path(settings.path).resolve().name)[:100]
    rule: TargetLabelRule | None = "data" if origin.targeted else None
    size = _image(adversarial.images[0]).size
    images = LazyImages(
        lambda row: _image(clean.images[row], size, settings.resize_clean), len(clean)
    )
    return SavedImages(
        source=origin.source,
        attack=AttackSettings(name=name, label=name, norm=origin.norm, target_label=rule),
        budgets_255=(settings.eps_255,),
        dataset=origin.dataset,
        index=np.arange(len(clean)),
        clean=replace(clean, images=images, target_labels=aimed if origin.targeted else None),
        read=lambda row: pil_to_tensor(_image(adversarial.images[row], size))[None],
    )


def _listed(folder: str, table: Path) -> LabelledImages:
    """Return a folder's images that a CSV lists."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder.")
    return image_csv(
        "test",
        root=folder,
        csv=str(table.absolute()),
        images=".",
        id_column="filename",
        label_column="label",
        target_column="targeted_label",
        first_label=0,
    )


def _image(path: Path, size: tuple[int, int] | None = None, resize: bool = False) -> Image.Image:
    """Return the image in a file, of a width and height if they are given.

    Where it has others, it is resized by the filter that TransferAttack applies, or refused.
    """
    try:
        image = Image.fromarray(to_rgb(path))
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    if size and resize:
        image = image.resize(size, Image.Resampling.BICUBIC)
    if size and size != image.size:
        raise ValueError(
            f"{path} must have {size[0]} x {size[1]} pixels, not {image.width} x {image.height}; "
            "attack.resize_clean=true resizes clean images."
        )
    return image
