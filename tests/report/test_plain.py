"""Results against plain loops, over sweeps that lack pairs, budgets, predictions or sources."""

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from src import load_sweep
from src.artifacts.jobs import find_jobs
from src.artifacts.record import with_record
from tests.records import make_record

from .plain import MEAN, PROTOCOLS, QUANTITIES, Place, every_number

MODELS, CLASSES, REFERENCE = ("a", "b", "c"), 3, 8.0
CLOSE = 1e-12
VALUES = [name + end for name in QUANTITIES[:3] for end in ("", "_low", "_high")]
VALUES += ["true_confidence", "images", "pairs"]
COUNTS = ["denominator", "success", "still_correct"]
"""Columns of pairs alone."""


@dataclass(frozen=True)
class Job:
    """A made-up job. The defence `vote` abstains; the source `saved` has no clean predictions."""

    source: str
    targets: tuple[str, ...] = MODELS
    budgets: tuple[float, ...] = (REFERENCE,)
    defences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """Jobs by attack, the seeds of each attack, and the attacks that are targeted."""

    jobs: tuple[tuple[str, Job], ...]
    seeds: tuple[tuple[str, tuple[int, ...]], ...] = ()
    targeted: tuple[str, ...] = ()
    images: int = 16
    protocol: str = "joint"

    def write(self, folder: Path) -> pd.DataFrame:
        """Write the jobs, and return their predictions with attack, source and seed."""
        parts = []
        for number, (attack, job) in enumerate(self.jobs):
            for seed in dict(self.seeds).get(attack, (0,)):
                rows = self._predictions(attack, job, seed)
                members = job.source.partition("@")[0].split("+")
                names = [] if job.source == "saved" else ["+".join(members)]
                record = make_record(
                    **{"key": f"{attack}-{job.source}-{seed}", "attack": attack, "seed": seed},
                    **{"source": job.source, "targets": job.targets, "defences": job.defences},
                    **{"budgets": (0.0, *job.budgets), "reference": REFERENCE},
                    **{"images": self.images, "class_names": ("x", "y", "z")},
                    protocol=self.protocol,
                    weights=dict.fromkeys([*MODELS, *names], "digest"),
                    config={"attack": {"target_label": "data" * (attack in self.targeted) or None}},
                )
                here = folder / f"{number}{seed}-job"
                here.mkdir(parents=True)
                table = pa.Table.from_pandas(rows.drop(columns="confidence"), preserve_index=False)
                table = table.append_column("confidence", [rows["confidence"].to_numpy()])  # NaN
                table = with_record(table, "predictions", record)
                pq.write_table(table, here / "predictions.parquet")
                parts.append(rows.assign(attack=attack, source=job.source, seed=seed))
        return pd.concat(parts, ignore_index=True)

    def _predictions(self, attack: str, job: Job, seed: int) -> pd.DataFrame:
        """Return clean rows of all models, and those of the targets at each budget."""
        model, _, behind = job.source.partition("@")
        evaluated = list(product(("none", *job.defences), job.targets))
        clean = [("none", name) for name in MODELS] + [(behind or "none", model)]
        clean = [pair for pair in clean if pair not in evaluated and pair[1] != "saved"]
        label = _random("labels").integers(CLASSES, size=self.images)
        aims = _random(attack, job.source, seed).integers(CLASSES, size=self.images)
        columns: dict[str, list[Any]] = defaultdict(list)
        for defence, target in dict.fromkeys([*evaluated, *clean]):
            for eps in (0.0, *job.budgets * ((defence, target) in evaluated)):
                # Clean predictions are those of every job, but the defence draws for each.
                of_job = (attack, job.source, seed, eps) if eps or defence == "rnd" else ()
                random = _random(target, defence, *of_job)
                right = random.random(self.images) < (0.5 if eps else 0.8)
                other = (label + random.integers(1, CLASSES, size=self.images)) % CLASSES
                shares = random.random((2, self.images), dtype=np.float32)
                abstains = (random.random(self.images) < 0.3) & (defence == "vote")
                rows = {
                    **{"index": np.arange(self.images), "label": label, "image": ""},
                    **{"target": target, "defence": defence, "eps_255": eps},
                    "target_label": aims if eps and attack in self.targeted else -1,
                    "predicted": np.where(abstains, -1, np.where(right, label, other)),
                    "confidence": np.where(abstains, np.float32(np.nan), shares[0]),
                    "true_confidence": shares[1],
                }
                for name, values in rows.items():
                    columns[name].append(np.broadcast_to(values, self.images))
        frame = pd.DataFrame({name: np.concatenate(its) for name, its in columns.items()})
        aims_of = frame["target_label"].astype("Int64")
        return frame.assign(target_label=aims_of.where(aims_of >= 0))


def _random(*names: object) -> np.random.Generator:
    return np.random.default_rng(crc32(" ".join(map(str, names)).encode()))


