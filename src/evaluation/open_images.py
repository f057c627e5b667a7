"""Open a set of adversarial images, this program's own or another's; nothing is ever unpickled.

Reference:
    TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack), transferattack/utils.py,
    `AdvDataset` and `save_images`: a flat folder of images named as the clean ones, and a
    `labels.csv`. Labels count from 0. It resizes clean images to 224 x 224 before it attacks, and
    stores by rounding down.
    TA-Bench (github.com/qizhangli/TA-Bench), attacker.py and attacks/helper.py: `batch_0.npy`,
    `batch_1.npy`, ..., each uint8 (N, 3, H, W), rounded to nearest, and `labels.npy`, 0-based;
    the clean images are not stored.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from src.config.settings import AttackSettings, SavedSettings, TargetLabelRule
from src.data import LabelledImages, to_rgb
from src.data.image_csv import image_csv
from src.evaluation.image_shards import MANIFEST, read_shards
from src.evaluation.saved_images import UNKNOWN, SavedImages, SavedImagesFacts
from src.utils.checks import first_line


def open_saved_images(settings: SavedSettings) -> SavedImages:
    """Open the set of adversarial images in a folder, whose files tell its format.

    With a `manifest.json` it is this program's own. With `batch_0.npy`, ... it is TA-Bench's:
    arrays (N, 3, H, W), uint8. Else it is TransferAttack's: image files, of which those that the
    CSV does not list are left out.
    """
    folder = Path(settings.path)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder.")
    if (folder / MANIFEST).exists():
        if settings != SavedSettings(path=settings.path):
            raise ValueError(f"{folder} says itself what clean, labels, eps_255 and origin would.")
        return read_shards(folder)
    if settings.eps_255 is None:
        if (folder / "adversarial" / MANIFEST).exists():
            raise ValueError(f"the images are in {folder / 'adversarial'}.")
        raise ValueError(
            f"{folder / MANIFEST} does not exist; for images of another program give eps_255, and "
            "for those of this one the folder adversarial/ of a job with save_adversarial=true."
        )
    if settings.clean and not Path(settings.clean).is_dir():
        raise ValueError(f"clean={settings.clean} is not a folder.")
    folders = [folder, *([Path(settings.clean)] if settings.clean else [])]
    find = _arrays if (folder / "batch_0.npy").exists() else _files
    adversarial, *clean = find(folders, Path(settings.labels) if settings.labels else None)
    size = _pixels(adversarial, 0).shape[:2]
    read = partial(_image, adversarial, size, resize=False)
    labels, targeted = adversarial.targets, settings.origin.targeted
    aimed = adversarial.target_labels if targeted else None
    if targeted and aimed is None:
        raise ValueError("attack.origin.targeted=true needs a CSV with a column targeted_label.")
    facts = SavedImagesFacts(
        **settings.origin.model_dump(exclude={"attack", "norm", "targeted"}),
        attack=_attack(settings),
        budgets_255=(settings.eps_255,),
    )
    classes = (labels.tolist(), None if aimed is None else aimed.tolist())
    content = hashlib.sha256(repr((facts, *classes)).encode())
    for row in range(len(adversarial)):
        content.update(read(row).numpy().tobytes())
    return SavedImages(
        facts=facts,
        index=np.arange(len(adversarial)),
        labels=labels,
        target_labels=aimed,
        read_adversarial=lambda row: read(row)[None],
        read_clean=partial(_image, clean[0], size, resize=settings.resize_clean) if clean else None,
        digest=content.hexdigest()[:16],
    )


def _attack(settings: SavedSettings) -> AttackSettings:
    """Return settings for a set's attack; without a name it is called by its folder."""
    name = settings.origin.attack
    if name == UNKNOWN:
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", Path(settings.path).resolve().name)[:100]
    rule: TargetLabelRule | None = "data" if settings.origin.targeted else None
    return AttackSettings(name=name, label=name, norm=settings.origin.norm, target_label=rule)


def _files(folders: Sequence[Path], table: Path | None) -> list[LabelledImages]:
    """Return each folder's images that a CSV lists."""
    places = [folders[0] / "labels.csv", folders[-1].parent / "labels.csv"]
    found = table or next((place for place in places if place.is_file()), places[0])
    return [
        image_csv(
            "test",
            root=str(folder),
            csv=str(found.absolute()),
            images=".",
            id_column="filename",
            label_column="label",
            target_column="targeted_label",
            first_label=0,
        )
        for folder in folders
    ]


def _arrays(folders: Sequence[Path], table: Path | None) -> list[LabelledImages]:
    """Return each folder's images in `batch_0.npy`, `batch_1.npy`, ..., of which none may lack."""
    table = table or folders[0] / "labels.npy"
    labels = _mapped(table)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        kind = f"{labels.dtype} {labels.shape}"
        raise ValueError(f"{table} must hold whole numbers (N,), N > 0, not {kind}.")
    found = []
    for folder in folders:
        files = [folder / f"batch_{n}.npy" for n in range(len(list(folder.glob("batch_*.npy"))))]
        batches = {file: _mapped(file) for file in files}
        for file, batch in batches.items():
            if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1] != 3 or not batch.size:
                kind = f"{batch.dtype} {batch.shape}"
                raise ValueError(f"{file} must be grey levels, uint8 (N, 3, H, W), not {kind}.")
        images = [image.transpose(1, 2, 0) for batch in batches.values() for image in batch]
        if len(images) != len(labels):
            raise ValueError(f"{folder} must hold {len(labels)} images, as many as {table}.")
        found.append(LabelledImages(images, np.array(labels)))
    return found


def _mapped(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(f"{path} is no .npy file of numbers: {first_line(error)[:400]}") from error
    return array


def _image(data: LabelledImages, size: tuple[int, int], row: int, *, resize: bool) -> Tensor:
    """Return an image of a height and width, uint8 (3, H, W)."""
    pixels = _pixels(data, row)
    if resize and pixels.shape[:2] != size:  # by the filter that TransferAttack applies
        height, width = size
        larger = Image.fromarray(pixels)
        pixels = np.asarray(larger.resize((width, height), Image.Resampling.BICUBIC))
    if pixels.shape[:2] != size:
        (height, width), (own_height, own_width) = size, pixels.shape[:2]
        raise ValueError(
            f"Image {row} must have {height} x {width} pixels, not {own_height} x {own_width}; "
            "resize_clean=true resizes clean images."
        )
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def _pixels(data: LabelledImages, row: int) -> np.ndarray:
    try:
        return to_rgb(data.images[row])
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(f"{data.images[row]} cannot be read as an image: {error}") from error
