"""Predictions, pictures and tables that only the page shows; one job at a time is in memory."""

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

from ...analysis.confidence import by_initial_confidence
from ...analysis.outcomes import JobOutcomes, evaluated_pairs, job_outcomes, under
from ...analysis.trajectories import by_kind
from ...artifacts.comparable import model_digest
from ...artifacts.finished_job import FinishedJob
from ...artifacts.layout import TOP_FIVE
from ...config.sections import ReportSettings
from ...utils.model_names import NO_DEFENCE, TARGET_COLUMNS, ModelRef
from ...utils.package import command
from ..diagnostics import Tables, statistics_of
from ..results import Results, described_images
from .html import as_json

MOST_BYTES = {"job": 6_000_000, "pictures": 3_500_000}
"""Size limits of all blocks of a kind on a page, deflated, in bytes."""
FIXED_BINS = [round(0.05 * step, 2) for step in range(1, 20)]
"""Edges of groups of 5 points of initial confidence."""
PICTURED = 5
"""Number of tries of an audit with pictures."""
_SIDE = 160  # pixels of the longer side of a preview, at most
_SMALL = 64  # up to this size pictures are stored as differences, without loss
_OF_JOB = {True: 100_000, False: 400_000}  # bytes of a job's pictures, small or not, about
_PART = 5  # of a larger picture's perturbation, the middle fifth of the width is stored


@dataclass
class PageData:
    """Contents of the jobs that only the page shows.

    A block `job-N` is JSON. Its arrays have the axes model, budget and image: `predicted` (0: the
    true class; c + 1: class c; -1: abstained; null: none) and `confidence` in percent. `counted`
    has the counted images by protocol and model. A block `pictures-N` has adversarial pictures:
    differences from the clean one in grey levels (int8) or, above `_SMALL` pixels, a WebP preview
    and the differences of its middle part. A block `clean-N` has the clean pictures of a data set.

    Attributes:
        tables: The rows of `statistics_of` of all jobs, by name. A table that no job has is
            missing.
        clean: Rows for clean images with the five most likely classes, by the model's unique name.
        blocks: Blocks by name.
        jobs: Attack and source by number of the block.
        classes: Class names by number, one list per data set.
        places: Start and bytes of each clean picture by image, by digest of the data set.
        left_out: Attack, source, and the command that builds a page for it alone, of each job for
            whose predictions the page has too little room.
        room: Share of `MOST_BYTES` that its blocks may take.
    """

    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    clean: dict[str, pd.DataFrame] = field(default_factory=dict)
    blocks: dict[str, bytes] = field(default_factory=dict)
    jobs: list[tuple[str, str]] = field(default_factory=list)
    classes: list[tuple[str, ...]] = field(default_factory=list)
    places: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    room: float = 1.0

    def fits(self, kind: str) -> bool:
        """Return True while there is room for blocks of a kind."""
        sizes = (len(block) for name, block in self.blocks.items() if name.startswith(kind))
        return sum(sizes) <= self.room * MOST_BYTES[kind]


def compute_page_data(
    results: Results, settings: ReportSettings | None = None, room: float = 1.0
) -> PageData:
    """Compute the tables and blocks of the page, job by job in order of rank."""
    page, names = PageData(room=room), dict[str, str]()
    groups = (settings or ReportSettings()).confidence_groups
    for row in results.rows:
        for name in row[0].job.record.weights:
            _model(row[0].job, names, name)
    records = [row[0].job.record for row in results.attacked]
    page.classes = [*dict.fromkeys(record.class_names for record in records)]
    page.places = {record.data: {} for record in records}
    page.blocks = {f"clean-{number}": b"" for number in range(len(page.places))}
    parts = dict[int, Tables]()
    _add_tries(page, results)
    for number in _by_rank(results):
        result = results.rows[number][0]
        job = result.job
        _add_clean(job, names, page)
        if job.attacked:
            images = described_images(job)
            parts[number] = statistics_of(result, images, partial(_model, job, names))
            _add_blocks(page, job, images, groups)
        job.forget()
    for name in dict.fromkeys(name for tables in parts.values() for name in tables):
        rows = [parts[number][name] for number in sorted(parts) if name in parts[number]]
        page.tables[name] = pd.concat(rows, ignore_index=True)
    for number in range(len(page.places)):
        page.blocks[f"clean-{number}"] = zlib.compress(page.blocks[f"clean-{number}"])
    return page


def _by_rank(results: Results) -> list[int]:
    """Return the positions of the rows, those with the best-ranked attack and source first."""
    # Reversed: the reference budget comes last and so replaces others.
    ranked = results.rankings.dropna(subset="rank").iloc[::-1]
    ranks = ranked.set_index(["attack", "source"])["rank"].to_dict()
    jobs = [(row[0].job.attack, row[0].job.record.source) for row in results.rows]
    return sorted(range(len(jobs)), key=lambda number: ranks.get(jobs[number], inf))


