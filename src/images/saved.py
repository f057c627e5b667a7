"""Saved adversarial images, as a source of adversarial images and as a data set.

A set has a folder of clean images and one folder per budget, all with the same file names, and a
CSV with the columns `filename`, `label` and, for a targeted attack, `targeted_label`. A set of this
program is a single folder. Its CSV also has a column `index`, and it contains the job's record:

    adversarial/record.json    the record, and the SHA-256 of every other file
    adversarial/images.csv
    adversarial/0/17.png       the clean image 17, an 8-bit RGB image
    adversarial/2.5/17.png     its version at the budget 2.5/255

A set of another program has one budget and no record.

Reference:
    TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack), transferattack/utils.py,
    `AdvDataset` and `save_images`: a flat folder of images with the names of the clean ones. A
    `labels.csv`, counting from 0, is next to the folder of clean images. TransferAttack attacks at
    224 x 224, and rounds down when it saves.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor

from ..artifacts.layout import IMAGE_LIST, RECORD, SAVED
from ..artifacts.record import JobRecord, parse_record, sealed
from ..config.attack_settings import AttackSettings, SavedSettings
from ..config.fields import Budget, ModelName, Name
from ..config.sections import TargetLabelRule
from ..data import Batch, ImageDataset, LabelledImages, to_unit
from ..data.files import to_rgb
from ..data.image_files import image_csv
from ..utils.about import Norm
from ..utils.files import reading, sha256_of, temporary_name, write_csv, write_text, writing
from .storage import AdversarialBatch, AttackedImages, change_size, exceeds

UNKNOWN = "unknown"
_MEASURED = 32  # images measured at once


class Breach(NamedTuple):
    """A stated budget, in 1/255, that some `images` exceed, with changes up to `measured`."""

    stated: float
    measured: float
    images: int


class _Decoded(LabelledImages):
    """Images in files, identified in keys by their pixels instead of the files' bytes.

    Their files have other names than those in the data set, in which a job lists its images.
    """

    keeps_names = False

    def __getitem__(self, position: int) -> tuple[np.ndarray, int]:
        return to_rgb(self.images[position]), int(self.targets[position])


@dataclass(frozen=True, eq=False)
class SavedImages:
    """Set of N images at K budgets; images are read only when they are needed.

    Attributes:
        source: Model that the images were crafted on, `a+b` for an ensemble.
        budgets_255: K budgets in units of 1/255, ascending.
        dataset: Name of the data set.
        index: int64 (N,), position of each image in its data set, ascending.
        clean: N clean images with labels and, if known, class names; for a targeted attack also
            target labels.
        read: Function from a row to its image at each budget, uint8 (K, 3, H, W).
        ensemble: Quantity that the ensemble averages; None: unknown.
        weights: Digests of the sources' weights by name, if known.
        data: Digest of the clean images that the set states, used only in its job's record (keys
            use the pixels). Empty: not stated.
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

    def __len__(self) -> int:
        return len(self.clean)

    def adversarial(self, rows: Sequence[int]) -> Tensor:
        """Read the adversarial images of `rows`, uint8 (K, n, 3, H, W)."""
        return torch.stack([self.read(row) for row in rows], dim=1)

    def versions(self, batch: Batch, budgets: tuple[float, ...]) -> AdversarialBatch:
        """Return the saved versions of a batch's images unchanged."""
        rows = np.searchsorted(self.index, batch.index.cpu().numpy())
        places = [self.budgets_255.index(eps) for eps in budgets]
        images = self.adversarial(rows.tolist())[places].to(batch.images.device)
        targets = self.clean.target_labels
        labels = None if targets is None else torch.from_numpy(targets[rows]).to(images.device)
        return AdversarialBatch(to_unit(images), budgets, labels)

    @cached_property
    def _contents(self) -> tuple[Tensor, str]:
        """Sizes of the changes, float64 (K, N), and SHA-256 of the images, read in batches."""
        clean, sizes, total = ImageDataset(self.clean), [], hashlib.sha256()
        for first in range(0, len(self), _MEASURED):
            rows = range(first, min(first + _MEASURED, len(self)))
            images = self.adversarial(rows)
            sizes.append(change_size(images, clean[rows].images, self.attack.norm))
            total.update(images.numpy().tobytes())
        return torch.cat(sizes, dim=1), total.hexdigest()

    @cached_property
    def breaches(self) -> tuple[Breach, ...]:
        """Budgets that some images exceed; reads all images, in batches."""
        return tuple(
            Breach(eps_255, math.ceil(1000 * float(size.max())) / 1000, int(beyond.sum()))
            for eps_255, size in zip(self.budgets_255, self._contents[0], strict=True)
            if (beyond := exceeds(size, eps_255, self.attack.norm)).any()
        )

    @cached_property
    def digest(self) -> str:
        """Digest of the set's content, independent of its files: 16 hexadecimal digits."""
        targets = self.clean.target_labels
        facts = (self.source, self.attack, self.budgets_255, self.dataset, self.ensemble)
        numbers = (self.index.tolist(), None if targets is None else targets.tolist())
        content = repr((facts, sorted(self.weights.items()), numbers, self._contents[1]))
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def saved_dataset(
    saved: SavedImages,
    *,
    num_classes: int | None = None,
    class_names: str | Sequence[str] | None = None,
    **subset: Any,
) -> ImageDataset:
    """Return a set's clean images as a data set.

    `num_classes` and `class_names` are needed if the set does not state its classes. `n_images` and
    `seed` choose a `subset`, see `ImageDataset`.
    """
    if (names := saved.clean.classes) is not None:
        num_classes, class_names = len(names), None
    elif num_classes is None:
        raise ValueError(
            "The saved images do not state the number of classes; set dataset.num_classes=N."
        )
    classes: dict[str, Any] = {"num_classes": num_classes, "class_names": class_names}
    clean = replace(saved.clean, target_labels=None)  # they belong to the attack
    return ImageDataset(clean, numbers=saved.index, **classes, **subset)


