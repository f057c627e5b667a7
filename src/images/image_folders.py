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

from src.config.settings import AttackSettings, SavedSettings, TargetLabelRule
from src.data import ImageDataset, LabelledImages
from src.data.image_csv import image_csv
from src.images.saved_images import UNKNOWN, SavedImages


def open_foreign_images(settings: SavedSettings) -> SavedImages:
    """Open two folders of images; those that the CSV does not list are left out."""
    if settings.clean is None or settings.eps_255 is None:
        raise ValueError("the images of another program need attack.clean and attack.eps_255.")
    table = Path(settings.labels or Path(settings.clean).parent / "labels.csv")
    clean = _open_listed(settings.clean, table)
    adversarial = ImageDataset(_open_listed(settings.path, table))
    sizes = ImageDataset(clean).image_size, adversarial.image_size
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{settings.clean} holds images of {sizes[0]} pixels, and the adversarial ones have "
            f"{sizes[1]}; give the clean images as the attack saw them."
        )
    origin = settings.origin
    if origin.targeted and clean.target_labels is None:
        raise ValueError("attack.origin.targeted=true needs a CSV with a column targeted_label.")
    name = origin.attack
    if name == UNKNOWN:  # it is called by its folder
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", Path(settings.path).resolve().name)[:100]
    rule: TargetLabelRule | None = "data" if origin.targeted else None
    return SavedImages(
        source=origin.source,
        attack=AttackSettings(name=name, label=name, norm=origin.norm, target_label=rule),
        budgets_255=(settings.eps_255,),
        dataset=origin.dataset,
        index=np.arange(len(clean)),
        clean=clean if origin.targeted else replace(clean, target_labels=None),
        read=lambda row: adversarial[[row]].images,
    )


def _open_listed(folder: str, table: Path) -> LabelledImages:
    """Return a folder's images that a CSV lists."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder.")
    return image_csv(
        "test",
        root=folder,
        csv=str(table.absolute()),
        folder=".",
        id_column="filename",
        label_column="label",
        target_column="targeted_label",
        first_label=0,
    )
