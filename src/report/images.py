"""Pictures of a page with the predictions for them: contact sheets, and galleries by definition."""

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
from src.store.jobs import StoredJob

MOST_BYTES = 6_000_000
"""Most that the pictures of a page take."""
_SIDE = 160  # most pixels of a picture's longer side
_SMALL = 64  # up to here pixels are kept as they are
_MOST_BUDGETS = 5  # in a contact sheet, beside the clean image and the perturbation
_TOP = 3  # classes named below a picture

Top = list[tuple[int, float]]
"""Likeliest classes with their probabilities."""


@dataclass
class Pictures:
    """Pictures of a page, each once, as its script reads them.

    Attributes:
        data: Data URIs; sheets and galleries hold their places, -1 for a picture not stored.
        classes: Names of the classes by the numbers in `sheets`, one list a data set.
        sheets: Of each job, by rank, what `_sheet` returns, with the `galleries` by target.
        left_out: `attack` and `source` of jobs that the page has no room for, and the `command`
            that builds a page of one alone.
    """

    data: list[str] = field(default_factory=list)
    classes: list[tuple[str, ...]] = field(default_factory=list)
    sheets: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)
    _bytes: int = 0

    def add(self, job: StoredJob, images: pd.DataFrame, chosen: pd.DataFrame) -> None:
        """Add a job's pictures if there is room.

        The tables are its `trajectories` and the `galleries` of them.
        """
        if not job.examples and chosen.empty:
            return
        named = {"attack": job.attack, "source": job.record.source}
        if self._bytes > MOST_BYTES:
            command = f"python -m src.report {shlex.quote(str(job.folder))}"
            self.left_out.append(named | {"command": command})
            return
        names = job.record.class_names
        if names not in self.classes:
            self.classes.append(names)
        index = [*(job.examples["index"].tolist() if job.examples else ()), *chosen["index"]]
        top = _tops(job.top_five(sorted(set(index))))
        sheet: dict[str, Any] = {
            **named,
            "classes": self.classes.index(names),
            **(self._sheet(job, top) if job.examples else {"images": [], "budgets": []}),
            "galleries": {},
        }
        for target, rows in chosen.groupby("target", sort=False):
            if self._bytes < MOST_BYTES:
                its = images[images["target"] == target]
                sheet["galleries"][target] = self._galleries(job, str(target), its, rows, top)
        self.sheets.append(sheet)

    def _sheet(self, job: StoredJob, top: dict[Any, Top]) -> dict[str, Any]:
        """Return a job's examples.

        `budgets` are all that were tried, 0 first, `drawn` those with pictures, and `at` that of
        the perturbation, times `scale`; of each image there are `index`, `label`, `clean`,
        `perturbation`, the pictures at `drawn`, and `top` by target, a list at each of `budgets`.
        """
        stored = job.examples
        tried, reference = stored["eps_255"].tolist(), job.record.reference
        at = reference if reference in tried else max(tried)
        drawn, targets = _spread(tried, at), job.record.targets
        images = []
        for place, index in enumerate(stored["index"].tolist()):
            clean, changed = stored["clean"][place], stored["adversarial"][:, place]
            grey = 0.5 + (changed[tried.index(at)] - clean / 255) * 255 / (2 * at)
            pictures = [self._picture(_bytes(changed[tried.index(eps)])) for eps in drawn]
            images.append(
                {
                    **{"index": index, "label": int(stored["label"][place])},
                    **{"clean": self._picture(clean), "perturbation": self._picture(_bytes(grey))},
                    "pictures": pictures,
                    "top": {
                        target: [top.get((target, index, eps), []) for eps in (0.0, *tried)]
                        for target in targets
                    },
                }
            )
        scale = 255 / (2 * at)
        return {
            "budgets": [0.0, *tried],
            "drawn": drawn,
            "at": at,
            "scale": scale,
            "images": images,
        }

    def _galleries(
        self,
        job: StoredJob,
        target: str,
        images: pd.DataFrame,
        chosen: pd.DataFrame,
        top: dict[Any, Top],
    ) -> list[dict[str, Any]]:
        """Return a `title`, a `count` in words and `strips` for each kind of a target's images.

        A strip has `index`, `label` and `steps`: `eps`, what it is in `words`, its `picture`, and
        `top` of source and target.
        """
        found, largest = [], max(job.record.budgets)
        for kind, rows in chosen.groupby("kind", sort=False):
            strips = [
                {
                    **{"index": int(row["index"]), "label": int(row["label"])},
                    "steps": [
                        self._step(job, target, int(row["index"]), eps, words, top)
                        for eps, words in [(0.0, "clean"), *moments(str(kind), row, largest)]
                    ],
                }
                for row in rows.to_dict("records")
            ]
            count = f"{len(rows)} of {images[kind].sum()} such images among {len(images)}"
            found.append({"title": KINDS[str(kind)], "count": count, "strips": strips})
        return found

    def _step(
        self, job: StoredJob, target: str, index: int, eps: float, words: str, top: dict[Any, Top]
    ) -> dict[str, Any]:
        both = [top.get((name, index, eps), []) for name in (job.record.source, target)]
        tried = min(each for each in job.record.budgets if each >= eps)
        if eps < tried and job.flips is not None:  # bisection found this budget
            here = job.flips[(job.flips["target"] == target) & (job.flips["index"] == index)]
            both[1] = next(iter(_tops(here).values()), [])
            words += f"; picture at {tried:g}/255"
        pixels = job.gallery.get((index, tried)) if eps else job.images.get(index)
        return {"eps": eps, "words": words, "picture": self._picture(pixels), "top": both}

    def _picture(self, pixels: NDArray[np.uint8] | None) -> int:
        """Return the place of an image (3, H, W), uint8, small ones without loss."""
        if pixels is None:
            return -1
        image = Image.fromarray(np.moveaxis(pixels, 0, -1))
        kind = "png" if max(image.size) <= _SMALL else "webp"
        image.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        image.save(file, kind, quality=85)
        text = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
        if text not in self._places:
            self._places[text] = len(self.data)
            self.data.append(text)
            self._bytes += len(text)
        return self._places[text]


def _tops(rows: pd.DataFrame) -> dict[Any, Top]:
    """Return the likeliest classes by target, image and budget."""
    if "top5_classes" not in rows:  # as in the tables of docs/results/
        pairs = zip(rows["predicted"], rows["confidence"], strict=True)
        tops: list[Top] = [[(int(label), round(float(share), 3))] for label, share in pairs]
    else:
        tops = [
            [(int(k), round(float(p), 3)) for k, p in zip(classes[:_TOP], shares, strict=False)]
            for classes, shares in zip(rows["top5_classes"], rows["top5_confidences"], strict=True)
        ]
    return dict(
        zip(zip(rows["target"], rows["index"], rows["eps_255"], strict=True), tops, strict=True)
    )


def _bytes(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


def _spread(tried: Sequence[float], at: float) -> list[float]:
    """Return the tried budgets that have pictures: a few and `at`."""
    places = np.linspace(0, len(tried) - 1, min(_MOST_BUDGETS, len(tried))).round().astype(int)
    return sorted({at, *(tried[place] for place in places)})