def _model(job: FinishedJob, names: dict[str, str], name: str) -> str:
    """Return a name for a model that no other model and no other data set shares."""
    record, digest = job.record, model_digest(job.record, name)
    first = names.setdefault(name, f"{record.data}{digest}")
    other = f"{name} ({record.dataset} {record.data[:6]} {digest[:6]})"
    return name if first == f"{record.data}{digest}" else other


def _add_clean(job: FinishedJob, names: dict[str, str], page: PageData) -> None:
    """Add each model's rows for clean images, with class names."""
    classes = job.record.class_names
    behind = () if job.attacked else job.record.evaluated
    pairs = dict.fromkeys((*map(ModelRef.parse, job.record.weights), *behind))
    named = {pair: str(replace(pair, members=(_model(job, names, pair.model),))) for pair in pairs}
    if page.clean.keys() >= set(named.values()):
        return
    for pair, rows in job.clean.groupby([*TARGET_COLUMNS], sort=False):
        name = named[ModelRef.parse(*pair)]
        if name not in page.clean:
            page.clean[name] = rows.assign(name=[classes[int(label)] for label in rows["label"]])


def _add_blocks(page: PageData, job: FinishedJob, images: pd.DataFrame, groups: int) -> None:
    """Add a job's predictions and pictures; `images` are its `trajectories`."""
    record, number = job.record, len(page.jobs)
    if not page.fits("job"):
        line = f"{command('report')} {shlex.quote(str(job.folder))}"
        page.left_out.append((job.attack, record.source, line))
        return
    pictures, places = b"", dict[str, Any]()
    if page.fits("pictures") and job.pictures:
        pictures, places = _pictures(page, record.data, job.pictures)
    targets = list(map(ModelRef.parse, record.targets))
    result = job_outcomes(job.predictions, record.source, targets, record.protocol)
    content = {
        **_predictions(job),
        "source": record.source,
        "classes": page.classes.index(record.class_names),
        "groups": [_groups(by_initial_confidence(result, by)) for by in (groups, FIXED_BINS)],
        "kinds": _kinds(images),
        "pictures": places,
        "second": _second(job, {index for index, _, _, _ in places.get("at", [])}),
    }
    if files := job.image_files:
        content["files"] = [files.get(number, "") for number in content["index"]]
    page.jobs.append((job.attack, record.source))
    page.blocks[f"job-{number}"] = zlib.compress(as_json(content))
    page.blocks[f"pictures-{number}"] = zlib.compress(pictures)


def _add_tries(page: PageData, results: Results) -> None:
    """Add a block for each audited target: its predictions by defence, with tries as budgets."""
    first = [row[0].job for row in results.attacked]
    jobs = {(name, job.record.source): job for job in first for name in (job.attack, job.row_title)}
    audits = dict[str, list[tuple[ModelRef, Any]]]()
    for audit in results.audits:
        if audit.fooled is not None:
            pair = ModelRef.parse(audit.target)
            audits.setdefault(pair.model, []).append((pair, audit))
    for number, (model, listed) in enumerate(audits.items()):
        pairs, order = [pair for pair, _ in listed], listed[0][1].tries[["attack", "source"]]
        record, eps = first[0].record, first[0].record.reference
        levels = np.full((2, len(pairs), record.images, len(order) + 1), np.nan)
        pictures = dict[int, dict[float, NDArray[np.uint8]]]()
        for q, name in enumerate(order.itertuples(index=False, name=None), 1):
            job = jobs[name]
            at = [place for place, pair in enumerate(pairs) if pair in job.record.evaluated]
            result = job_outcomes(job.defended, name[1], [pairs[place] for place in at], "all")
            both = np.stack([_codes(result), 100 * result.confidence])
            for step, budget in ((0, 0.0), (q, eps)):
                levels[..., step][:, at] = both[..., result.eps_255.tolist().index(budget)]
            for index, versions in job.pictures.items() if q <= PICTURED else ():
                pictures.setdefault(index, {0.0: versions[0.0]})[float(q)] = versions[eps]
            job.forget()
        masks = [np.isin(result.index, audit.fooled.index) for _, audit in listed]
        wins = [audit.fooled.sum(axis=1).reindex(result.index, fill_value=0) for _, audit in listed]
        won = [column.tolist() for column in wins]
        bytes_, places = _pictures(page, record.data, pictures) if pictures else (b"", {})
        predicted, confidence = map(_integers, levels)
        content = {
            **{"index": result.index.tolist(), "label": result.label.tolist(), "aimed": None},
            **{"models": [list(pair.columns) for pair in pairs], "eps": [*range(len(order) + 1)]},
            **{"predicted": predicted, "confidence": confidence, "source": model},
            "counted": {"target_correct": ["".join(map(str, mask.astype(int))) for mask in masks]},
            **{"classes": page.classes.index(record.class_names), "pictures": places},
            **{"second": [], "size": eps, "won": won},
        }
        page.blocks[f"job-tries-{number}"] = zlib.compress(as_json(content))
        page.blocks[f"pictures-tries-{number}"] = zlib.compress(bytes_)


