"""Recompute a sample of the outcomes in a card, as many as a time allows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..artifacts.card import CardJob
from ..config.errors import REFUSALS, explain
from ..run.data import DataSets
from ..run.models import ModelPool
from ..run.recompute import DifferenceError, RecomputedJob
from ..utils import stopping
from ..utils.refusals import first_line
from .transfer import quiet

_FIRST, _GROWTH = 4, 4  # images in the first round, and growth per round
_SPARE = 0.8  # share of the time left that a round may take


@dataclass
class CheckedJob:
    """A job in a card, and what a sample of its outcomes showed.

    Attributes:
        rows: The recomputed outcomes with their distances; empty if there are none.
        order: Positions of its images in a random order, of which the first `images` are checked.
        rows: Outcomes of these images with their distances.
        pace: Seconds per image of the last pass.
        differs: What differs apart from outcomes, such as `weights of vgg16`.
        reason: Why nothing was recomputed.
    """

    stated: CardJob
    order: NDArray[np.int64]
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    images: int = 0
    pace: float = 0.0
    differs: str = ""
    reason: str = "time was up"

    @property
    def distance(self) -> NDArray[np.float64]:
        """Distances of the recomputed outcomes; empty if there are none."""
        return self.rows["distance"].to_numpy() if len(self.rows) else np.empty(0)


def check_jobs(
    stated: Sequence[CardJob],
    words: Sequence[str],
    config_dir: Path | None,
    minutes: float,
    seed: int,
) -> list[CheckedJob]:
    """Recompute some images of each job, four times as many in each round, until time is up.

    Args:
        stated: Jobs of a card.
        words: Settings that the user has typed, see `RecomputedJob`.
        config_dir: The user's folder of config files, likewise.
        minutes: Time for all jobs together.
        seed: Seed of the sample.
    """
    end = time.monotonic() + 60 * minutes
    draws = [np.random.default_rng([seed, number]) for number in range(len(stated) + 1)]
    jobs = [
        CheckedJob(job, draw.permutation(job.record.images))
        for job, draw in zip(stated, draws[1:], strict=True)
    ]
    turns = [jobs[number] for number in draws[0].permutation(len(jobs))]
    pool, size = ModelPool(), _FIRST
    pool.sets = DataSets(download=False)
    with stopping.time_limit(60 * minutes), quiet(), TemporaryDirectory() as cache:
        recompute = partial(
            RecomputedJob, words=words, config_dir=config_dir, pool=pool, cache=Path(cache)
        )
        while turns:
            for job in turns:
                stopping.raise_if_interrupted()
                _check(job, size, recompute)
            turns = [job for job in turns if 0 < job.images < len(job.order)]
            left, pace = end - time.monotonic(), sum(job.pace for job in turns)
            more = min(size * (_GROWTH - 1), int(_SPARE * left / pace) if turns else 0)
            size, turns = size + more, turns if more > 0 else []
    return jobs


def _check(job: CheckedJob, size: int, recompute: Callable[[CardJob], RecomputedJob]) -> None:
    """Recompute a job's first `size` images in its order, and note what it shows."""
    try:
        computed = recompute(job.stated)
        start, images = time.monotonic(), job.order[:size]
        job.rows = computed.compare(images)
        job.pace = (time.monotonic() - start) / (len(images) - job.images)
        job.images = len(images)
    except DifferenceError as difference:
        job.differs = str(difference)
    except Exception as error:  # a hostile card's settings may raise anything
        job.reason = explain(error) if isinstance(error, REFUSALS) else first_line(error)
