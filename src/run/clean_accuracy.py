"""Checks of clean accuracies, and a search for a model's preprocessing."""

import logging
import math
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import cross_entropy

from ..analysis import is_at_chance, wilson_interval
from ..config.sections import CheckSettings
from ..data import ImageDataset, to_unit
from ..models import ModelError, PixelClassifier, weight_facts
from ..models.pixel_classifier import NORMALISATION
from ..utils.formats import format_cell
from ..utils.model_names import ABSTAINED, TARGET_COLUMNS, ModelRef
from .stages import JobContext

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
        lines = [f"{key}: [{', '.join(f'{x:.6g}' for x in row)}]" for key, row in values.items()]
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
    few, present = images.subset(_FEW), stated(classifier)
    scores = _evaluate(classifier, few, _common(present), _SECONDS) or {present: (0.0, 0)}
    best = min(scores, key=scores.__getitem__)
    at_chance = is_at_chance(scores[best][1], len(few), images.num_classes)
    if at_chance or scores[best][0] > _CLEARLY * scores[present][0]:
        return ""
    new, old = ("{:.2f} ({} correct)".format(*scores[which]) for which in (best, present))
    return (
        f". On {len(few)} of the images, {', '.join(best.lines)} ({best.name}) give a "
        f"cross-entropy of {new} instead of {old}"
    )


def _common(base: Preprocessing) -> list[Preprocessing]:
    """Return a preprocessing, then all other common normalisations at its size."""
    return [base] + [
        Preprocessing(name, mean, std, channels, base.input_size)
        for channels in ("RGB", "BGR")
        for name, (mean, std) in _COMMON.items()
        if channels != base.channels or not np.allclose((mean, std), base[1:3])
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
    for way in candidates:
        trial = PixelClassifier(classifier.network, *way[1:3], way.input_size, None, way.channels)
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
        scores[way] = (loss / len(images) if math.isfinite(loss) else math.inf), correct
    return scores


log = logging.getLogger(__name__)
_log_once = cache(log.info)  # of a line that several jobs of a sweep share


def check_clean_accuracies(job: JobContext, clean: pa.Table) -> None:
    """Compare clean accuracies with the expected ones; on a miss warn, or stop if settings say so.

    A model misses if the 95 % interval of its accuracy lies outside the expected accuracy plus or
    minus the tolerance. An accuracy stated by a weight file causes only a warning, and only if the
    measured one is lower: the images may differ.
    """
    frame = clean.select(["target", "defence", "label", "predicted"]).to_pandas()
    frame = frame[frame["predicted"] != ABSTAINED]
    frame = frame.assign(correct=frame["label"] == frame["predicted"])
    counts = frame.groupby([*TARGET_COLUMNS])["correct"].agg(["sum", "count"])
    shares = ", ".join(f"{ModelRef.parse(*pair)} {k / n:.2%}" for pair, (k, n) in counts.iterrows())
    _log_once(f"{len(job.images)} clean images, correct: {shares}")
    for name, checked in job.models.items():  # no accuracy is expected behind a defence
        columns, check = ModelRef.parse(name).columns, job.check
        expected = checked.expected_accuracy if columns in counts.index else None
        if expected is None:
            continue
        k, n = (int(value) for value in counts.loc[columns])
        low, high = (float(bound) for bound in wilson_interval(k, n))
        above = checked.is_stated and low > expected + check.tolerance
        if above or high < expected - check.tolerance:
            origin = "file expects" if checked.is_stated else "weights state"
            model = checked.classifier
            advice = suggest(model, job.images) if isinstance(model, PixelClassifier) else ""
            message = (
                f"model {name}: clean accuracy is {format_cell(k, n)}, but its {origin} "
                f"{expected:.2%} +- {check.tolerance:.2%}. Likely causes are wrong preprocessing "
                f"(mean, std, input_size), weights or labels{advice}"
            )
            if checked.is_stated and check.action == "stop":
                raise ValueError(f"{message}. To continue: clean_accuracy_check.action=warn.")
            log.warning("%s.", message)


def check_trained(check: CheckSettings, name: str, file: Path, num_classes: int) -> None:
    """Warn if trained weights are no better than chance, or stop if the check says so."""
    tested = weight_facts(file, name).tested
    if not is_at_chance(*tested, num_classes):
        return
    text = (
        f"model {name} is at chance: {format_cell(*tested)} test images correct after training "
        "(too few epochs or images, too high or low a learning rate, or a mix-up of labels)"
    )
    if check.action == "stop":
        raise ValueError(f"{text}. Raise training.epochs, or set clean_accuracy_check.action=warn.")
    log.warning("%s.", text)
