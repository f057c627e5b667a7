"""Statistics and pictures that only the page shows; one job at a time is in memory."""

import io
import shlex
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ...analysis.confidence import initial_groups
from ...analysis.outcomes import JobOutcomes, evaluated_pairs, job_outcomes, under
from ...analysis.trajectories import by_kind
from ...artifacts.comparable import model_digest
from ...artifacts.jobs import FinishedJob
from ...artifacts.layout import TOP_FIVE
from ...config.sections import ReportSettings
from ...utils.model_names import NO_DEFENCE, TARGET_COLUMNS, ModelRef
from ...utils.package import command
from ..diagnostics import Tables, statistics_of
from ..results import Results, described_images
from .html import as_json

MOST_BYTES = {"predictions": 6_000_000, "pictures": 3_500_000}
"""Size limits of all blocks of a kind on a page, deflated, in bytes."""
FIXED_BINS = [round(0.05 * step, 2) for step in range(1, 20)]
"""Edges of groups of 5 points of initial confidence."""
_SIDE = 160  # pixels of the longer side of a preview, at most
_SMALL = 64  # up to this size pictures are stored as differences, without loss
_OF_JOB = {"small": 100_000, "large": 400_000}  # bytes of a job's pictures, about
_PART = 5  # of a larger picture's perturbation, the middle fifth of the width is stored


