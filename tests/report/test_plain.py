"""Results against plain loops, over sweeps that lack pairs, budgets, predictions or sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from src.artifacts.finished_job import FinishedJob
from src.artifacts.jobs import name_jobs
from src.report.results import results_of
from tests.records import make_record

from .plain import MEAN, QUANTITIES, Place, every_number

MODELS, CLASSES, REFERENCE = ("a", "b", "c"), 3, 8.0
CLOSE = 1e-12
VALUES = [name + end for name in QUANTITIES[:3] for end in ("", "_low", "_high")]
VALUES += ["true_confidence", "images", "pairs"]
COUNTS = ["denominator", "success", "still_correct", "abstained", "clean_accuracy"]
COUNTS += ["success_confidence", "draws_correct", "conditional_images", "conditional_success"]
"""Columns of pairs alone."""


@dataclass(frozen=True)
class Job:
    """A made-up job. The defence `vote` abstains; the source `saved` has no clean predictions."""

    attack: str
    source: str
    targets: tuple[str, ...] = MODELS
    budgets: tuple[float, ...] = (REFERENCE,)
    defences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """Jobs, the seeds of each attack, and the attacks that are targeted."""

    jobs: Sequence[Job]
    seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    targeted: tuple[str, ...] = ()
    images: int = 16
    protocol: str = "joint"

    def make(self) -> tuple[list[FinishedJob], pd.DataFrame]:
        """Return the jobs, and their predictions with attack, source and seed."""
        jobs, parts = [], []
        for job in self.jobs:
            for seed in self.seeds.get(job.attack, (0,)):
                rows = self._predictions(job, seed)
                own = [job.source.partition("@")[0]] * (job.source != "saved")
                aim = "data" if job.attack in self.targeted else None
                record = make_record(
                    **{"key": f"{job.attack}-{job.source}-{seed}", "attack": job.attack},
                    **{"source": job.source, "targets": job.targets, "defences": job.defences},
                    **{"budgets": (0.0, *job.budgets), "reference": REFERENCE, "seed": seed},
                    **{"images": self.images, "class_names": ("x", "y", "z")},
                    **{"protocol": self.protocol, "weights": dict.fromkeys([*MODELS, *own], "w")},
                    config={"attack": {"target_label": aim}},
                )
                table = pa.Table.from_pandas(rows.drop(columns="confidence"), preserve_index=False)
                table = table.append_column("confidence", [rows["confidence"].to_numpy()])  # NaN
                jobs.append(FinishedJob(record, Path(), {"predictions": table}, raised=()))
                parts.append(rows.assign(attack=job.attack, source=job.source, seed=seed))
        return jobs, pd.concat(parts, ignore_index=True)

    def _predictions(self, job: Job, seed: int) -> pd.DataFrame:
        """Return clean rows of all models, and those of the targets at each budget."""
        model, _, behind = job.source.partition("@")
        evaluated = list(product(("none", *job.defences), job.targets))
        clean = [("none", name) for name in MODELS] + [(behind or "none", model)]
        clean = [pair for pair in clean if pair not in evaluated and pair[1] != "saved"]
        label = _random("labels").integers(CLASSES, size=self.images)
        aims = _random(job.attack, job.source, seed).integers(CLASSES, size=self.images)
        parts = []
        for defence, target in dict.fromkeys([*evaluated, *clean]):
            for eps in (0.0, *job.budgets * ((defence, target) in evaluated)):
                # Clean predictions are those of every job.
                of_job = (job.attack, job.source, seed, eps) if eps else ()
                random = _random(target, defence, *of_job)
                right = random.random(self.images) < (0.5 if eps else 0.8)
                other = (label + random.integers(1, CLASSES, size=self.images)) % CLASSES
                shares = random.random((2, self.images), dtype=np.float32)
                abstains = (random.random(self.images) < 0.3) & (defence == "vote")
                aimed = eps and job.attack in self.targeted
                rows = {
                    **{"index": np.arange(self.images), "label": label, "image": ""},
                    **{"gradients": np.nan, "forwards": np.nan},
                    **{"target": target, "defence": defence, "eps_255": eps},
                    "target_label": pd.array(aims if aimed else [None] * len(aims), "Int64"),
                    "predicted": np.where(abstains, -1, np.where(right, label, other)),
                    "confidence": np.where(abstains, np.float32(np.nan), shares[0]),
                    **{"true_confidence": shares[1], "draws": 5 if defence == "vote" else 1},
                }
                passes = random.integers(6, size=self.images)
                passes = pd.array(passes if defence == "vote" else [None] * len(passes), "Int64")
                parts.append(pd.DataFrame(rows).assign(draws_correct=passes))
        return pd.concat(parts, ignore_index=True)


def _random(*names: object) -> np.random.Generator:
    return np.random.default_rng(crc32(" ".join(map(str, names)).encode()))


def jobs_of(attack: str, *sources: str, **facts: Any) -> list[Job]:
    return [Job(attack, source, **facts) for source in sources]


def numbers_of(jobs: Any) -> dict[Place, dict[str, float]]:
    """Return the numbers of a frame of results by their place."""
    rows = results_of(jobs).frame
    of_mean = (rows["source"] == MEAN) | (rows["target"] == MEAN)
    plain = (rows["source"] != MEAN) | ~rows["ensemble"] & (rows["source_defence"] == "none")
    rows = rows[plain & (~of_mean | (rows["relation"] == "transfer"))]
    return {
        Place(*(row[name] for name in Place._fields)): {name: row[name] for name in VALUES + COUNTS}
        for row in rows.to_dict("records")
    }


WHOLE = jobs_of("mi", *MODELS)
BEHIND = {"defences": ("jpeg", "vote")}
MIXED = [
    *jobs_of("mi", "a", "saved", "a+b", targets=("b", "c"), budgets=(4.0, REFERENCE)),
    *jobs_of("mi", "c", targets=("a", "b"), budgets=(2.0, REFERENCE), **BEHIND),
    *jobs_of("pgd", "b", "a@jpeg", "c", **BEHIND),
]
TWO, THREE = {"mi": (0, 3)}, {"mi": (0, 3, 7)}
SWEEPS = {
    "whole": Sweep(WHOLE),
    "few images": Sweep(WHOLE, images=6),
    "three seeds": Sweep(WHOLE, THREE),
    "targeted": Sweep(WHOLE, TWO, targeted=("mi",)),
    "common": Sweep(jobs_of("mi", *MODELS, **BEHIND), protocol="common"),
    "abstaining": Sweep(jobs_of("mi", *MODELS, defences=("vote",)), TWO),
    "ensembles": Sweep([*WHOLE, *jobs_of("mi", "a+b", "a@jpeg", defences=("jpeg",))]),
    "a source without a mean": Sweep([*WHOLE[:2], *jobs_of("mi", "c", targets=("c",))]),
    "a source with one target": Sweep([*WHOLE[:2], *jobs_of("mi", "c", targets=("a",))]),
    "saved": Sweep(jobs_of("mi", "a", "saved", targets=("b",)), protocol="all"),
    "other budgets": Sweep([*WHOLE[:1], *jobs_of("mi", "b", "c", budgets=(2.0, 4.0, REFERENCE))]),
    "no reference": Sweep([Job("mi", "a", MODELS, (2.0,)), Job("mi", "b", MODELS, (2.0, 4.0))]),
    "mixed": Sweep(MIXED, TWO | {"pgd": (3,)}, targeted=("pgd",), protocol="target_correct"),
    "of sources": Sweep([*WHOLE, *jobs_of("pgd", "a", "b", **BEHIND)], protocol="source_correct"),
}


@pytest.mark.parametrize("kind", SWEEPS)
def test_results_are_those_of_plain_loops(kind: str) -> None:
    jobs, predictions = SWEEPS[kind].make()
    expected, results = every_number(predictions, REFERENCE), numbers_of(name_jobs(jobs))
    assert results.keys() == expected.keys()
    for place, numbers in expected.items():
        for name, number in numbers.items():
            if name in results[place]:
                result = results[place][name]
                both = isnan(number) and isnan(result)
                assert both or abs(result - number) < CLOSE, (place, name, result, number)