def write_set(
    folder: Path,
    record: JobRecord,
    batches: Iterable[Sequence[AttackedImages]],
    targets: Mapping[int, int | None],
) -> None:
    """Write a job's adversarial images, rounded inside their balls, and replace its earlier set.

    The folder gets its name once it is complete. A batch is a list of its images at each budget;
    `targets` are target labels by index.
    """
    labels: dict[int, int] = {}
    prefix = temporary_name(folder)
    with writing(folder), TemporaryDirectory(prefix=prefix, dir=folder.parent) as place:
        new = Path(place, "new")
        for eps_255 in record.budgets:
            (new / _folder_name(eps_255)).mkdir(parents=True)
        for versions in batches:
            batch, index = versions[0].batch, versions[0].batch.index.tolist()
            labels |= zip(index, batch.labels.tolist(), strict=True)
            levels = {version.eps_255: version.rounded(version.adversarial) for version in versions}
            for eps_255, images in {0.0: batch.images, **levels}.items():
                pixels = images.permute(0, 2, 3, 1).numpy()
                for number, image in zip(index, pixels, strict=True):
                    Image.fromarray(image).save(new / _folder_name(eps_255) / f"{number}.png")
        table = pd.DataFrame(labels.items(), columns=["index", "label"])
        table.insert(0, "filename", table["index"].astype(str) + ".png")
        if None not in targets.values():
            table["targeted_label"] = table["index"].map(targets)
        write_csv(new / IMAGE_LIST, table)
        files = sorted(path for path in new.rglob("*") if path.is_file())
        digests = {path.relative_to(new).as_posix(): sha256_of(path) for path in files}
        content = sealed(SAVED, record) | {"files": digests}
        write_text(new / RECORD, json.dumps(content, indent=1))
        if (folder / RECORD).exists():  # never replace a folder that is not a set
            folder.rename(Path(place, "old"))
        new.rename(folder)


def _folder_name(eps_255: float) -> str:
    """Return the name of a budget's folder, such as `8` or `2.5`."""
    return np.format_float_positional(eps_255, trim="-")


def open_set(settings: SavedSettings) -> SavedImages:
    """Open a set that its record or, without one, the settings describe; no image is read yet."""
    folder = Path(settings.path)
    if (folder / RECORD).exists():
        if settings != SavedSettings(path=settings.path):
            raise ValueError(
                f"{RECORD} already states clean, labels, eps_255 and origin. Leave out these keys."
            )
        return _open_recorded(folder)
    if settings.clean is None or settings.eps_255 is None:
        raise ValueError(
            f"{folder / RECORD} does not exist. Set attack.path to the folder adversarial/ of a "
            "job with save_adversarial=true, or for images of another program also set "
            "attack.clean and attack.eps_255."
        )
    origin, clean_folder = settings.origin, Path(settings.clean)
    table = Path(settings.labels or clean_folder.parent / "labels.csv")
    clean, read = _open_folders([clean_folder, folder], table, origin.targeted)
    name = origin.attack
    if name == UNKNOWN:  # named after its folder
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", folder.resolve().name)[:100]
    rule: TargetLabelRule | None = "data" if origin.targeted else None
    return SavedImages(
        source=origin.source,
        attack=AttackSettings(name=name, label=name, norm=origin.norm, target_label=rule),
        budgets_255=(settings.eps_255,),
        dataset=origin.dataset,
        index=np.arange(len(clean)),
        clean=clean,
        read=read,
    )


