"""Adversarial images in files, as a source of adversarial images and as a data set.

A set of this program is one parquet file with its job's record: a row is an image, in the order of
the index: `index`, `label` and, null where the attack is untargeted, `target_label`; `clean`, the
3 H W grey levels of the clean image, and `adversarial`, the K 3 H W ones of its versions at the
record's K budgets, both as bytes. A set of another program is two folders of image files, and a CSV
that lists them.

Reference:
    TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack), transferattack/utils.py,
    `AdvDataset` and `save_images`: a flat folder of images named as the clean ones, beside whose
    folder is a `labels.csv`, from 0. It attacks at 224 x 224, and stores by rounding down.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from src.artifacts.layout import SET
from src.artifacts.record import JobRecord, read_record, with_record
from src.config.attack_settings import AttackSettings, SavedSettings
from src.config.sections import TargetLabelRule
from src.data import Batch, ImageDataset, LabelledImages
from src.data.image_csv import image_csv
from src.images.attacker import AdversarialSource
from src.images.storage import AdversarialBatch, AttackedImages, change_size, exceeds
from src.utils.defended_names import split_source
from src.utils.files import atomic_write
from src.utils.refusals import first_line

UNKNOWN = "unknown"
_MEASURED = 32  # images measured at once
_TABLE, _GROUP = "adversarial", 16  # images that are read at once
_NUMBERS = ("index", "label", "target_label")
_PIXELS = ("clean", "adversarial")
_SCHEMA = pa.schema(dict.fromkeys(_NUMBERS, pa.int64()) | dict.fromkeys(_PIXELS, pa.binary()))


class Breach(NamedTuple):
    """A stated budget, in 1/255, that `images` of a set exceed, by changes up to `measured`."""

    stated: float
    measured: float
    images: int


class LazyImages(Sequence[Any]):
    """Images by row, each read when it is asked for."""

    def __init__(self, read: Callable[[int], Any], count: int) -> None:
        self.read, self.total = read, count

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, row: Any) -> Any:
        return self.read(row)


@dataclass(frozen=True, eq=False)
class SavedImages:
    """Set of N images at K budgets, of which only those asked for are read.

    Attributes:
        source: Model that the images were crafted on, `a+b` for an ensemble.
        budgets_255: K budgets in units of 1/255, ascending.
        dataset: Name of the data set.
        index: int64 (N,), position of each image in its data set, ascending.
        clean: N clean images with labels and, as far as known, the classes' names; of a targeted
            attack also the classes that it aimed for.
        read: Row to its image at each budget, uint8 (K, 3, H, W).
        ensemble: Quantity that the ensemble averages; None: not known.
        weights: Digests of the sources' weights by name, as far as they are known.
        data: Digest that the set states of its clean images, for its job's record alone: a key
            is made of their pixels. Empty: not stated.
    """

    source: str
    attack: AttackSettings
    budgets_255: tuple[float, ...]
    dataset: str
    index: np.ndarray
    clean: LabelledImages
    read: Callable[[int], Tensor]
    ensemble: str | None = None
    weights: Mapping[str, str] = field(default_factory=dict)
    data: str = ""

    def __post_init__(self) -> None:
        if not len(self) or (np.diff(self.index) <= 0).any():
            raise ValueError("The index must name one image or more, and none more than once.")

    def __len__(self) -> int:
        return len(self.clean)

    def adversarial(self, rows: Sequence[int]) -> Tensor:
        """Return the adversarial images of some rows, uint8 (K, n, 3, H, W)."""
        return torch.stack([self.read(row) for row in rows], dim=1)

    @cached_property
    def breaches(self) -> tuple[Breach, ...]:
        """Budgets that some images exceed; all are read, some at a time."""
        norm, parts = self.attack.norm, []
        for first in range(0, len(self), _MEASURED):
            rows = range(first, min(first + _MEASURED, len(self)))
            clean = ImageDataset(self.clean)[rows].images
            parts.append(change_size(self.adversarial(rows), clean, norm))
        sizes = zip(self.budgets_255, torch.cat(parts, dim=1), strict=True)
        return tuple(
            Breach(eps_255, math.ceil(1000 * float(size.max())) / 1000, int(beyond.sum()))
            for eps_255, size in sizes
            if (beyond := exceeds(size, eps_255, norm)).any()
        )

    @cached_property
    def digest(self) -> str:
        """Identity of the set's content, however it lies in files: 16 hexadecimal digits."""
        targets = self.clean.target_labels
        facts = (self.source, self.attack, self.budgets_255, self.dataset, self.ensemble)
        numbers = (self.index.tolist(), None if targets is None else targets.tolist())
        total = hashlib.sha256(repr((facts, sorted(self.weights.items()), numbers)).encode())
        for row in range(len(self)):
            total.update(self.read(row).numpy().tobytes())
        return total.hexdigest()[:16]


