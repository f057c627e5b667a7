"""Outcomes per image at one budget for several jobs, as packed bits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..utils.model_names import ModelRef
from .outcomes import Mask, Outcomes, evaluated_pairs, outcomes
from .transfer_rates import TRANSFER, relation

Bits = NDArray[np.uint8]
Values = NDArray[np.float64]
Pair = tuple[str, int]
"""A source and the position of a target."""


class RankingGroup(NamedTuple):
    """Properties that the jobs of one ranking share; they are columns of rankings.

    Attributes:
        targeted: Whether the attacks have target labels.
        ensemble: Whether the sources are ensembles.
        source_defended: Whether the sources are behind a defence.
    """

    targeted: bool
    ensemble: bool
    source_defended: bool


GROUP = [*RankingGroup._fields]


@dataclass(frozen=True)
class ImageOutcomes:
    """Outcomes for J jobs (attack and source), T targets and N images at one budget.

    Attributes:
        jobs: Attack and source of each job; the seeds of a job have equal entries.
        index: Numbers of the images in the data set, increasing, shape (N,).
        target_labels: Target labels of each job, shape (N,), -1 for images that were not attacked;
            None for an untargeted job.
        evaluated: Whether a job was evaluated on a target, shape (J, T).
        counted: Whether an image is in the denominator; packed bits, shape (J, T, ceil(N / 8)).
        fooled: Whether the attack succeeds on a counted image; packed bits of the same shape.
        correct: Whether a counted image is classified correctly, likewise.
    """

    jobs: list[tuple[str, str]]
    targets: list[ModelRef]
    index: NDArray[np.int64]
    target_labels: list[NDArray[np.int64] | None]
    evaluated: Mask
    counted: Bits
    fooled: Bits
    correct: Bits

    @cached_property
    def sources(self) -> list[ModelRef]:
        """The source of each job."""
        return [ModelRef.parse(source) for _, source in self.jobs]

    def unpack(self, bits: Bits) -> Mask:
        """Unpack bits into a mask of the images, shape (..., N)."""
        return np.unpackbits(bits, axis=-1, count=len(self.index)).view(bool)

    def group(self, job: int) -> "RankingGroup":
        """Return the group of a job: only jobs of one group are ranked together."""
        source, targeted = self.sources[job], self.target_labels[job] is not None
        return RankingGroup(targeted, source.is_ensemble, source.is_defended)

    def pairs(self, jobs: Iterable[int], targets: Sequence[int]) -> list[tuple[int, int]]:
        """Return the positions of evaluated jobs and targets, if the target is another network."""
        return [
            (job, target)
            for job in jobs
            for target in targets
            if self.evaluated[job, target]
            and relation(self.sources[job], self.targets[target]) == TRANSFER
        ]

    def select(self, **where: str) -> "ImageOutcomes":
        """Return the outcomes for one `source`, `target` or `defence`, given by name."""
        jobs = [at for at, (_, its) in enumerate(self.jobs) if where.get("source", its) == its]
        targets = [
            at
            for at, (target, defence) in enumerate(its.columns for its in self.targets)
            if where.get("target", target) == target and where.get("defence", defence) == defence
        ]
        return self._at(jobs, targets)

    def of_jobs(self, jobs: Sequence[int]) -> "ImageOutcomes":
        """Return the outcomes of the jobs at these positions."""
        return self._at(jobs, range(len(self.targets)))

    def of_first_seeds(self) -> "ImageOutcomes":
        """Return the outcomes of the first job for each attack and source."""
        first = {job: at for at, job in reversed([*enumerate(self.jobs)])}
        return self.of_jobs(sorted(first.values()))

    def _at(self, jobs: Sequence[int], targets: Sequence[int]) -> "ImageOutcomes":
        """Return the outcomes of the jobs and targets at these positions."""
        both = np.ix_(jobs, targets)
        return ImageOutcomes(
            [self.jobs[at] for at in jobs],
            [self.targets[at] for at in targets],
            self.index,
            [self.target_labels[at] for at in jobs],
            self.evaluated[both],
            self.counted[both],
            self.fooled[both],
            self.correct[both],
        )

    def on_images(self, index: NDArray[np.int64]) -> "ImageOutcomes":
        """Return the outcomes on some of the images."""
        keep = np.isin(self.index, index)
        bits = (
            np.packbits(self.unpack(bits)[..., keep], axis=-1)
            for bits in (self.counted, self.fooled, self.correct)
        )
        labels = [None if its is None else its[keep] for its in self.target_labels]
        return ImageOutcomes(
            self.jobs, self.targets, self.index[keep], labels, self.evaluated, *bits
        )

    def scores(self, seeds: Sequence[int], target: int) -> Values:
        """Return each image's mean success over the seeds of a job on a target, shape (N,).

        NaN where some seed does not count the image.
        """
        fooled = self.unpack(self.fooled[seeds, target]).mean(axis=0)
        counted = self.unpack(np.bitwise_and.reduce(self.counted[seeds, target]))
        return np.where(counted, fooled, np.nan)


def image_outcomes(
    predictions: pd.DataFrame, attack: str, source: str, targets: Sequence[str], protocol: str
) -> dict[float, ImageOutcomes]:
    """Return one job's outcomes by budget, for budgets above 0; arguments as for `rates`."""
    outcome = outcomes(predictions, source, evaluated_pairs(predictions, targets), protocol)
    return {eps: its for eps, its in by_budget(outcome, attack).items() if eps > 0}


def by_budget(outcome: Outcomes, attack: str) -> dict[float, ImageOutcomes]:
    """Return a job's outcomes by budget, from 0 on."""
    there: Mask = np.any(outcome.present | outcome.abstained, axis=1)
    masks = outcome.denominator, outcome.denominator & outcome.success, outcome.correct
    bits = [np.packbits(mask & masks[0], axis=1) for mask in masks]
    return {
        float(eps): ImageOutcomes(
            [(attack, str(outcome.source))],
            outcome.targets,
            outcome.index,
            [outcome.target_labels],
            there[None, :, at],
            *(its[None, :, :, at] for its in bits),
        )
        for at, eps in enumerate(outcome.eps_255)
    }


def joined(parts: Sequence[ImageOutcomes]) -> ImageOutcomes:
    """Combine the outcomes of several jobs at one budget."""
    unlike = {part.index.tobytes(): part.index for part in parts}
    index = np.unique(np.concatenate([*unlike.values()]))
    targets = list(dict.fromkeys(name for part in parts for name in part.targets))
    jobs = [job for part in parts for job in part.jobs]
    labels: list[NDArray[np.int64] | None] = []
    all_bits = np.zeros((3, len(jobs), len(targets), -(-len(index) // 8)), np.uint8)
    evaluated = np.zeros(all_bits.shape[1:3], bool)
    for part in parts:
        rows = len(labels) + np.arange(len(part.jobs))
        pairs = np.ix_(rows, np.array([targets.index(name) for name in part.targets]))
        at = np.searchsorted(index, part.index)
        evaluated[pairs] = part.evaluated
        for bits, part_bits in zip(
            all_bits, (part.counted, part.fooled, part.correct), strict=True
        ):
            if len(at) < len(index):
                mask = np.zeros((*part_bits.shape[:2], len(index)), bool)
                mask[..., at] = part.unpack(part_bits)
                part_bits = np.packbits(mask, axis=-1)
            bits[pairs] = part_bits
        for its in part.target_labels:
            wide = None if its is None else pd.Series(its, part.index)
            labels.append(None if wide is None else wide.reindex(index, fill_value=-1).to_numpy())
    return ImageOutcomes(jobs, targets, index, labels, evaluated, *all_bits)
