"""Results of an attack for each image: its cost and the adversarial image."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from ..artifacts.tables import FLOAT, INDEX, SINGLE, column
from ..images.storage import COST
from .prediction_rows import to_lists, to_numpy
from .protocol import EvaluatedBatch, Job, Measurement


class AttackCost(Measurement):
    """Gradients per image, how many were zero in every pixel, and forward passes.

    A row has the cost of the call of the attack that computed it, for all budgets of the call. The
    cost of attacking several images at once is divided evenly among them.

    Args:
        stated: Function from a number of budgets to the gradients per image that the attack states
            for it, with those of all members and draws; None if it states none.
    """

    name = "crafting"
    schema = pa.schema([INDEX, *(column(name, FLOAT, 0) for name in COST)])
    each_budget, by_target = True, False

    def __init__(self, stated: Callable[[int], float | None]) -> None:
        self.stated = stated

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
        frame, wanted = table.to_pandas().set_index("index"), len(job.budgets)
        budgets, taken = frame.pop("budgets"), frame["gradients"]
        more = wanted / budgets  # 1 if the call had the same number
        least = (taken * more.clip(upper=1)).groupby("index").max()
        most = (taken * more.clip(lower=1)).groupby("index").mean()
        cost = frame[[*COST[:3]]].mul(more, axis=0).groupby("index").mean()
        counts = {1, wanted, *budgets.astype(int)}
        each = pd.Series({count: self.stated(count) for count in counts}, dtype=float)  # or NaN
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

    Args:
        index: The images.
    """

    name = "images"
    schema = pa.schema([INDEX, column("adversarial", pa.list_(SINGLE), 0, 1)])

    def __init__(self, index: Sequence[int] | np.ndarray) -> None:
        self.index = np.unique(np.array(index, np.int64))

    def images(self, job: Job) -> np.ndarray:
        """Return the images that are stored."""
        return self.index

    def rows(self, batch: EvaluatedBatch) -> pa.Table:
        """Return a row per newly attacked image: its 3 H W values in [0, 1]."""
        assert batch.adversarial is not None
        rows = ~batch.adversarial.cost_of(*batch.budgets)[0].isnan()
        images = batch.version(*batch.budgets).adversarial[rows.to(batch.clean.device)]
        index = to_numpy(batch.batch.index)[rows.numpy()]
        return pa.table({"index": index, "adversarial": to_lists(images.flatten(1).float())})


def most_pictures(side: int, budgets: int) -> int:
    """Return how many images of a side take `MOST_BYTES` with all adversarial versions, in 8 bits.

    `budgets` is their number.
    """
    return max(1, MOST_BYTES // (3 * side**2 * (1 + budgets)))
