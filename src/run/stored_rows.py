"""The rows of a job: parts that share a key, and their places in the cache."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..artifacts.tables import IMAGE
from ..cache.keys import rows_place
from ..cache.rows import Rows
from ..measure.attack_cost import AdversarialImages
from ..measure.protocol import Measurement, Needs
from ..utils.model_names import TARGET_COLUMNS, ModelRef
from .stages import JobContext


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a table that share one key in the cache, whatever their images.

    Attributes:
        index: Images that have rows, int64 (n,), ascending.
        target: Target that the rows belong to; None: no single target.
        budgets: Budgets of the adversarial images that the rows need, in units of 1/255.
    """

    job: JobContext
    measurement: Measurement
    needs: Needs
    index: np.ndarray
    target: ModelRef | None
    budgets: tuple[float, ...]

    @property
    def models(self) -> list[ModelRef]:
        """The models that the rows depend on."""
        return [*self.needs.others, *filter(None, [self.target])]

    @cached_property
    def place(self) -> tuple[str, str]:
        """Folder of the rows in the cache, and their key in it.

        The folder stands for the attack or, without an attack, for the models. The key covers
        everything else.
        """
        job, measurement = self.job, self.measurement
        attack = job.attack_key if measurement.attacked else None
        models = sorted(map(job.model_key, self.models))
        parts = self.needs.key_parts
        return rows_place(
            job.common_parts, attack, models, measurement.stored_as, self.budgets, parts
        )


def parts_of(
    job: JobContext, measurements: Iterable[Measurement], clean: pa.Table | None = None
) -> Iterator[Part]:
    """Yield the parts of measurements.

    `clean` are the predictions for the clean images; None: all are correct.
    """
    for measurement in measurements:
        needs = measurement.needs(job)
        single = [(eps_255,) for eps_255 in needs.budgets]
        for target in needs.targets:
            index = needs.images
            if measurement.correct_only and clean is not None and target is not None:
                of_target = map(pc.equal, [clean[key] for key in TARGET_COLUMNS], target.columns)
                correct = pc.equal(clean["predicted"], clean["label"])
                rows = clean.filter(pc.and_(pc.and_(*of_target), correct))
                index = np.intersect1d(index, rows["index"].to_numpy())
            for budgets in single if measurement.each_budget else [needs.budgets]:
                yield Part(job, measurement, needs, index, target, budgets)


class StoredRows:
    """The rows of a job in the cache: the one place that reads and writes them."""

    def __init__(self, job: JobContext, cache: Rows) -> None:
        self.job, self.cache = job, cache

    def read(self, parts: Iterable[Part]) -> dict[Part, pa.Table]:
        """Return the stored rows by part, without empty ones; images only with columns of keys."""
        rows = dict[Part, pa.Table]()
        for (origin, name), keys in _places(parts).items():
            measurement = keys[0].measurement
            columns = ["key", "index", "image"]
            only = columns if isinstance(measurement, AdversarialImages) else None
            if (table := self.cache.read(origin, name, only)) is None:
                continue
            paired = measurement.paired
            held = self.job.images.holds(table["index"], table["image"], paired)
            table = table.filter(pa.array(held))
            if paired:
                own = pc.utf8_slice_codeunits(table["image"], 0, 16)
                table = table.set_column(table.column_names.index("image"), "image", own)
            for part in keys:
                mine = table.filter(pc.equal(table["key"], part.place[1]))
                mine = mine.filter(pc.is_in(mine["index"], pa.array(part.index)))
                if len(mine):
                    rows[part] = mine.drop_columns("key")
        return rows

    def add(self, tables: Mapping[Part, pa.Table]) -> None:
        """Add the rows of a batch, one file per table, so that a kill loses only one batch."""
        images = self.job.images
        for (origin, name), keys in _places(tables).items():
            by_key = dict[str, pa.Table]()  # two names of a model share a key
            for part in keys:
                rows, (_, key) = tables[part], part.place
                places = np.searchsorted(images.indices, rows["index"].to_numpy())
                digests = images.row_digests(places, part.measurement.paired)
                rows = rows.append_column("key", pa.repeat(key, len(rows)))
                by_key.setdefault(key, rows.append_column(IMAGE, pa.array(digests, pa.string())))
            if any(map(len, by_key.values())):
                self.cache.add(origin, name, pa.concat_tables(by_key.values()))

    def merge(self, parts: Iterable[Part]) -> None:
        """Merge the files of each table, except those of images."""
        for (origin, name), keys in _places(parts).items():
            if not isinstance(keys[0].measurement, AdversarialImages):
                self.cache.merge(origin, name)

    def discard(self, parts: Iterable[Part]) -> None:
        """Remove the rows of parts."""
        for (origin, name), keys in _places(parts).items():
            self.cache.discard(origin, name, [part.place[1] for part in keys])

    def images(self, index: Sequence[int], eps_255: float) -> dict[int, np.ndarray]:
        """Return the stored adversarial images for a budget, float32 (3, H, W), by index."""
        parts = parts_of(self.job, [AdversarialImages(index)])
        (place,) = (part.place for part in parts if part.budgets == (eps_255,))
        name, side = AdversarialImages.name, self.job.images.image_size
        table = self.cache.select(place[0], name, place[1], index) if len(index) else None
        if table is None:
            return {}
        table = table.filter(pa.array(self.job.images.holds(table["index"], table["image"])))
        values = table["adversarial"].combine_chunks().flatten().to_numpy()
        return dict(zip(table["index"].to_pylist(), values.reshape(-1, 3, side, side), strict=True))

    def locked(self, parts: Iterable[Part]) -> ExitStack:
        """Hold the locks of the attacks and models of parts; wait for other processes."""
        held = ExitStack()
        held.enter_context(self.cache.locked([part.place[0] for part in parts]))
        return held


def missing_rows(parts: Iterable[Part], rows: Mapping[Part, pa.Table]) -> dict[Part, np.ndarray]:
    """Return the indices of images without rows, int64 (n,), by part with missing rows."""
    missing = {
        part: np.setdiff1d(part.index, rows[part]["index"].to_numpy() if part in rows else [])
        for part in parts
    }
    return {part: index for part, index in missing.items() if len(index)}


def _places(parts: Iterable[Part]) -> dict[tuple[str, str], list[Part]]:
    """Return parts by the place of their table in the cache."""
    places: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        places.setdefault((part.place[0], part.measurement.stored_as), []).append(part)
    return places
