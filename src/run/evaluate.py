"""Compute a job's tables: clean predictions, the first crafted batch, then all other rows."""

import logging
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ..artifacts.tables import named
from ..cache.rows import Rows
from ..data import to_unit
from ..images.storage import TOLERANCE_255, AttackedImages
from ..measure.attack_cost import AdversarialImages, AttackCost
from ..measure.prediction_rows import with_cost
from ..measure.predictions import Clean, Predictions
from ..utils.devices import is_out_of_memory
from ..utils.files import WriteError
from ..utils.model_names import ModelRef
from ..utils.processes import from_first_process, is_first_process, sum_of_processes
from .clean_accuracy import check_clean_accuracies
from .craft import make_attacker
from .stages import JobContext, Part, StoredRows, missing_rows, parts_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobTables:
    """Rows of a job; only the first process has them.

    Attributes:
        clean: Predictions for the clean images.
        predictions: Predictions for adversarial images by variant, the primary one first.
        diagnostics: The other tables, by name.
        gradients: Number of gradients computed in this run.
        zero_gradients: Share of the attack's gradients that were zero in every pixel; NaN if there
            were no gradients.
        gradients_per_image: Number of gradients that the attack has taken per image, for all
            budgets; NaN without an attack.
        not_finite: Number of images with NaN or infinity in a gradient.
        clipped: By how much clipping to a budget moved a pixel, at most, in 1/255, for each image
            that it moved, float64 (n,).
        seconds: Duration of the attacked passes; NaN if some of their rows were stored.
        batch_size: Images per batch; smaller than in the settings if memory did not suffice.
        kernels: Names of kernels in this run that are not deterministic.
    """

    clean: pa.Table
    predictions: Mapping[str, pa.Table]
    diagnostics: Mapping[str, pa.Table]
    gradients: int
    zero_gradients: float
    gradients_per_image: float
    not_finite: int
    clipped: np.ndarray
    seconds: float
    batch_size: int
    kernels: Sequence[str]