@dataclass
class JobBlocks:
    """Blocks of the page, and what its script needs to read them.

    A block `job-N` is JSON. Its arrays have the axes model, budget and image: `predicted` (0: the
    true class; c + 1: class c; -1: abstained; null: none) and `confidence` in percent. `counted`
    has the counted images by protocol and model. A block `pictures-N` has adversarial pictures:
    differences from the clean one in grey levels (int8) or, above `_SMALL` pixels, a WebP preview
    and the differences of its middle part. A block `clean-N` has the clean pictures of a data set.

    Attributes:
        groups: Number of equal groups by initial confidence.
        blocks: Blocks by name.
        jobs: Number of the block, by attack and source.
        classes: Class names by number, one list per data set.
        left_out: Command that builds a page for one job, by attack and source, for jobs for whose
            `predictions` or `pictures` the page has too little room.
    """

    groups: int = 3
    blocks: dict[str, bytes] = field(default_factory=dict)
    jobs: list[tuple[str, str]] = field(default_factory=list)
    classes: list[tuple[str, ...]] = field(default_factory=list)
    left_out: dict[str, list[list[str]]] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _data: list[str] = field(default_factory=list)

    def add(self, job: FinishedJob, images: pd.DataFrame) -> None:
        """Add a job's blocks; `images` are its `trajectories`."""
        record = job.record
        targets = list(map(ModelRef.parse, record.targets))
        result = job_outcomes(job.predictions, record.source, targets, record.protocol)
        if record.class_names not in self.classes:
            self.classes.append(record.class_names)
        if record.data not in self._data:
            self._data.append(record.data)
        content = {
            "attack": job.attack,
            "source": record.source,
            "classes": self.classes.index(record.class_names),
            **_predictions(job),
            "groups": [_groups(initial_groups(result, by)) for by in (self.groups, FIXED_BINS)],
            "kinds": _kinds(images),
        }
        if files := job.image_files:
            content["files"] = [files.get(number, "") for number in content["index"]]
        pictures, places = b"", dict[str, Any]()
        if self._fits("pictures", job):
            pictures, places = self._pictures(job)
        content["pictures"] = places
        content["second"] = _second(job, {index for index, _, _, _ in places.get("at", [])})
        data = as_json(content)
        if self._fits("predictions", job):
            number = len(self.jobs)
            self.jobs.append((job.attack, record.source))
            for kind, name, block in (
                ("predictions", "job", data),
                ("pictures", "pictures", pictures),
            ):
                self.blocks[f"{name}-{number}"] = block
                size = len(zlib.compress(block, 1))
                self._sizes[kind] = self._sizes.get(kind, 0) + size

    def _fits(self, kind: str, job: FinishedJob) -> bool:
        """Return True while there is room for a kind of block; note the job if there is none."""
        fits = self._sizes.get(kind, 0) <= MOST_BYTES[kind]
        if not fits:
            line = f"{command('report')} {shlex.quote(str(job.folder))}"
            self.left_out.setdefault(kind, []).append([job.attack, job.record.source, line])
        return fits

    def _pictures(self, job: FinishedJob) -> tuple[bytes, dict[str, Any]]:
        """Return a job's pictures, and where they are: [image, budget, start, bytes] of each."""
        if not job.pictures:
            return b"", {}
        side = next(iter(job.pictures.values()))[0.0].shape[1:]
        number, small = self._data.index(job.record.data), max(side) <= _SMALL
        before, known = self.blocks.get(f"clean-{number}", b""), self._clean.setdefault(number, {})
        content, at, size = b"", list[list[Any]](), 0
        for index, versions in job.pictures.items():
            parts = {
                eps: _picture(levels, versions[0.0], small)
                for eps, levels in versions.items()
                if eps
            }
            clean = versions[0.0].tobytes() if small else _webp(versions[0.0])
            new = b"" if index in known else clean
            size += len(zlib.compress(b"".join([*parts.values(), new]), 1))
            if at and size > _OF_JOB["small" if small else "large"]:
                break
            if new:
                known[index] = [len(before), len(clean)]
                before += clean
            for eps, part in parts.items():
                at.append([index, eps, len(content), len(part)])
                content += part
        self.blocks[f"clean-{number}"] = before
        part_side = [length // _PART for length in side]
        return content, {
            **{"data": number, "shape": list(side), "small": small, "part": part_side, "at": at}
        }

    _clean: dict[int, dict[int, list[int]]] = field(default_factory=dict)

    @property
    def clean_places(self) -> list[Mapping[int, list[int]]]:
        """Start and bytes of each clean picture, by image, for each data set."""
        return [self._clean.get(number, {}) for number in range(len(self._data))]


def _picture(levels: NDArray[np.uint8], clean: NDArray[np.uint8], small: bool) -> bytes:
    """Return the differences to the clean picture; of a photograph a preview and a part of them."""
    change = np.clip(levels.astype(np.int16) - clean, -128, 127).astype(np.int8)
    if small:
        return change.tobytes()
    middle = _middle(change).tobytes()
    return len(middle).to_bytes(4, "little") + middle + _webp(levels)


def _webp(levels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(np.moveaxis(levels, 0, -1))
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "webp", quality=82)
    return file.getvalue()


def _middle(change: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the middle part of a perturbation, (3, H / 5, W / 5)."""
    starts = [(size - size // _PART) // 2 for size in change.shape[1:]]
    rows, columns = (
        slice(start, start + size // _PART)
        for start, size in zip(starts, change.shape[1:], strict=True)
    )
    return np.ascontiguousarray(change[:, rows, columns])


def _predictions(job: FinishedJob) -> dict[str, Any]:
    """Return the predictions of all images: classes, confidences, and which images count."""
    record = job.record
    pairs = evaluated_pairs(job.defended, record.targets)
    attacked = job.defended[job.defended["eps_255"] > 0]
    names = attacked[["target", "defence"]].drop_duplicates().itertuples(index=False)
    source = record.source_model
    if source not in pairs and source in {ModelRef.parse(*name) for name in names}:
        pairs = [*pairs, source]
    result = job_outcomes(job.defended, record.source, pairs, "all")
    protocols = {name: under(result, name).counted for name in result.protocols}
    return {
        "index": result.index.tolist(),
        "label": result.label.tolist(),
        "aimed": None if result.target_labels is None else result.target_labels.tolist(),
        "models": [list(pair.columns) for pair in pairs],
        "eps": result.eps_255.tolist(),
        "predicted": _codes(result),
        "confidence": _integers(100 * result.confidence),
        "counted": {
            name: ["".join("01"[int(its)] for its in row) for row in mask]
            for name, mask in protocols.items()
        },
    }


def _codes(result: JobOutcomes) -> list[int | None]:
    codes = np.where(result.correct, 0, result.predicted + 1).astype(float)
    codes = np.where(result.abstained, -1, codes)
    return _integers(np.where(result.present | result.abstained, codes, np.nan))


def _integers(values: NDArray[np.floating]) -> list[int | None]:
    """Flatten (T, N, K) to whole numbers in the order model, budget, image."""
    flat = np.rint(values.transpose(0, 2, 1).ravel())
    if not np.isnan(flat).any():
        whole: list[int | None] = flat.astype(np.int64).tolist()
        return whole
    return [None if np.isnan(value) else int(value) for value in flat]


def _groups(rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return groups by initial confidence, by target, with lists over the budgets."""
    if rows.empty:
        return {}
    columns = ["eps_255", "n", "still_correct", "robust_accuracy", "confidence"]
    # Shares in percent are rounded down: 99.999 % is not 100 %.
    ends = {name: (np.floor(1e3 * rows[name]) / 10).tolist() for name in ("lowest", "highest")}
    lists = {name: rows[name].round(4).tolist() for name in columns}
    groups: dict[str, list[dict[str, Any]]] = {}
    size = rows["eps_255"].nunique()
    for start in range(0, len(rows), size):  # a group has a row per budget
        part = {name: its[start : start + size] for name, its in lists.items()}
        part |= {name: its[start] for name, its in ends.items()}
        groups.setdefault(str(rows["target"].iloc[start]), []).append(part)
    return groups


def _kinds(images: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return, by target, the number of images described, and those of each kind, clearest first."""
    kinds: dict[str, dict[str, Any]] = {
        str(target): {"n": n} for target, n in images["target"].value_counts().items()
    }
    for kind, rows in by_kind(images).items():
        for target, index in zip(rows["target"].tolist(), rows["index"].tolist(), strict=True):
            kinds[str(target)].setdefault(kind, []).append(index)
    return kinds


def _second(job: FinishedJob, index: set[int]) -> list[list[Any]]:
    """Return [target, image, budget, class, percent] of the second likeliest classes."""
    if TOP_FIVE not in job.files or not index:
        return []
    rows = job.table(TOP_FIVE)
    rows = rows[rows["index"].isin(index) & (rows["defence"] == NO_DEFENCE)]
    columns = ["target", "index", "eps_255", "top5_classes", "top5_confidences"]
    return [
        [*key, int(classes[1]), round(100 * float(shares[1]))]
        for *key, classes, shares in rows[columns].to_numpy().tolist()
        if len(classes) > 1
    ]


@dataclass
class PageData:
    """The numbers and pictures of a report.

    Attributes:
        tables: The rows of `statistics_of` of all jobs, by name. A table that no job has is
            missing.
        clean: Rows for clean images with the five most likely classes, by data set and model.
        blocks: Predictions and pictures of all images, job by job.
        alarms: The (name, finding) pairs of all jobs, without duplicates.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    clean: dict[str, dict[str, pd.DataFrame]] = field(default_factory=dict)
    blocks: JobBlocks = field(default_factory=JobBlocks)
    alarms: list[tuple[str, str]] = field(default_factory=list)

    @property
    def models(self) -> list[tuple[str, pd.DataFrame]]:
        """The models of all data sets with their rows for clean images."""
        return [(model, rows) for its in self.clean.values() for model, rows in its.items()]

    def table(self, name: str) -> pd.DataFrame:
        """Return a table by name, or an empty one if no job has it."""
        return self.tables.get(name, pd.DataFrame())


def compute_page_data(results: Results, settings: ReportSettings | None = None) -> PageData:
    """Compute the numbers and pictures of the page, job by job in order of rank."""
    settings = settings or ReportSettings()
    numbers = PageData(blocks=JobBlocks(settings.confidence_groups))
    names: dict[str, str] = {}
    for row in results.rows:
        for name in row[0].job.record.weights:
            _model(row[0].job, names, name)
    parts: dict[int, Tables] = {}
    for number in _by_rank(results):
        result = results.rows[number][0]
        job = result.job
        _add_clean(job, names, numbers)
        if job.attacked:
            images = described_images(job)
            numbers.blocks.add(job, images)
            parts[number] = statistics_of(result, images, partial(_model, job, names))
        job.forget()
    numbers.alarms = list(
        dict.fromkeys(alarm for row in results.rows for its in row for alarm in its.alarms)
    )
    for name in dict.fromkeys(name for tables in parts.values() for name in tables):
        frames = [parts[number][name] for number in sorted(parts) if name in parts[number]]
        numbers.tables[name] = pd.concat(frames, ignore_index=True)
    return numbers


def _by_rank(results: Results) -> list[int]:
    """Return the positions of the rows, those with the best-ranked attack and source first."""
    ranked = results.rankings.dropna(subset="rank")
    ranked = ranked.iloc[::-1]  # the reference budget comes last and so replaces others
    ranks = {(row["attack"], row["source"]): row["rank"] for _, row in ranked.iterrows()}
    jobs = [(row[0].job.attack, row[0].job.record.source) for row in results.rows]
    return sorted(range(len(jobs)), key=lambda number: ranks.get(jobs[number], inf))


def _model(job: FinishedJob, names: dict[str, str], name: str) -> str:
    """Return a name for a model that no other model and no other data set shares."""
    record, digest = job.record, model_digest(job.record, name)
    known = names.setdefault(name, f"{record.data}{digest}")
    other = f"{name} ({record.dataset} {record.data[:6]} {digest[:6]})"
    return name if known == f"{record.data}{digest}" else other


def _add_clean(job: FinishedJob, names: dict[str, str], numbers: PageData) -> None:
    """Add each model's rows for clean images, with class names, to `numbers`."""
    classes = job.record.class_names
    mine = numbers.clean.setdefault(f"{job.record.dataset} ({job.record.data[:6]})", {})
    behind = () if job.attacked else job.record.evaluated
    pairs = dict.fromkeys((*map(ModelRef.parse, job.record.weights), *behind))
    named = {pair: str(replace(pair, members=(_model(job, names, pair.model),))) for pair in pairs}
    if mine.keys() >= set(named.values()):
        return
    for pair, its in job.clean.groupby([*TARGET_COLUMNS], sort=False):
        name = named[ModelRef.parse(*pair)]
        if name not in mine:
            mine[name] = its.assign(name=[classes[int(label)] for label in its["label"]])
