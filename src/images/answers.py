"""Label-only target: classes that a model elsewhere predicted for saved images."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..data import to_rgb
from ..data.files import is_image_file, read_list
from ..utils.files import reading, sha256_of
from ..utils.refusals import warn_once

_CERTAIN = 1 - 1e-6  # its logits are finite


class Answers(nn.Module):
    """Network that returns the predictions in a file, for the images that the file names.

    The SHA-256 of an image's file names the image, so an answer about another file of the same name
    is refused. The predicted class has its confidence; the other classes share the rest equally.

    Args:
        file: CSV with the columns `sha256`, `predicted` (class, from 0) and perhaps `confidence`
            (probability of this class; without it, answers are certain). It has a row for each
            image that is evaluated. Other columns, such as `index`, `budget` and `filename`, are
            ignored.
        num_classes: Number of classes.
        images: Folders of the saved images; None is ignored.

    Raises:
        ValueError: The file cannot be read, has a wrong class or confidence or two predictions for
            an image, or its images are not those in the folders.
    """

    predicted: Tensor
    confidence: Tensor
    label_only = True  # it cannot classify other images, so it is not tried on any

    def __init__(self, file: str, num_classes: int, images: Sequence[str | None]) -> None:
        super().__init__()
        self.file, self.num_classes = file, num_classes
        rows = _read(file, num_classes)
        numbers = {digest: number for number, digest in enumerate(rows["sha256"])}
        paths = [path for folder in images if folder for path in Path(folder).rglob("*")]
        files = {sha256_of(path): path for path in paths if is_image_file(path.name)}
        if missing := numbers.keys() - files.keys():
            raise ValueError(
                f"{file} is about {len(missing)} images that attack=saved attack.path=FOLDER, or "
                "model.answers.network.images=[FOLDER], does not have, such as the file with "
                f"SHA-256 {min(missing)}."
            )
        if lacking := files.keys() - numbers.keys():
            counts = f"{len(lacking):,} of the {len(files):,} saved images"
            first = min(files[digest] for digest in lacking)
            warn_once(f"{file} has no answer for {counts}, such as {first}.")
        self._rows = {_digest(to_rgb(files[digest])): row for digest, row in numbers.items()}
        confidence = rows["confidence"].clip(upper=_CERTAIN)
        self.register_buffer("predicted", torch.tensor(rows["predicted"].tolist()))
        self.register_buffer("confidence", torch.tensor(confidence.tolist()))

    def forward(self, images: Tensor) -> Tensor:
        """Return log-probabilities (N, num_classes) of images (N, 3, H, W) in [0, 1]."""
        levels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        try:
            rows = [self._rows[_digest(image)] for image in levels]
        except KeyError:
            raise ValueError(f"{self.file} has no answer for one of the images") from None
        confidence = self.confidence[rows, None]
        others = (1 - confidence) / (self.num_classes - 1)
        wanted = one_hot(self.predicted[rows], self.num_classes).bool()
        return torch.where(wanted, confidence, others).log()


def _read(file: str, num_classes: int) -> pd.DataFrame:
    """Return a row per image: `sha256`, `predicted` and `confidence`, checked."""
    dtypes: dict[str, Any] = {"sha256": str, "predicted": "int64", "confidence": float}
    with reading(file, "answers with the columns sha256 and predicted"):
        rows = read_list(file).rename(columns=str.lower)
        if "confidence" not in rows:
            rows["confidence"] = 1.0
        rows["sha256"] = rows["sha256"].str.lower()
        rows["predicted"] = rows["predicted"].str.removesuffix(".0")  # pandas: beside an empty cell
        for number in rows.index.to_numpy()[~rows["predicted"].str.fullmatch("[0-9]{1,9}")]:
            raise ValueError(f"row {number + 1} has no class number in predicted")
        rows = rows[[*dtypes]].astype(dtypes).drop_duplicates(["sha256", "predicted"])
    if rows.empty:
        raise ValueError(f"{file} has no answers.")
    right = rows["predicted"].between(0, num_classes - 1) & ~rows["sha256"].duplicated()
    right &= rows["confidence"].between(1 / num_classes, 1, inclusive="right")
    for number in rows.index.to_numpy()[~right]:
        raise ValueError(
            f"{file}: row {number + 1} needs a class from 0 to {num_classes - 1}, the same one for "
            f"equal files, and a confidence above {1 / num_classes:g} and up to 1."
        )
    return rows


def _digest(image: np.ndarray) -> str:
    """Return the SHA-256 of an image's pixels, uint8 (H, W, 3)."""
    return sha256(image.tobytes()).hexdigest()
