"""The table of study A: its published numbers, and the same table of any models."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from src.analysis.matrix import CLEAN, format_cell, matrix

CORNER = "Data Type / Accuracy/ Model Structure"
"""Heading of the first column, as the study writes it."""
NORMAL_DATA = "Normal Data"
"""Row of clean images, as the study writes it."""

_NOT_RUN = "-"


def study_a(rates_by_source: Mapping[str, pd.DataFrame], eps_255: float) -> pd.DataFrame:
    """Write transfer rates as study A writes its table.

    Args:
        rates_by_source: Result of `rates` for each source, in the order of the rows. The study
            counts the images that source and target both get right when clean: `joint`.
        eps_255: Budget in units of 1/255, one of those in every table.

    Returns:
        Strings. The first column, `CORNER`, names the data: `NORMAL_DATA`, then
        `MODEL based Adversarial Data` for each source. There is a column for each target. A
        clean cell is the accuracy on all images cut to whole per cent, as in the study (8588 of
        10000 is "85%"); the others read `still correct / counted = robust accuracy`. A pair
        that was not run is "-", an accuracy that is not known "n/a". The study's models have
        the names that it gives them, others their own.

    Raises:
        ValueError: As `matrix`.
    """
    cells = matrix(rates_by_source, eps_255, "robust_accuracy")
    clean = cells["source"] == CLEAN
    names = zip(cells["source"], cells["target"], strict=True)
    texts = dict(zip(names, cells["cell"], strict=True))
    known = cells.loc[clean, ["target", "still_correct", "denominator"]]
    for target, correct, total in known.itertuples(index=False, name=None):
        texts[CLEAN, target] = f"{100 * correct // total}%"
    targets = [str(target) for target in cells.loc[~clean, "target"].unique()]
    columns = [CORNER, *map(displayed, targets)]
    rows = [[NORMAL_DATA, *(texts.get((CLEAN, target), "n/a") for target in targets)]]
    for source in rates_by_source:
        answers = [texts.get((source, target), _NOT_RUN) for target in targets]
        rows.append([_made_on(displayed(source)), *answers])
    return pd.DataFrame(rows, columns=columns, dtype="str")


def published_table() -> pd.DataFrame:
    """Return study A's table in the form of `study_a`."""
    names = list(PUBLISHED.models.values())
    rows = [[NORMAL_DATA, *(f"{PUBLISHED.clean_percent[name]}%" for name in PUBLISHED.models)]]
    for source, name in PUBLISHED.models.items():
        answers = [format_cell(*PUBLISHED.cells[source, target]) for target in PUBLISHED.models]
        rows.append([_made_on(name), *answers])
    return pd.DataFrame(rows, columns=[CORNER, *names], dtype="str")


def published_beside(ours: pd.DataFrame) -> pd.DataFrame:
    """Put the published cells beside ours, for the models that the study has too.

    Models are told by their names alone; whether the data set and the attack are the study's too
    (`PUBLISHED.dataset`, `PUBLISHED.attack`) is for the caller to see to.

    Args:
        ours: Result of `study_a`.

    Returns:
        Strings: the first column as in `ours`, then for each of the study's models among our
        columns `MODEL (published)` and `MODEL (here)`; the rows are `NORMAL_DATA` and those of
        the study's models among ours. Without a shared model there are no rows and the first
        column alone.
    """
    theirs = published_table().set_index(CORNER)
    mine = ours.set_index(CORNER)
    shared = [name for name in mine.columns if name in theirs.columns]
    rows = [row for row in mine.index if row in theirs.index] if shared else []
    columns = {CORNER: rows}
    for name in shared:
        columns[f"{name} (published)"] = theirs.loc[rows, name].tolist()
        columns[f"{name} (here)"] = mine.loc[rows, name].tolist()
    return pd.DataFrame(columns, dtype="str")


def displayed(model: str) -> str:
    """Return the name that study A gives a model; of an ensemble, those of its members.

    >>> displayed("vgg16"), displayed("vgg16+inception"), displayed("vit")
    ('VGG-16', 'VGG-16 + Inception v3', 'vit')
    """
    return " + ".join(PUBLISHED.models.get(member, member) for member in model.split("+"))


def _made_on(name: str) -> str:
    return f"{name} based Adversarial Data"


class Published(NamedTuple):
    """A published transfer table.

    Attributes:
        title: Of the repository whose README holds the table.
        weights: Address of the repository that the classifiers' weights come from.
        dataset: Name of the data set in the catalogue.
        attack: Name of the attack in the catalogue; its budget is not published.
        models: The study's name of each model, by the name in the catalogue.
        clean_percent: Accuracy on clean images in whole per cent, cut, not rounded.
        cells: (still correct, images that both get right when clean), by (source, target).
    """

    title: str
    weights: str
    dataset: str
    attack: str
    models: Mapping[str, str]
    clean_percent: Mapping[str, int]
    cells: Mapping[tuple[str, str], tuple[int, int]]


PUBLISHED = Published(
    title="Transferability-of-Adversarial-Examples",
    weights="https://github.com/huyvnphan/PyTorch_CIFAR10",
    dataset="cifar10",
    attack="fgsm",
    models=MappingProxyType(
        {"vgg16": "VGG-16", "resnet50": "ResNet-50", "inception": "Inception v3"}
    ),
    clean_percent=MappingProxyType({"vgg16": 81, "resnet50": 81, "inception": 85}),
    cells=MappingProxyType(
        {
            ("vgg16", "vgg16"): (1374, 8139),
            ("vgg16", "resnet50"): (1711, 7448),
            ("vgg16", "inception"): (1441, 7674),
            ("resnet50", "vgg16"): (1465, 7448),
            ("resnet50", "resnet50"): (1538, 8133),
            ("resnet50", "inception"): (1460, 7661),
            ("inception", "vgg16"): (1561, 7674),
            ("inception", "resnet50"): (2000, 7661),
            ("inception", "inception"): (1793, 8588),
        }
    ),
)
"""Study A, "Transferability of Adversarial Examples": FGSM on the test images of CIFAR-10."""