class Evaluation:
    """The rows of a job, stored or computed: clean, perhaps a first batch, the rest.

    Attributes:
        job: The job; its targets may follow after the first batch.
        tables: The tables, once all rows are computed; None in other processes than the first.
    """

    def __init__(self, job: JobContext, cache: Rows) -> None:
        self.job, self.stored = job, StoredRows(job, cache)
        self.tables: JobTables | None = None
        self._rows = dict[Part, pa.Table]()  # of the first process alone
        self._clean, self._crafted = dict[ModelRef | None, Part](), list[Part]()
        self._renewed = set[tuple[str, str]]()  # places whose earlier rows `rerun` has removed
        self._pass: Any = None  # a JobPass, if something is computed
        self._seconds, self._batch_size = 0.0, 0

    def clean(self) -> None:
        """Compute the predictions of the job's models for the clean images, and check them."""
        clean = [table for table in self.job.measurements if isinstance(table, Clean)]
        parts = [part for part in parts_of(self.job, clean) if part.target not in self._clean]
        self._compute(parts)
        self._clean |= {part.target: part for part in parts}
        if parts:
            check_clean_accuracies(self.job, from_first_process(self._table(parts)))

    def craft_first(self) -> None:
        """Attack the first batch of each process that has not been attacked; keep its images."""
        crafted = [table for table in self.job.measurements if isinstance(table, AttackCost)]
        if crafted:
            self._crafted = [*parts_of(self.job, crafted)]
            self._seconds += self._compute(self._crafted, first=True)

    def rest(self) -> None:
        """Compute all other rows; the first process then has the tables."""
        self.clean()
        job = self.job
        clean = from_first_process(self._table(self._clean[pair] for pair in job.classifiers))
        done = {part.measurement for part in [*self._clean.values(), *self._crafted]}
        others = [measurement for measurement in job.measurements if measurement not in done]
        parts = [*self._crafted, *parts_of(job, others, clean)]
        self._compute([part for part in parts if not part.measurement.attacked])
        self._seconds += self._compute([part for part in parts if part.measurement.attacked])
        attacker = getattr(self._pass, "attacker", None)
        gradients = sum_of_processes(attacker.gradients if attacker else 0)
        if is_first_process():
            self.tables = self._make_tables(clean, parts, gradients)

    @property
    def folder(self) -> str:
        """Folder of the job's rows in the cache: of its attack or, without one, of its models."""
        clean = next(iter(self._clean.values()))
        return self.job.attack_key if self.job.budgets else clean.place[0]

    def craft(self, index: Sequence[int]) -> None:
        """Store the adversarial versions of some images; attack them if they are not stored."""
        self._compute([*parts_of(self.job, [AdversarialImages(index)])])

    def images(self, index: Sequence[int]) -> list[AttackedImages]:
        """Return stored images with their adversarial versions, one batch per budget.

        Raises:
            ValueError: Another command has removed stored images.
        """
        job, budgets = self.job, self.job.budgets
        batch = job.images[np.searchsorted(job.images.indices, index)]
        if job.saved is not None:
            versions = [*job.saved.versions(batch, budgets).images]
        else:
            with ExitStack() as locks:
                with suppress(WriteError):  # a read-only cache
                    parts = [*parts_of(job, [AdversarialImages(index)])]
                    locks.enter_context(self.stored.locked(parts))  # others may compute them anew
                stored = [self.stored.images(index, eps_255) for eps_255 in budgets]
            if not all({*index} <= images.keys() for images in stored):
                raise ValueError("Another command has removed images of this job. Start it again.")
            versions = [torch.from_numpy(np.stack([rows[i] for i in index])) for rows in stored]
        clean = to_unit(batch.images)
        return [
            AttackedImages(clean, images, batch, eps, job.norm)
            for eps, images in zip(budgets, versions, strict=True)
        ]

    def _compute(self, parts: Sequence[Part], first: bool = False) -> float:
        """Read the rows of parts; compute those that are not stored or, with `rerun`, all.

        Return the seconds that this took; NaN if some rows were stored.
        """
        job, stored, rerun = self.job, self.stored, self.job.rerun
        with ExitStack() as locks:
            if is_first_process():
                old = [part for part in parts if rerun and part.place not in self._renewed]
                if not old:
                    self._rows |= stored.read(missing_rows(parts, self._rows))
                if old or missing_rows(parts, self._rows):
                    locks.enter_context(stored.locked(parts))
                    stored.discard(old)
                    self._renewed |= {part.place for part in old}
                    self._rows |= stored.read(missing_rows(parts, self._rows))
            missing = self._share(parts)
            if not missing:
                return math.nan
            # The first batch has been attacked before the others.
            decisive = [
                part for part in parts if first or not isinstance(part.measurement, AttackCost)
            ]
            whole = all(len(missing.get(part, ())) == len(part.index) for part in decisive)
            attacked = any(part.measurement.attacked for part in missing)
            size = self._batch_size or job.attack_batch
            if not attacked:
                size = int(job.trainer.batch_size)
            start, succeeded = time.perf_counter(), False
            while missing and not (first and succeeded):
                if succeeded:
                    raise ValueError(
                        f"cache.dir={job.cache_dir}: rows of {len(missing)} tables are "
                        "missing. All processes of a job need the same folder."
                    )
                try:
                    self._open_pass(attacked).run_pass(job, missing, size, first)
                    succeeded = True
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    size = self._halve(size, attacked, error)
                if is_first_process():
                    stored.merge(missing)
                    self._rows |= stored.read(missing)
                missing = self._share(parts)
        self._batch_size = size if attacked else self._batch_size
        return time.perf_counter() - start if whole else math.nan

    def _open_pass(self, attacked: bool) -> Any:
        """Return the one pass of the job, with its attack if it is needed."""
        from .passes import JobPass  # slow to import

        if self._pass is None:
            self._pass = JobPass(self.job, self.stored)
        if attacked and self.job.attack.function is not None and self._pass.attacker is None:
            self._pass.attacker = make_attacker(self.job)
        return self._pass

    def _halve(self, size: int, attacked: bool, error: BaseException) -> int:
        """Return half the batch size after an out-of-memory error; refuse what cannot be halved."""
        depends = attacked and not self.job.attack.keeps_images_apart  # of rows on their batch
        if size == 1 or depends:
            text = f"trainer.batch_size={size} needs more free memory." + " Lower it." * (size > 1)
            raise ValueError(text) from error
        log.warning("Out of memory: continuing with batches of %d images, not %d.", size // 2, size)
        attacker = self._pass.attacker
        if attacker is not None and attacker.max_batch:
            attacker.max_batch = max(1, attacker.max_batch // 2)
        return size // 2

    def _share(self, parts: Sequence[Part]) -> dict[Part, np.ndarray]:
        """Return the missing images of the first process; parts have the same order in all."""
        missing = missing_rows(parts, self._rows) if is_first_process() else {}
        numbers = {number: missing[part] for number, part in enumerate(parts) if part in missing}
        return {parts[number]: index for number, index in from_first_process(numbers).items()}

    def _table(self, parts: Iterable[Part]) -> pa.Table | None:
        """Return the table of some parts, with columns for the target; None without rows."""
        tables = []
        for part in parts:
            if part in self._rows:
                rows = self._rows[part].sort_by([*map(_order, part.measurement.order)])
                tables.append(rows if part.target is None else named(rows, part.target))
                measurement = part.measurement
        return measurement.finish(pa.concat_tables(tables), self.job) if tables else None

    def _make_tables(self, clean: pa.Table, parts: Sequence[Part], gradients: int) -> JobTables:
        """Return the tables and what they and the models show."""
        by_name = dict[str, list[Part]]()
        for part in parts:
            by_name.setdefault(part.measurement.name, []).append(part)
        by_name.pop(AdversarialImages.name, None)
        made = {name: self._table(group) for name, group in by_name.items()}
        tables = {name: table for name, table in made.items() if table is not None}
        cost = tables.pop(AttackCost.name, None)
        variants = {
            name: _with_cost(table, name, cost)
            for name, table in tables.items()
            if isinstance(by_name[name][0].measurement, Predictions)
        }
        cost = AttackCost.schema.empty_table() if cost is None else cost
        sums = {name: pc.sum(cost[name]).as_py() or 0 for name in cost.column_names}
        taken = sums["gradients"]
        return JobTables(
            clean=with_cost(clean, {"gradients": 0, "forwards": 0}),
            predictions=variants,
            diagnostics={name: table for name, table in tables.items() if name not in variants},
            gradients=gradients,
            zero_gradients=sums["zero_gradients"] / taken if taken else math.nan,
            gradients_per_image=taken / len(cost) if len(cost) else math.nan,
            not_finite=int(sums["not_finite"]),
            clipped=cost["clipped"].filter(pc.greater(cost["clipped"], TOLERANCE_255)).to_numpy(),
            seconds=self._seconds,
            batch_size=self._batch_size,
            kernels=sorted(self._pass.kernels if self._pass else ()),
        )


def _with_cost(table: pa.Table, name: str, cost: pa.Table | None) -> pa.Table:
    """Return predictions with the cost of each row's image: 0 for noise, null if unknown."""
    if name == "noise":
        return with_cost(table, {"gradients": 0, "forwards": 0})
    if cost is None:
        return with_cost(table, {})
    places = pc.index_in(table["index"], cost["index"])
    return with_cost(table, {key: cost[key].take(places) for key in ("gradients", "forwards")})


def _order(name: str) -> tuple[str, str]:
    """Return a column and its direction, from an entry of `Measurement.order`."""
    return name.removeprefix("-"), "descending" if name.startswith("-") else "ascending"