def _pictures(
    page: PageData, digest: str, stored: Mapping[int, Mapping[float, NDArray[np.uint8]]]
) -> tuple[bytes, dict[str, Any]]:
    """Return pictures by image and budget, and where they are: [image, budget, start, bytes]."""
    side = next(iter(stored.values()))[0.0].shape[1:]
    data, small = [*page.places].index(digest), max(side) <= _SMALL
    cleans = page.places[digest]
    before, content, at, size = page.blocks[f"clean-{data}"], b"", list[list[Any]](), 0
    for index, versions in stored.items():
        parts = {
            eps: _picture(levels, versions[0.0], small) for eps, levels in versions.items() if eps
        }
        clean = versions[0.0].tobytes() if small else _webp(versions[0.0])
        new = b"" if index in cleans else clean
        size += len(zlib.compress(b"".join([*parts.values(), new]), 1))
        if at and size > _OF_JOB[small]:
            break
        if new:
            cleans[index] = [len(before), len(clean)]
            before += clean
        for eps, part in parts.items():
            at.append([index, eps, len(content), len(part)])
            content += part
    page.blocks[f"clean-{data}"] = before
    shapes = {"shape": list(side), "part": [length // _PART for length in side]}
    return content, {"data": data, "small": small, "at": at, **shapes}


def _picture(levels: NDArray[np.uint8], clean: NDArray[np.uint8], small: bool) -> bytes:
    """Return the differences to the clean picture; of a photograph a preview and a part of them."""
    change = np.clip(levels.astype(np.int16) - clean, -128, 127).astype(np.int8)
    if small:
        return change.tobytes()
    sides = [(size, size // _PART) for size in change.shape[1:]]
    rows, columns = (slice((size - part) // 2, (size + part) // 2) for size, part in sides)
    middle = change[:, rows, columns].tobytes()
    return len(middle).to_bytes(4, "little") + middle + _webp(levels)


def _webp(levels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(np.moveaxis(levels, 0, -1))
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "webp", quality=82)
    return file.getvalue()


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
        "predicted": _integers(_codes(result)),
        "confidence": _integers(100 * result.confidence),
        "counted": {
            name: [(row + np.uint8(ord("0"))).tobytes().decode() for row in mask]
            for name, mask in protocols.items()
        },
    }


def _codes(result: JobOutcomes) -> NDArray[np.float64]:
    """Return the class codes (T, N, K); NaN without a prediction."""
    codes = np.where(result.correct, 0, result.predicted + 1).astype(float)
    codes = np.where(result.abstained, -1, codes)
    return np.where(result.present | result.abstained, codes, np.nan)


def _integers(values: NDArray[np.floating]) -> list[int | None]:
    """Flatten (T, N, K) to whole numbers in the order model, budget, image."""
    flat = pd.array(np.rint(values.transpose(0, 2, 1).ravel()), "Int64")
    whole: list[int | None] = flat.to_numpy(object, na_value=None).tolist()
    return whole


def _groups(rows: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return groups by initial confidence, by target, with lists over the budgets."""
    if rows.empty:
        return {}
    columns = ["eps_255", "n", "still_correct", "robust_accuracy", "confidence"]
    lists, size = rows[columns].round(4).to_dict("list"), rows["eps_255"].nunique()
    groups: dict[str, list[dict[str, Any]]] = {}
    firsts = rows[["target", "name"]].to_numpy()[::size].tolist()  # it has a row per budget
    for number, (target, name) in enumerate(firsts):
        part: dict[str, Any] = {"name": name}
        part |= {str(name): list_[number * size :][:size] for name, list_ in lists.items()}
        groups.setdefault(target, []).append(part)
    return groups


def _kinds(images: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return, by target, the number of images described, and those of each kind, clearest first."""
    counts = images["target"].value_counts()
    kinds: dict[str, dict[str, Any]] = {str(target): {"n": n} for target, n in counts.items()}
    for kind, rows in by_kind(images).items():
        for target, index in zip(rows["target"].tolist(), rows["index"].tolist(), strict=True):
            kinds[str(target)].setdefault(kind, []).append(index)
    return kinds


def _second(job: FinishedJob, index: set[int]) -> list[list[Any]]:
    """Return [target, image, budget, class, percent] of the second likeliest classes."""
    if TOP_FIVE not in job.tables or not index:
        return []
    rows = job.table(TOP_FIVE)
    rows = rows[rows["index"].isin(index) & (rows["defence"] == NO_DEFENCE)]
    columns = ["target", "index", "eps_255", "top5_classes", "top5_confidences"]
    return [
        [*key, int(classes[1]), round(100 * float(shares[1]))]
        for *key, classes, shares in rows[columns].to_numpy().tolist()
        if len(classes) > 1
    ]
