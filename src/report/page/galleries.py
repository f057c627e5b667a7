"""Pictures on the page with their predictions: contact sheets of examples, and galleries."""

import base64
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from src.analysis.trajectories import KINDS, moments
from src.artifacts.jobs import FinishedJob
from src.artifacts.layout import TOP_FIVE
from src.utils.model_names import NO_DEFENCE
from src.utils.package import command

MOST_BYTES = 6_000_000
"""Size limit for all pictures on a page, in bytes."""
MOST_NUMBERS = 200
"""Largest number of images that a gallery lists by number."""
_SIDE = 160  # pixels of the longer side, at most
_SMALL = 64  # up to this size pictures are stored without loss
_TOP = 5  # classes named below a picture in a gallery

Top = list[tuple[int, float]]
"""The most likely classes with their probabilities."""


@dataclass
class Pictures:
    """The pictures on a page, stored once each, in the format that the page's script reads.

    A strip shows one image (`index`, `label`) in several `steps`. A step has a `title`, a
    description (`words`), the `picture` as a position in `data` (-1: not stored), the most likely
    classes by model (`top`), and the budget `eps` (None: the perturbation).

    Attributes:
        data: Data URIs.
        classes: Class names by number, one list per data set.
        sheets: One row per job, by rank: `attack`, `source`, the position of its `classes`, the
            strips of its `examples`, and its `galleries` by target. A gallery has a `title`, a
            `count`, `strips`, and the numbers of `all` such images, up to `MOST_NUMBERS`.
        left_out: `attack` and `source` of jobs for whose pictures the page has too little room, and
            the `command` that builds a page for this job alone.
    """

    data: list[str] = field(default_factory=list)
    classes: list[tuple[str, ...]] = field(default_factory=list)
    sheets: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)
    _bytes: int = 0

    def add(self, job: FinishedJob, images: pd.DataFrame, chosen: pd.DataFrame) -> None:
        """Add a job's pictures, from its `trajectories` and `galleries`, while there is room."""
        if not job.examples and chosen.empty:
            return
        named = {"attack": job.attack, "source": job.record.source}
        left = named | {"command": f"{command('report')} {shlex.quote(str(job.folder))}"}
        if self._bytes > MOST_BYTES:
            self.left_out.append(left)
            return
        names = job.record.class_names
        if names not in self.classes:
            self.classes.append(names)
        index = [*(job.examples["index"].tolist() if job.examples else ()), *chosen["index"]]
        top = _tops(job, sorted(set(index)))
        examples = self._examples(job, top) if job.examples else []
        galleries: dict[str, list[dict[str, Any]]] = {}
        for (target, kind), rows in chosen.groupby(["target", "kind"], sort=False):
            if self._bytes > MOST_BYTES:
                if left not in self.left_out:
                    self.left_out.append(left)
                continue
            its = images[images["target"] == target]
            such = its.loc[its[str(kind)], "index"].tolist()
            count = f"{len(rows)} of {len(such)} such images, among {len(its)}"
            strips = [self._gallery(job, row, top) for row in rows.to_dict("records")]
            gallery = {"title": KINDS[str(kind)], "count": count, "strips": strips}
            gallery["all"] = such[:MOST_NUMBERS] if len(such) > len(rows) else []
            galleries.setdefault(str(target), []).append(gallery)
        sheet = {"classes": self.classes.index(names), "examples": examples}
        self.sheets.append(named | sheet | {"galleries": galleries})

    def _examples(self, job: FinishedJob, top: dict[Any, Top]) -> list[dict[str, Any]]:
        """Return the strips of a job's examples: clean image, perturbation, and every budget."""
        stored = job.examples
        tried, reference = stored["eps_255"].tolist(), job.record.reference
        at = reference if reference in tried else max(tried)
        scale = 255 / (2 * at)
        strips = []
        for place, index in enumerate(stored["index"].tolist()):
            clean, label = stored["clean"][place], int(stored["label"][place])
            changed = dict(zip(tried, stored["adversarial"][:, place], strict=True))
            noise = self._picture(_bytes(0.5 + (changed[at] - clean / 255) * scale))
            pictures = {eps: self._picture(_bytes(changed[eps])) for eps in tried}
            pictures[0.0] = self._picture(clean)
            steps = []
            for eps in (0.0, *tried):
                tops = {target: top.get((target, index, eps), []) for target in job.record.targets}
                steps.append(_step(eps, "", pictures[eps], tops))
            grey = _step(None, f"times {scale:.3g}, around grey", noise, {})
            steps.insert(1, grey | {"title": f"perturbation, {_budget(at)}"})
            strips.append({"index": index, "label": label, "steps": steps})
        return strips

    def _gallery(
        self, job: FinishedJob, row: dict[Any, Any], top: dict[Any, Top]
    ) -> dict[str, Any]:
        """Return the strip for a row of `galleries`: clean image, and the budgets of its kind."""
        index, label, target = int(row["index"]), int(row["label"]), str(row["target"])
        steps = []
        for eps, text in [(0.0, ""), *moments(row["kind"], row, max(job.record.budgets))]:
            both = {
                model: top.get((model, index, eps), []) for model in (job.record.source, target)
            }
            tried = min(budget for budget in (0.0, *job.record.budgets) if budget >= eps)
            if eps < tried:  # bisection found this budget
                text += f"; picture at {_budget(tried)}"
            pixels = job.gallery.get((index, tried)) if eps else job.images.get(index)
            steps.append(_step(eps, text, self._picture(pixels), both))
        return {"index": index, "label": label, "steps": steps}

    def _picture(self, pixels: NDArray[np.uint8] | None) -> int:
        """Store an image, uint8 (3, H, W), and return its position in `data`, or -1 for None."""
        if pixels is None:
            return -1
        image = Image.fromarray(np.moveaxis(pixels, 0, -1))
        image_format = "png" if max(image.size) <= _SMALL else "webp"
        image.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        image.save(file, image_format, quality=85)
        text = f"data:image/{image_format};base64,{base64.b64encode(file.getvalue()).decode()}"
        if text not in self._places:
            self._places[text] = len(self.data)
            self.data.append(text)
            self._bytes += len(text)
        return self._places[text]


def _tops(job: FinishedJob, index: Sequence[int]) -> dict[Any, Top]:
    """Return the most likely stored classes of these images, by target, image and budget."""
    keys = ["target", "index", "eps_255"]
    tops: dict[Any, Top] = {}
    for rows in (job.flips, job.predictions[job.predictions["defence"] == NO_DEFENCE]):
        if rows is not None:
            rows = rows[rows["index"].isin(index)]
            for *key, label, share in rows[[*keys, "predicted", "confidence"]].to_numpy():
                tops[tuple(key)] = [(int(label), round(float(share), 3))]
    if TOP_FIVE in job.files:
        rows = job.table(TOP_FIVE)
        rows = rows[rows["index"].isin(index) & (rows["defence"] == NO_DEFENCE)]
        for *key, labels, shares in rows[[*keys, "top5_classes", "top5_confidences"]].to_numpy():
            pairs = zip(labels[:_TOP], shares, strict=False)
            tops[tuple(key)] = [(int(label), round(float(share), 3)) for label, share in pairs]
    return tops


def _step(eps: float | None, text: str, picture: int, top: dict[str, Top]) -> dict[str, Any]:
    title = _budget(eps or 0.0)
    return {"eps": eps, "title": title, "words": text, "picture": picture, "top": top}


def _budget(eps: float) -> str:
    return f"{eps:.3g}/255" if eps else "clean"


def _bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
