"""Strips of small pictures with predictions: examples, and galleries by definition."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from src.analysis.trajectories import KINDS
from src.store.jobs import StoredJob

_SIDE = 128  # most pixels of a picture's longer side
_MOST_BUDGETS = 5  # in a strip, beside the clean image and the perturbation
_SMALL = 64  # up to here pixels are kept as they are


@dataclass(frozen=True)
class Picture:
    """A small picture with its heading, such as `4/255`, and the text below it.

    The source is a data URI, empty if the image was not stored; `top` holds (class, probability,
    true class or not) of the likeliest classes.
    """

    source: str
    title: str
    lines: tuple[str, ...] = ()
    top: tuple[tuple[str, float, bool], ...] = ()


@dataclass(frozen=True)
class Album:
    """Strips of pictures, one an image, with a caption that holds denominators."""

    title: str
    caption: str
    strips: tuple[tuple[Picture, ...], ...] = ()


def examples(job: StoredJob) -> Album | None:
    """Return a job's stored example images over up to six budgets, if there are such images."""
    stored = job.examples
    if not stored:
        return None
    tried, reference = stored["eps_255"].tolist(), job.record.reference
    rows = job.predictions
    rows = rows[rows["index"].isin(stored["index"]) & rows["target"].isin(job.record.targets)]
    predicted: dict[tuple[int, float], list[str]] = {}
    columns = ["index", "eps_255", "target", "predicted", "confidence"]
    for index, eps, target, label, confidence in rows[columns].itertuples(index=False):
        words = f"{target}: {_name(job, label)} {confidence:.0%}"
        predicted.setdefault((index, eps), []).append(words)
    at = reference if reference in tried else max(tried)
    strips = []
    for place, index in enumerate(stored["index"].tolist()):
        clean, label = stored["clean"][place], int(stored["label"][place])
        true = f"image {index}, {_name(job, label)}"
        strip = [_picture(clean, "clean", (true, *predicted[index, 0.0]))]
        changed = stored["adversarial"][tried.index(at), place]
        grey = 0.5 + (changed - clean / 255) * 255 / (2 * at)
        scale = f"times {255 / (2 * at):.3g}, around grey"
        strip.append(_picture(_bytes(grey), f"perturbation, {at:g}/255", (scale,)))
        for eps in _spread(tried, at):
            image = _bytes(stored["adversarial"][tried.index(eps), place])
            strip.append(_picture(image, f"{eps:g}/255", tuple(predicted[index, eps])))
        strips.append(tuple(strip))
    title = f"{job.attack} from {job.record.source}"
    caption = (
        f"Examples from the subset, not chosen by outcome; true class, then what each target "
        f"predicts with which confidence. Perturbation at {at:g}/255."
    )
    return Album(title, caption, tuple(strips))


def gallery_albums(
    job: StoredJob, images: pd.DataFrame, chosen: pd.DataFrame, top: pd.DataFrame
) -> list[Album]:
    """Return an album for each kind of one target's images.

    The tables are the target's: its `trajectories`, the `galleries` of them, and its top fives.
    """
    albums = []
    for kind, rows in chosen.groupby("kind", sort=False):
        name, target = str(kind), str(rows["target"].iloc[0])
        caption = (
            f"{job.attack} from {job.record.source} on {target}: {len(rows)} of "
            f"{images[name].sum()} such images among {len(images)} initially correct ones."
        )
        strips = tuple(
            _gallery_strip(job, target, name, row, top) for row in rows.to_dict("records")
        )
        albums.append(Album(KINDS[name].capitalize(), caption, strips))
    return albums


def _gallery_strip(
    job: StoredJob, target: str, kind: str, row: dict[Any, Any], top: pd.DataFrame
) -> tuple[Picture, ...]:
    """Return an image with its top five when clean and at the budgets of the kind."""
    index, label = int(row["index"]), int(row["label"])
    mine = top[top["index"] == index]
    clean = mine[mine["eps_255"] == 0].iloc[0]
    moments = {
        "dip_and_recovery": [(row["lowest_eps_255"], "lowest confidence")],
        "bounce_back": [
            (row["first_flip_eps_255"], "minimum adversarial budget"),
            (row["back_eps_255"], "correct again"),
        ],
        "ends_more_confident_wrong": [(mine["eps_255"].max(), "largest budget")],
        "below_8_bits": [(row["first_flip_eps_255"], "minimum adversarial budget")],
    }
    true = f"image {index}, {_name(job, label)}"
    strip = [_picture(job.images.get(index), "clean", (true,), _top(job, clean, label))]
    for eps, words in moments[kind]:
        here = mine[mine["eps_255"] == eps]
        if here.empty and job.flips is not None:  # bisection found it
            here = job.flips[(job.flips["target"] == target) & (job.flips["index"] == index)]
        strip.append(Picture("", f"{eps:.3g}/255", (words,), _top(job, here.iloc[0], label)))
    return tuple(strip)


def _top(job: StoredJob, row: pd.Series, label: int) -> tuple[tuple[str, float, bool], ...]:
    if "top5_classes" not in row:  # as in the tables of docs/results/
        return ()
    pairs = zip(row["top5_classes"], row["top5_confidences"], strict=True)
    return tuple((_name(job, int(one)), float(share), one == label) for one, share in pairs)


def _picture(
    pixels: NDArray[np.uint8] | None,
    title: str,
    lines: tuple[str, ...] = (),
    top: tuple[tuple[str, float, bool], ...] = (),
) -> Picture:
    """Encode an image (3, H, W), uint8; small ones without loss."""
    if pixels is None:
        return Picture("", title, (*lines, "(image not stored)"), top)
    image = Image.fromarray(np.moveaxis(pixels, 0, -1))
    kind = "png" if max(image.size) <= _SMALL else "webp"
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, kind, quality=85)
    text = base64.b64encode(file.getvalue()).decode()
    return Picture(f"data:image/{kind};base64,{text}", title, lines, top)


def _bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


def _spread(tried: Sequence[float], at: float) -> list[float]:
    """Return the tried budgets that a strip shows: a few and `at`."""
    places = np.linspace(0, len(tried) - 1, min(_MOST_BUDGETS, len(tried))).round().astype(int)
    return sorted({at, *(tried[place] for place in places)})


def _name(job: StoredJob, label: int) -> str:
    return job.record.class_names[label]
