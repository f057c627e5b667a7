"""Results of an attack for each image: its cost and the adversarial image."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from ..artifacts.tables import FLOAT, INDEX, SINGLE, column
from ..images.storage import COST
from ..utils.model_names import ModelRef
from .prediction_rows import to_lists, to_numpy
from .protocol import EvaluatedBatch, Job, Measurement


class AttackCost(Measurement):
    """Gradients per image, how many were zero in every pixel, and forward passes.

    A row has the cost of the call of the attack that computed it, for all budgets of the call. The
    cost of attacking several images at once is divided evenly among them.
    """

    name = "crafting"
    schema = pa.schema([INDEX, *(column(name, FLOAT, 0) for name in COST)])
    switched_by = None

    each_budget = True

    def targets(self, job: Job) -> Sequence[ModelRef | None]:
        """Return no target."""
        return [None]

    def images(self, job: Job) -> np.ndarray:
        """Return all images."""
        return job.images.indices

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per newly attacked image."""
        assert batch.adversarial is not None
        cost = batch.adversarial.cost_of(*batch.budgets)
        rows = ~cost[0].isnan()
        columns = dict(zip(COST, cost[:, rows].numpy(), strict=True))
        return pa.table({"index": to_numpy(batch.batch.index)[rows.numpy()], **columns})

    def finish(self, table: pa.Table, job: Job) -> pa.Table:
        """Return a row per image: the counted cost of all budgets together.

        Rows of calls with other numbers of budgets, such as budgets that were added later, only
        bound this cost. It is the number that the attack states if all calls agree with what it
        states for them, and otherwise proportional to the number of budgets.
        """
        frame, settings = table.to_pandas().set_index("index"), job.settings
        budgets, taken, wanted = frame.pop("budgets"), frame["gradients"], len(settings.budgets)
        more = wanted / budgets  # 1 if the call had the same number
        least = (taken * more.clip(upper=1)).groupby("index").max()
        most = (taken * more.clip(lower=1)).groupby("index").mean()
        cost = frame[[*COST[:3]]].mul(more, axis=0).groupby("index").mean()
        members, counts = len(settings.source), {1, wanted, *budgets.astype(int)}
        stated = {count: settings.attack.gradients(count, members) for count in counts}
        each = pd.Series(stated, dtype=float) * members * settings.source_draws  # NaN if unknown
        agree = taken.between(0.99 * budgets.map(each), 1.01 * budgets * each[1]).all()
        within = agree & (least <= each[wanted]) & (each[wanted] <= most)
        gradients = cost["gradients"].mask(within, each[wanted])
        # 0 / 0 without gradients
        cost = cost.mul((gradients / cost["gradients"]).fillna(1), axis=0).assign(
            gradients=gradients
        )
        cost = cost.join(frame[[*COST[4:]]].groupby("index").max())
        return pa.Table.from_pandas(cost.reset_index(), preserve_index=False)


MOST_BYTES = 10_000_000
"""Size of a job's example images, at most, and of the pictures chosen after its pass."""


class AdversarialImages(AttackCost):
    """Adversarial images: those of the report, or all of a small job or for a saved set.

    A job is small if its images take less than `cache.images_mb`; targets that are added later then
    need no new attack. `index` are the images of a table for pictures alone.
    """

    name = "images"
    schema = pa.schema([INDEX, column("adversarial", pa.list_(SINGLE), 0, 1)])

    def __init__(self, index: Sequence[int] | None = None) -> None:
        self.index = index

    def images(self, job: Job) -> np.ndarray:
        """Return the images that are stored."""
        every = job.images.indices
        if self.index is not None:
            return np.unique(np.array(self.index, np.int64))
        return every if stores_all(job) else np.array(sorted(examples(job)), np.int64)

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per newly attacked image: its 3 H W values in [0, 1]."""
        assert batch.adversarial is not None
        rows = ~batch.adversarial.cost_of(*batch.budgets)[0].isnan()
        images = batch.version(*batch.budgets).adversarial[rows.to(batch.clean.device)]
        index = to_numpy(batch.batch.index)[rows.numpy()]
        return pa.table({"index": index, "adversarial": to_lists(images.flatten(1).float())})

    def finish(self, table: pa.Table, job: Job) -> pa.Table:
        """Return the table."""
        return table


def stores_all(job: Job) -> bool:
    """Return True if a job stores the adversarial versions of all its images."""
    settings = job.settings
    size = 4 * 3 * job.images.image_size**2 * len(settings.budgets) * len(job.images)
    return settings.save_adversarial or size <= settings.cache.images_mb * 1e6


def examples(job: Job) -> list[int]:
    """Return the index of the report's example images: named ones, and some spread over classes.

    All jobs on the same images and budgets have the same ones.
    """
    images, report = job.images, job.settings.report
    check_named(report.images, images.indices)
    by_class = images.indices[np.argsort(images.labels, kind="stable")]
    count = min(report.examples, len(images), most_pictures(job))
    spread = [int(by_class[position * len(images) // count]) for position in range(count)]
    return list(dict.fromkeys([*report.images, *spread]))


def check_named(named: Iterable[int], index: np.ndarray) -> None:
    """Raise ValueError if a number in `report.images` is none of the job's images, int64 (n,)."""
    if unknown := sorted({*named} - {*index.tolist()}):
        raise ValueError(
            f"report.images: image {unknown[0]} is not one of the job's {len(index)} images."
        )


def most_pictures(job: Job) -> int:
    """Return how many images take `MOST_BYTES` with all their adversarial versions, in 8 bits."""
    size = 3 * job.images.image_size**2 * (1 + len(job.settings.budgets))
    return max(1, MOST_BYTES // size)
