"""Search for a model's preprocessing among common normalisations and input sizes."""

import math
import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from ..analysis import is_at_chance
from ..data import ImageDataset, to_unit
from ..models import ModelError, PixelClassifier
from ..models.architectures import NORMALISATION

_SIZES = (32, 64, 96, 128, 160, 192, 224, 227, 240, 256, 260, 288, 299, 320, 384)
_FEW, _SECONDS, _BATCH, _BEST = 40, 30, 8, 8
_CLEARLY = 0.9  # share of the cross-entropy that a suggestion may leave
_IMAGENET, _CIFAR = (tuple(NORMALISATION[stem].values()) for stem in ("imagenet", "cifar"))
_COMMON = {
    "ImageNet": _IMAGENET,
    "0.5": ((0.5,) * 3, (0.5,) * 3),
    "Caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
    "[0, 1]": ((0.0,) * 3, (1.0,) * 3),
    "[0, 255]": ((0.0,) * 3, (1 / 255,) * 3),
    "CIFAR-10": _CIFAR,
    "CIFAR-10, std per image": (_CIFAR[0], (0.2023, 0.1994, 0.2010)),
}


Score = tuple[float, int]
"""Mean cross-entropy, and number of correct images, which differs less between settings."""


class Preprocessing(NamedTuple):
    """Normalisation, order of the channels and input size, see `PixelClassifier`."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str
    input_size: int | None

    @property
    def lines(self) -> list[str]:
        """The lines of a model's file that set the normalisation."""
        values = {"mean": self.mean, "std": self.std}
        lines = [f"{key}: [{', '.join(f'{x:.6g}' for x in its)}]" for key, its in values.items()]
        return [*lines, *["channels: BGR"] * (self.channels == "BGR")]


def stated(classifier: PixelClassifier) -> Preprocessing:
    """Return the preprocessing that a classifier has."""
    mean, std = (tuple(buffer.flatten().tolist()) for buffer in (classifier.mean, classifier.std))
    return Preprocessing("of the model", mean, std, classifier.channels, classifier.input_size)


def search(classifier: PixelClassifier, images: ImageDataset) -> dict[Preprocessing, Score]:
    """Evaluate the best preprocessings and that of the model; most correct images first.

    Twice, some of the images are classified under all normalisations at the best size so far, and
    at all sizes under the best normalisation so far. Then all images are classified under the best.
    """
    few, best, scores = images.subset(_FEW), stated(classifier), dict[Preprocessing, Score]()
    for _ in range(2):
        candidates = [*_common(best), *(best._replace(input_size=size) for size in _SIZES)]
        new = [candidate for candidate in candidates if candidate not in scores]
        scores |= _evaluate(classifier, few, new)
        best = min(scores, key=scores.__getitem__)
    chosen = sorted(scores, key=scores.__getitem__)[:_BEST]
    scores = _evaluate(classifier, images, dict.fromkeys([stated(classifier), *chosen]))
    return dict(sorted(scores.items(), key=lambda item: -item[1][1]))


def suggest(classifier: PixelClassifier, images: ImageDataset) -> str:
    """Return words about a normalisation that suits some of the images better; empty if none does.

    The search takes at most 30 seconds and keeps the model's size.
    """
    few, its = images.subset(_FEW), stated(classifier)
    scores = _evaluate(classifier, few, _common(its), _SECONDS) or {its: (0.0, 0)}
    best = min(scores, key=scores.__getitem__)
    at_chance = is_at_chance(scores[best][1], len(few), images.num_classes)
    if at_chance or scores[best][0] > _CLEARLY * scores[its][0]:
        return ""
    new, old = ("{:.2f} ({} correct)".format(*scores[which]) for which in (best, its))
    return (
        f". On {len(few)} of the images, {', '.join(best.lines)} ({best.name}) give a "
        f"cross-entropy of {new} instead of {old}"
    )


def _common(its: Preprocessing) -> list[Preprocessing]:
    """Return a preprocessing, then all other common normalisations at its size."""
    return [its] + [
        Preprocessing(name, mean, std, channels, its.input_size)
        for channels in ("RGB", "BGR")
        for name, (mean, std) in _COMMON.items()
        if channels != its.channels or not np.allclose((mean, std), its[1:3])
    ]


def _evaluate(
    classifier: PixelClassifier,
    images: ImageDataset,
    candidates: Iterable[Preprocessing],
    seconds: float = math.inf,
) -> dict[Preprocessing, Score]:
    """Return the scores of candidates.

    A candidate is left out if the network cannot run at its size, or if the seconds are over.
    """
    scores, batch, device = dict[Preprocessing, Score](), images[:], classifier.mean.device
    end = time.monotonic() + seconds
    for its in candidates:
        trial = PixelClassifier(classifier.network, *its[1:3], its.input_size, None, its.channels)
        try:
            loss, correct = 0.0, 0
            for start in range(0, len(images), _BATCH):
                if time.monotonic() > end:
                    return scores
                part, labels, _ = (column[start : start + _BATCH].to(device) for column in batch)
                with torch.no_grad():
                    logits = trial.to(device)(to_unit(part))
                loss += float(cross_entropy(logits, labels, reduction="sum"))
                correct += int((logits.argmax(1) == labels).sum())
        except ModelError:
            continue
        scores[its] = (loss / len(images) if math.isfinite(loss) else math.inf), correct
    return scores