def some(*names: Any, most: int | None = None) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return a strategy of nonempty parts of the names, in their order."""
    lists = st.lists(st.sampled_from(names), min_size=1, max_size=most, unique=True)
    return lists.map(lambda its: tuple(sorted(its, key=names.index)))


@st.composite
def sweeps(draw: st.DrawFn) -> Sweep:
    protocol = draw(st.sampled_from(PROTOCOLS))
    needs_source = protocol not in ("all", "target_correct")
    sources = ("a", "b", "c", "a+b", "a@jpeg", *["saved"] * (not needs_source))
    budgets = some(2.0, 4.0, REFERENCE, most=2)
    defences = st.sampled_from([*[()] * (protocol != "common"), ("jpeg",), ("jpeg", "vote")])
    jobs = [
        (attack, Job(source, draw(some(*MODELS)), draw(budgets), draw(defences)))
        for attack in ("mi", "pgd")
        for source in draw(some(*sources, most=3))
    ]
    return Sweep(
        tuple(jobs),
        seeds=tuple((attack, draw(st.sampled_from([(0,), (0, 3)]))) for attack in ("mi", "pgd")),
        targeted=draw(st.sampled_from([(), ("pgd",)])),
        images=draw(st.sampled_from([6, 16])),
        protocol=protocol,
    )


def jobs_of(attack: str, *sources: str, **facts: Any) -> tuple[tuple[str, Job], ...]:
    return tuple((attack, Job(source, **facts)) for source in sources)


WHOLE = jobs_of("mi", *MODELS)


def numbers_of(jobs: Any) -> dict[Place, dict[str, float]]:
    """Return the numbers of a frame of results by their place."""
    from src.report.results import results_of

    rows = results_of(jobs).frame
    of_mean = (rows["source"] == MEAN) | (rows["target"] == MEAN)
    plain = (rows["source"] != MEAN) | ~rows["ensemble"] & (rows["source_defence"] == "none")
    rows = rows[plain & (~of_mean | (rows["relation"] == "transfer"))]
    return {
        Place(*(row[name] for name in Place._fields)): {name: row[name] for name in VALUES + COUNTS}
        for row in rows.to_dict("records")
    }


@settings(max_examples=15, deadline=None)
@example(Sweep(WHOLE))
@example(Sweep(WHOLE, images=6))
@example(Sweep(WHOLE, seeds=(("mi", (0, 3, 7)),)))
@example(Sweep(WHOLE, targeted=("mi",), seeds=(("mi", (0, 3)),)))
@example(Sweep(jobs_of("mi", *MODELS, defences=("jpeg", "vote")), protocol="common"))
@example(Sweep(jobs_of("mi", *MODELS, defences=("vote",)), seeds=(("mi", (0, 3)),)))
@example(Sweep((*WHOLE, *jobs_of("mi", "a+b", "a@jpeg", defences=("jpeg",)))))
@example(Sweep((*WHOLE[:2], *jobs_of("mi", "c", targets=("c",)))))  # a source without a mean
@example(Sweep((*WHOLE[:2], *jobs_of("mi", "c", targets=("a",)))))
@example(Sweep(jobs_of("mi", "a", "saved", targets=("b",)), protocol="all"))
@example(Sweep((*WHOLE[:1], *jobs_of("mi", "b", "c", budgets=(2.0, 4.0, REFERENCE)))))
@example(Sweep((*jobs_of("mi", "a", budgets=(2.0,)), *jobs_of("mi", "b", budgets=(2.0, 4.0)))))
@given(sweeps())
def test_results_are_those_of_plain_loops(
    tmp_path_factory: pytest.TempPathFactory, sweep: Sweep
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    expected = every_number(sweep.write(folder), REFERENCE)
    results = numbers_of(find_jobs([folder]))
    assert results.keys() == expected.keys()
    for place, numbers in expected.items():
        for name, number in numbers.items():
            if name in results[place]:
                result = results[place][name]
                both = isnan(number) and isnan(result)
                assert both or abs(result - number) < CLOSE, (place, name, result, number)


@pytest.mark.parametrize("value", ["success", "accuracy"])
@pytest.mark.parametrize("images", [20, 21])
def test_no_attack_is_marked_as_best_beside_one_with_a_better_value(images, value, tmp_path):
    jobs = [(name, Job(its, defences=("rnd",))) for name in ("mi", "pgd") for its in "abc"]
    seeds = (("mi", (0, 3)), ("pgd", (0, 3)))
    Sweep(tuple(jobs), seeds, images=images).write(tmp_path)
    blocks, marked, defence = defaultdict[tuple[str, int], dict[str, float]](dict), set(), ""
    text = load_sweep(tmp_path).table(rows=["defence", "attack"], value=value, to="markdown")
    for line in text.splitlines()[2:]:
        if line.startswith("|"):
            first, attack, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            defence = first or defence
            for place, cell in enumerate(cells):
                if rate := re.match(r"[*]*([0-9.]+)", cell):
                    blocks[defence, place][attack] = float(rate[1])
                    marked |= {((defence, place), attack)} if cell.startswith("**") else set()
    assert marked
    better = {"success": max, "accuracy": min}[value]
    assert all(blocks[place][attack] == better(blocks[place].values()) for place, attack in marked)