class SavedImagesSource(AdversarialSource):
    """Saved images as the source of a batch's adversarial images."""

    def __init__(self, saved: SavedImages) -> None:
        super().__init__(saved.attack.norm)
        self._saved = saved

    def forward(self, images: Tensor, batch: Batch, budgets: tuple[float, ...]) -> AdversarialBatch:
        """Return the saved versions of the batch's images unchanged."""
        rows = np.searchsorted(self._saved.index, batch.index.cpu().numpy())
        places = [self._saved.budgets_255.index(eps) for eps in budgets]
        levels = self._saved.adversarial(rows.tolist())[places]
        targets = self._saved.clean.target_labels
        return AdversarialBatch(
            levels.to(images.device).to(images.dtype) / 255,
            budgets,
            None if targets is None else torch.from_numpy(targets[rows]).to(images.device),
        )


def saved_dataset(
    saved: SavedImages,
    *,
    num_classes: int | None = None,
    class_names: str | Sequence[str] | None = None,
    **subset: Any,
) -> ImageDataset:
    """Return a set's clean images, whose classes are given as far as the set does not state them.

    `n_images` and `seed` choose a `subset`, see `ImageDataset`.
    """
    if (names := saved.clean.classes) is not None:
        num_classes, class_names = len(names), None
    elif num_classes is None:
        raise ValueError(
            "The saved images do not say how many classes there are; set dataset.num_classes=N."
        )
    classes: dict[str, Any] = {"num_classes": num_classes, "class_names": class_names}
    return ImageDataset(saved.clean, numbers=saved.index, **classes, **subset)


def write_set(
    folder: Path,
    record: JobRecord,
    batches: Iterable[Sequence[AttackedImages]],
    targets: Mapping[int, int | None],
) -> None:
    """Write a job's adversarial images, rounded inside their balls; all of them or no file.

    A batch is its images at each budget, `targets` are target labels by index.
    """
    schema = with_record(_SCHEMA.empty_table(), _TABLE, record).schema
    options = {"write_page_checksum": True, "use_dictionary": False, "write_statistics": False}
    with atomic_write(folder / SET) as path, pq.ParquetWriter(path, schema, **options) as file:
        for versions in batches:
            levels = torch.stack([each.rounded(each.adversarial) for each in versions], dim=1)
            batch, index = versions[0].batch, versions[0].batch.index.tolist()
            columns = {
                "index": index,
                "label": batch.labels.numpy(),
                "target_label": [targets[number] for number in index],
                "clean": [image.tobytes() for image in batch.images.numpy()],
                "adversarial": [image.tobytes() for image in levels.numpy()],
            }
            file.write_table(pa.table(columns, schema=schema), row_group_size=_GROUP)


def read_set(folder: Path) -> SavedImages:
    """Open a job's set, of which all images must be there; they are read when asked for."""
    path = folder / SET
    table, record = read_record(path) or ("", None)
    if table != _TABLE or record is None:
        raise ValueError(f"{path} holds no adversarial images of this program.")
    try:
        return _open(path, record)
    except Exception as error:  # of many kinds, depending on where the damage lies
        raise ValueError(
            f"{path} is damaged, incomplete or of another version ({first_line(error)[:400]})."
        ) from error


def _open(path: Path, record: JobRecord) -> SavedImages:
    attack = AttackSettings.model_validate(record.config["attack"])
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        layout = file.metadata
        if not file.schema_arrow.equals(_SCHEMA):
            raise ValueError(f"its columns are not {', '.join(_SCHEMA.names)}")
        if layout.num_rows != record.images:
            raise ValueError(f"it holds {layout.num_rows} of {record.images} images")
        table = file.read(_NUMBERS[: 2 + (attack.target_label is not None)]).to_pydict()
    numbers = {name: np.array(column, np.int64) for name, column in table.items()}
    starts = np.cumsum([0, *(layout.row_group(n).num_rows for n in range(layout.num_row_groups))])
    side = math.isqrt(record.values // 3)
    counts = {"clean": 1, "adversarial": len(record.budgets) - 1}

    @lru_cache(maxsize=4)
    def group(name: str, number: int) -> pa.ChunkedArray:
        # Opened anew: processes share no handle.
        with pq.ParquetFile(path, metadata=layout, page_checksum_verification=True) as file:
            return file.read_row_group(number, [name], use_threads=False)[name]

    def read(name: str, row: int) -> Tensor:
        """Return an image's levels, uint8 (1 or K, 3, H, W)."""
        number = int(np.searchsorted(starts, row, side="right")) - 1
        try:
            levels = bytearray(group(name, number)[row - int(starts[number])].as_py())
            return torch.frombuffer(levels, dtype=torch.uint8).view(counts[name], 3, side, side)
        except Exception as error:  # of many kinds, too
            raise ValueError(f"{path} is damaged ({first_line(error)[:400]}).") from error

    clean = LazyImages(lambda row: read("clean", row)[0], record.images)
    labels, targets = numbers["label"], numbers.get("target_label")
    members = split_source(record.source).target.split("+")
    return SavedImages(
        source=record.source,
        attack=attack,
        budgets_255=record.budgets[1:],
        dataset=record.dataset,
        index=numbers["index"],
        clean=LabelledImages(clean, labels, record.class_names, targets),
        read=partial(read, "adversarial"),
        ensemble=record.config["ensemble"],
        weights={name: record.weights[name] for name in members},
        data=record.data,
    )


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
    columns = {"id_column": "filename", "label_column": "label", "target_column": "targeted_label"}
    csv = str(table.absolute())
    return image_csv("test", root=folder, csv=csv, folder=".", first_label=0, **columns)
