"""Read adversarial images that other projects have stored.

Reference:
    TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack), transferattack/utils.py,
    `AdvDataset` and `save_images`: a flat folder of images named as the clean ones; `labels.csv`
    lies in the folder of the data, the clean images in its sub-folder `images`. Labels count from
    0. It resizes clean images to 224 x 224 before it attacks, and stores by rounding down.
    TA-Bench (github.com/qizhangli/TA-Bench), attacker.py and attacks/helper.py: `batch_0.npy`,
    `batch_1.npy`, ..., each uint8 (N, 3, H, W), rounded to nearest, and `labels.npy`, 0-based;
    the clean images are not stored.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from src.attacks.projection import NORMS
from src.data.files import UNREADABLE, to_rgb
from src.data.image_csv import HIGHEST_LABEL, class_column, find_images, read_rows
from src.sets.arrays import load_images, load_labels
from src.sets.manifest import digest_of
from src.sets.records import AdversarialSet, blocks
from src.utils.checks import check_choice, check_number

LABELS_CSV = "labels.csv"
LABELS_NPY = "labels.npy"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Origin:
    """What the files of other projects do not say.

    Attributes:
        source: the model that they were made on.
        attack: its name.
        norm: `linf`, or `l2`: the budget is then the largest root-mean-square change in 1/255,
            which is 255 R / sqrt(3 H W) for an L2 radius R of images in [0, 1].
        dataset: the name of the data set.
        num_classes: how many classes labels may stand for, or None.
    """

    source: str = UNKNOWN
    attack: str = UNKNOWN
    norm: str = "linf"
    dataset: str = UNKNOWN
    num_classes: int | None = None


NO_ORIGIN = Origin()


def read_folder(
    path: str | Path,
    labels_csv: str | Path | None = None,
    *,
    eps_255: float | None,
    clean: str | Path | None = None,
    resize_clean: bool = False,
    origin: Origin = NO_ORIGIN,
) -> AdversarialSet:
    """Read a folder of images that a CSV lists, in its order: TransferAttack's layout.

    Images that the CSV does not list are left out. All are decoded into memory.

    Args:
        path: the folder of adversarial images.
        labels_csv: columns `filename`, `label` and perhaps `targeted_label`, both 0-based; None
            takes `labels.csv` in the folder, or else beside the folder of clean images.
        eps_255: the budget in 1/255.
        clean: the folder of the clean images, of the same names.
        resize_clean: bring clean images of another size to that of the adversarial ones, by the
            bicubic filter that TransferAttack applies before its attacks.
        origin: what the files do not say.

    Raises:
        ValueError: if a file, a column or the budget is missing, or one of them is wrong.
    """
    folder = Path(path)
    eps_255 = _checked_budget(folder, eps_255, origin)
    csv = _find_csv(folder, labels_csv, clean)
    names, labels, targets = _read_csv(csv, origin.num_classes)
    adversarial = _decode_all(folder, names)
    originals = None
    if clean is not None:
        originals = _decode_all(Path(clean), names, adversarial.shape[-2:], resize_clean)
    return _assemble(folder, eps_255, adversarial, originals, labels, targets, origin)


def read_array(
    path: str | Path,
    labels: str | Path | np.ndarray | None = None,
    *,
    eps_255: float | None,
    clean: str | Path | None = None,
    target_labels: str | Path | np.ndarray | None = None,
    origin: Origin = NO_ORIGIN,
) -> AdversarialSet:
    """Read images from `.npy` files: TA-Bench's layout, or a single array.

    Args:
        path: a `.npy` file, or a folder of `batch_0.npy`, `batch_1.npy`, ...; uint8, 0..255,
            (N, 3, H, W) or (N, H, W, 3).
        labels: 0-based, a `.npy` file or an array; None takes `labels.npy` in the same folder.
        eps_255: the budget in 1/255.
        clean: the clean images, as for `path`.
        target_labels: as for `labels`, if the attack was targeted.
        origin: what the files do not say.

    Raises:
        ValueError: if a file or the budget is missing, or one of them is wrong.
    """
    place = Path(path)
    eps_255 = _checked_budget(place, eps_255, origin)
    adversarial = load_images(place)
    originals = None if clean is None else load_images(Path(clean))
    if labels is None:
        labels = (place if place.is_dir() else place.parent) / LABELS_NPY
    true = load_labels(labels, len(adversarial))
    targets = None if target_labels is None else load_labels(target_labels, len(adversarial))
    return _assemble(place, eps_255, adversarial, originals, true, targets, origin)


def _checked_budget(place: Path, eps_255: float | None, origin: Origin) -> float:
    if eps_255 is None:
        raise ValueError(f"The files in {place} do not say their budget: give eps_255.")
    check_number("eps_255", eps_255, 0, 255)
    check_choice("norm", origin.norm, NORMS)
    return float(eps_255)


def _find_csv(folder: Path, labels_csv: str | Path | None, clean: str | Path | None) -> Path:
    if labels_csv is not None:
        if not Path(labels_csv).is_file():
            raise ValueError(f"{labels_csv} is not a file: labels must be a CSV.")
        return Path(labels_csv)
    places = [folder / LABELS_CSV]
    if clean is not None:
        places.append(Path(clean).parent / LABELS_CSV)
    for place in places:
        if place.is_file():
            return place
    tried = " and no ".join(map(str, places))
    raise ValueError(f"There is no {tried}: give the CSV of columns filename and label.")


def _read_csv(
    csv: Path, num_classes: int | None
) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """Return the file names, labels and target labels of a CSV."""
    rows = read_rows(csv, "filename", "label")
    last = HIGHEST_LABEL if num_classes is None else num_classes - 1
    columns = [
        class_column(rows[name], 0, last) for name in ("label", "targeted_label") if name in rows
    ]
    return list(rows.index), columns[0], columns[1] if len(columns) > 1 else None


def _decode_all(
    folder: Path, names: list[str], size: tuple[int, ...] | None = None, resize: bool = False
) -> np.ndarray:
    """Read images as uint8 (N, 3, H, W), of the given size or else of that of the first one."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder of images.")
    paths = find_images(folder, names)
    height, width = size or _decode(paths[0]).shape[:2]
    images = np.empty((len(names), 3, height, width), dtype=np.uint8)
    for position in range(len(names)):
        image = _decode(paths[position])
        if image.shape[:2] != (height, width) and resize:
            resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
            image = np.asarray(resized)
        if image.shape[:2] != (height, width):
            hint = "" if size is None else " (resize_clean brings clean images to that size)"
            raise ValueError(
                f"{paths[position]} must have {height} x {width} pixels like the "
                f"adversarial images, not {image.shape[0]} x {image.shape[1]}{hint}."
            )
        images[position] = image.transpose(2, 0, 1)
    return images


def _decode(path: Path) -> np.ndarray:
    try:
        return to_rgb(path)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def _assemble(
    place: Path,
    eps_255: float,
    adversarial: np.ndarray,
    clean: np.ndarray | None,
    labels: np.ndarray,
    targets: np.ndarray | None,
    origin: Origin,
) -> AdversarialSet:
    facts = {
        **asdict(origin),
        "eps_255": eps_255,
        "adversarial": _content(adversarial),
        "clean": None if clean is None else _content(clean),
        "labels": labels.tolist(),
        "target_labels": None if targets is None else targets.tolist(),
    }
    try:
        return AdversarialSet(
            index=np.arange(len(labels)),
            labels=labels,
            target_labels=targets,
            clean=clean,
            budgets_255=(eps_255,),
            adversarial=(adversarial,),
            digest=digest_of(facts),
            **asdict(origin),
        )
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _content(images: np.ndarray) -> str:
    """Hash the shape and values of images, whatever their layout in memory or on disk."""
    total = hashlib.sha256(str(images.shape).encode())
    for rows in blocks(images):
        total.update(np.ascontiguousarray(images[rows]).data)
    return total.hexdigest()