def _open_recorded(folder: Path) -> SavedImages:
    """Open a set with a record; all of its files must exist unchanged."""
    facts = read_set_record(folder)
    folders = [folder / _folder_name(eps_255) for eps_255 in facts.budgets]
    clean, read = _open_folders(folders, folder / IMAGE_LIST, facts.target_label is not None)
    numbers = [path.stem for path in clean.images]
    index = np.array([int(number) if number.isdecimal() else -1 for number in numbers])
    if (np.diff(index, prepend=-1) <= 0).any():
        raise ValueError(f"{folder / IMAGE_LIST} must list images by ascending number, as 17.png.")
    return SavedImages(
        source=facts.source,
        attack=AttackSettings(
            name=facts.attack, label=facts.label, norm=facts.norm, target_label=facts.target_label
        ),
        budgets_255=facts.budgets[1:],
        dataset=facts.dataset,
        index=index,
        clean=_Decoded(clean.images, clean.targets, facts.class_names, clean.target_labels),
        read=read,
        ensemble=facts.ensemble,
        weights={name: facts.weights[name] for name in facts.members},
        data=facts.data,
    )


def _open_folders(
    folders: Sequence[Path], table: Path, targeted: bool
) -> tuple[LabelledImages, Callable[[int], Tensor]]:
    """Open the images that a CSV lists in K + 1 folders, the first with clean images.

    Return the clean images, and a function from a row to its versions, uint8 (K, 3, H, W).
    """
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise ValueError(f"{missing[0]} is not a folder.")
    columns = {"id_column": "filename", "label_column": "label", "target_column": "targeted_label"}
    place = {"csv": str(table.absolute()), "folder": "."}
    clean, *changed = (
        image_csv("test", root=str(folder), first_label=0, **place, **columns) for folder in folders
    )
    if not targeted:
        clean = replace(clean, target_labels=None)
    elif clean.target_labels is None:
        raise ValueError("attack.origin.targeted=true needs a CSV with a column targeted_label.")
    versions = [ImageDataset(images) for images in changed]
    side = ImageDataset(clean).image_size
    if others := {images.image_size for images in versions} - {side}:
        raise ValueError(
            f"{folders[0]} holds images of {side} pixels, but the adversarial images have "
            f"{others.pop()}. Save the clean images as the attack saw them."
        )
    return clean, lambda row: torch.cat([images[[row]].images for images in versions])


_Digest = Annotated[str, Field(pattern=r"^\w{1,64}$")]


def _ascending(budgets: tuple[float, ...]) -> tuple[float, ...]:
    if budgets[0] != 0 or list(budgets) != sorted({*budgets}):
        raise ValueError("the budgets must ascend from 0")
    return budgets


class SetFacts(BaseModel):
    """Facts about a set. Nothing else in its record is read, because a stranger may have sent it.

    In particular the settings of its attack, which name code, are ignored.

    Attributes:
        attack: Name of the attack; `label` is its name with settings.
        members: Models that the images were crafted on; several are an ensemble.
        defence: Defence that the source was attacked behind.
        budgets: Budgets in units of 1/255, ascending, 0 first.
        images: Number of images.
        weights: Digests of models' weights by name.
        data: Digest of the clean images.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)
    attack: Name
    label: Annotated[str, Field(min_length=1, max_length=1000)]
    norm: Norm
    target_label: TargetLabelRule | None
    source: str
    members: tuple[ModelName, ...]
    defence: Name
    ensemble: Literal["logits", "probabilities", "loss"]
    dataset: Name
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    budgets: Annotated[tuple[Budget, ...], Field(min_length=2), AfterValidator(_ascending)]
    images: PositiveInt
    weights: dict[str, _Digest]
    data: _Digest


def read_set_record(folder: Path) -> SetFacts:
    """Read the record of a set, and check that its folder holds exactly the files it lists.

    Raises:
        ValueError: The record is invalid, or a file is missing, changed, or not listed.
    """
    path = folder / RECORD
    text = path.read_bytes()
    _, record = parse_record(text, path)
    with reading(path, "the record of a set"):
        facts = SetFacts(
            **record.model_dump(include={*SetFacts.model_fields}),
            target_label=record.config["attack"]["target_label"],
            ensemble=record.config["ensemble"],
            members=record.source_model.members,
            defence=record.source_model.defence,
        )
    if missing := [name for name in facts.members if name not in facts.weights]:
        raise ValueError(f"{path} states no weights of {missing[0]}, which the images are from.")
    _check_files(folder, facts, json.loads(text).get("files"))
    return facts


def _check_files(folder: Path, facts: SetFacts, digests: Any) -> None:
    """Refuse a folder whose files differ from the digests that its record lists by name."""
    if not isinstance(digests, dict) or len(digests) != 1 + facts.images * len(facts.budgets):
        raise ValueError(f"{folder / RECORD} lacks files of its set; save the set again.")
    for name, digest in digests.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            raise ValueError(f"{folder / name} is missing or was changed; save the set again.")
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = {path.relative_to(folder).as_posix() for path in paths}
    for name in sorted(names ^ {RECORD, *digests}):
        raise ValueError(f"{folder / name} is not a file of the set in {RECORD}. Remove it.")
