"""Outcomes of single images at one budget, counted and fooled, as bits for several jobs."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from src.analysis.matrices import TRANSFER, relation
from src.analysis.outcomes import Mask, evaluated_pairs, outcomes
from src.analysis.transfer_rates import ratio
from src.utils.defended_names import PLAIN, Evaluated, split_source

_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)

Bits = NDArray[np.uint8]
Cell = tuple[int, int]
"""Places of a job and a target."""


@dataclass(frozen=True)
class ImageOutcomes:
    """Outcomes of N images for J jobs, each an attack on a source, and T targets, at one budget.

    Attributes:
        jobs: Attack and source of each job; several seeds of a job have the same.
        index: Numbers of the images in the data set, rising, shape (N,).
        target_labels: Each job's target labels, shape (N,), -1: not attacked; None: untargeted.
        evaluated: Whether a job was evaluated on a target, shape (J, T).
        counted: Whether an image is in the denominator; packed bits of shape (J, T, ceil(N / 8)).
        fooled: Whether the attack succeeds on a counted image, likewise.
    """

    jobs: list[tuple[str, str]]
    targets: list[Evaluated]
    index: NDArray[np.int64]
    target_labels: list[NDArray[np.int64] | None]
    evaluated: Mask
    counted: Bits
    fooled: Bits

    def unpack(self, bits: Bits) -> Mask:
        """Return packed bits as a mask of the images, shape (..., N)."""
        return np.unpackbits(bits, axis=-1, count=len(self.index)).view(bool)

    def kind(self, job: int) -> str:
        """Return which jobs a job is ranked with: targeted or not, and the sort of its source."""
        source = self.jobs[job][1]
        sort = " of ensembles" if "+" in source else ""
        sort = sort if split_source(source).defence == PLAIN else " behind a defence"
        return ("untargeted" if self.target_labels[job] is None else "targeted") + sort

    def cells(self, jobs: Iterable[int], targets: Sequence[int]) -> list[Cell]:
        """Return the places of jobs and other networks that were evaluated."""
        return [
            (job, target)
            for job in jobs
            for target in targets
            if self.evaluated[job, target]
            and relation(self.jobs[job][1], *self.targets[target]) == TRANSFER
        ]

    def select(self, **where: str) -> "ImageOutcomes":
        """Return the jobs and targets that have a name as `source`, `target` or `defence`."""
        jobs = [at for at, (_, its) in enumerate(self.jobs) if where.get("source", its) == its]
        targets = [
            at
            for at, (target, defence) in enumerate(self.targets)
            if where.get("target", target) == target and where.get("defence", defence) == defence
        ]
        return self._at(jobs, targets)

    def of_jobs(self, jobs: Sequence[int]) -> "ImageOutcomes":
        """Return the jobs in some places."""
        return self._at(jobs, range(len(self.targets)))

    def leave_out(self, targets: Collection[str]) -> None:
        """Leave some targets out, as if they were not evaluated."""
        self.evaluated[:, [its.target in targets for its in self.targets]] = False

    def of_first_seeds(self) -> "ImageOutcomes":
        """Return the first job of each attack and source alone."""
        first = {job: at for at, job in reversed([*enumerate(self.jobs)])}
        return self.of_jobs(sorted(first.values()))

    def _at(self, jobs: Sequence[int], targets: Sequence[int]) -> "ImageOutcomes":
        """Return the jobs and targets in some places."""
        both = np.ix_(jobs, targets)
        return ImageOutcomes(
            [self.jobs[at] for at in jobs],
            [self.targets[at] for at in targets],
            self.index,
            [self.target_labels[at] for at in jobs],
            self.evaluated[both],
            self.counted[both],
            self.fooled[both],
        )

    def scores(self, cells: Iterable[Cell]) -> NDArray[np.float64]:
        """Return each image's mean success over the cells that count it, (N,); NaN for none.

        All seeds of a job together weigh as much as one job.
        """
        cells = list(cells)
        named = [(self.jobs[job], target) for job, target in cells]
        seeds, (fooled, counted) = Counter(named), np.zeros((2, len(self.index)))
        for cell, name in zip(cells, named, strict=True):
            fooled += self.unpack(self.fooled[cell]) / seeds[name]
            counted += self.unpack(self.counted[cell]) / seeds[name]
        return ratio(fooled, counted)


def image_outcomes(
    predictions: pd.DataFrame, attack: str, source: str, targets: Sequence[str], protocol: str
) -> dict[float, ImageOutcomes]:
    """Return one job's outcomes by budget above 0; the arguments are those of `rates`."""
    found = outcomes(predictions, source, evaluated_pairs(predictions, targets), protocol)
    counted = found.present & found.counted[:, :, None]
    there: Mask = np.any(found.present | found.abstained, axis=1)
    return {
        float(eps): ImageOutcomes(
            jobs=[(attack, source)],
            targets=found.targets,
            index=found.index,
            target_labels=[found.target_labels],
            evaluated=there[None, :, at],
            counted=np.packbits(counted[None, :, :, at], axis=-1),
            fooled=np.packbits((counted & found.success)[None, :, :, at], axis=-1),
        )
        for at, eps in enumerate(found.eps_255)
        if eps > 0
    }


def joined(parts: Sequence[ImageOutcomes]) -> ImageOutcomes:
    """Return the outcomes of several jobs, at one budget, as one."""
    unlike = {part.index.tobytes(): part.index for part in parts}
    index = np.unique(np.concatenate([*unlike.values()]))
    targets = list(dict.fromkeys(name for part in parts for name in part.targets))
    jobs = [job for part in parts for job in part.jobs]
    labels: list[NDArray[np.int64] | None] = []
    counted, fooled = np.zeros((2, len(jobs), len(targets), -(-len(index) // 8)), np.uint8)
    evaluated = np.zeros(counted.shape[:2], bool)
    for part in parts:
        rows = len(labels) + np.arange(len(part.jobs))
        cells = np.ix_(rows, np.array([targets.index(name) for name in part.targets]))
        at = np.searchsorted(index, part.index)
        evaluated[cells] = part.evaluated
        for bits, own in ((counted, part.counted), (fooled, part.fooled)):
            if len(at) < len(index):
                mask = np.zeros((*own.shape[:2], len(index)), bool)
                mask[..., at] = part.unpack(own)
                own = np.packbits(mask, axis=-1)
            bits[cells] = own
        for its in part.target_labels:
            wide = None if its is None else pd.Series(its, part.index)
            labels.append(None if wide is None else wide.reindex(index, fill_value=-1).to_numpy())
    return ImageOutcomes(jobs, targets, index, labels, evaluated, counted, fooled)


def count_ones(bits: NDArray[Any]) -> int:
    """Return the number of bits that are set."""
    return int(_ONES[bits].sum())
