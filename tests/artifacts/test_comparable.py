"""Which leaves of a job's record tell jobs apart, and which jobs a mean combines."""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from src.artifacts.comparable import VARYING, WITHOUT_EFFECT, groups_of, networks_of
from src.artifacts.finished_job import FinishedJob
from src.artifacts.jobs import name_jobs
from src.artifacts.record import JobRecord, record_of
from src.report.results import JobResults, Results
from src.report.signature import signature_of
from tests.config.test_settings import read

WORDS = "experiment=demo attack=uap source=vgg_small targets=[vgg_small,vit_small,resnet_small]"
NAMES = ("vgg_small", "vit_small", "resnet_small")
RESULTS = {
    **{"key": "k", "key_parts": {"fit.images": "a", "fit.passes": "b", "layers.vit_small": "n"}},
    **{"crafting": "c", "target_keys": {"vit_small": "d"}, "gradients": 0, "zero_gradients": 0.5},
    **{"seconds": 1.0, "data": "e", "images": 20, "values": 192, "class_names": ("f", "g")},
    **{"code": {"program": "h", "attack": "i", "vit_small": "j", "defence.jpeg": "l"}},
    **{"weights": dict.fromkeys(NAMES, "m"), "device": "cpu"},
}
RAN = {"device", "nondeterministic"}
REPEATED = {"dataset", "versions.transferability"}
"""Leaves that change no number, and stand in a signature."""
MINE = {"_target_": "a.b", "chart": {"y": "c"}}
FILES = {"path": "a", "clean": "b", "labels": "c", "eps_255": 8, "origin": {"source": "d"}}


def make() -> dict[str, Any]:
    """Return the record of a job with all sections, as JSON data."""
    record = record_of(read(*WORDS.split(), "defences=jpeg"), None, **RESULTS)
    data: dict[str, Any] = record.model_dump(mode="json")
    data["config"] |= {"measurements": {"mine": MINE}}
    data["config"]["attack"]["saved"] = FILES
    return data


def leaves(data: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the place of each leaf; a list is a leaf."""
    if isinstance(data, dict):
        for key in data:
            yield from leaves(data[key], (*place, key))
    else:
        yield place


def changed(data: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    """Return data with another value of a leaf."""
    data = json.loads(json.dumps(data))
    section: Any = data
    for key in place[:-1]:
        section = section[key]
    match section[place[-1]]:
        case bool(value):
            other: Any = not value
        case int(value) | float(value):
            other = value + 1
        case [*values]:
            other = [*values, 99.0 if place == ("budgets",) else "other"]
        case value:
            other = f"{value} other"
    section[place[-1]] = other
    return data


def apart(*jobs: dict[str, Any]) -> bool:
    """Return True if no mean over the sources of jobs of several sweeps combines them."""
    records = [JobRecord.model_validate(job) for job in jobs]
    found = [
        FinishedJob(record, Path(sweep, "0-job"), {}, sweeps=(sweep,))
        for record, sweep in zip(records, "AB", strict=True)
    ]
    return len({job.row_title for job in name_jobs(found)}) > 1 or len({*groups_of(records)}) > 1


def test_each_leaf_tells_jobs_apart_or_may_differ_or_changes_no_number():
    first = make()
    other = first | {"source": "vit_small", "key": "another"}
    assert not apart(first, other)
    lists, told = {name: 0 for name in (*VARYING, *WITHOUT_EFFECT)}, set[str]()
    for place in leaves(first):
        leaf = ".".join(place)
        listed = [name for name in lists if fnmatchcase(leaf, name)]
        if apart(first, changed(other, place)):
            told.add(leaf)
            assert not listed or leaf.startswith("key_parts.fit."), leaf
        else:
            assert len(listed) == 1, f"{leaf} stands in {listed or 'no list'}"
        lists |= dict.fromkeys(listed, 1)
    assert [name for name, count in lists.items() if not count] == []
    assert {"config.ensemble", "config.source_draws", "config.model.vit_small.channels"} <= told
    assert {"key_parts.fit.images", "key_parts.fit.passes", "label", "seed", "data"} <= told


def signature(data: dict[str, Any]) -> str:
    """Return the signature of a job's pairs with other networks."""
    record = JobRecord.model_validate(data)
    job = JobResults(
        FinishedJob(record, Path("A", "0-job"), {}), pd.DataFrame(), pd.DataFrame(), ()
    )
    row = {
        "attack": job.job.attack,
        "source": record.source,
        "norm": record.norm,
        "defence": "none",
    }
    row |= {"protocol": record.protocol, "eps_255": record.reference, "relation": "transfer"}
    row |= {"targeted": False, "least": 7, "most": 9}
    pairs = pd.DataFrame([{**row, "target": target} for target in record.targets])
    return signature_of(Results([[job]], [()]), pairs)


def test_each_fact_changes_the_signature_and_nothing_else_does():
    first = make()
    lists = (*WITHOUT_EFFECT, *(name for name in VARYING if "." in name or name in RAN))
    same, differ = set[str](), set[str]()
    for place in leaves(first):
        leaf = ".".join(place)
        (same if signature(changed(first, place)) == signature(first) else differ).add(leaf)
    listed = {leaf for leaf in same | differ if any(fnmatchcase(leaf, name) for name in lists)}
    assert same == listed - REPEATED - {leaf for leaf in listed if leaf.startswith("key_parts.")}
    for fact in ("seed", "storage", "config.attack.target_label", "config.ensemble", "source"):
        assert fact in differ
    assert {"config.source_draws", "config.defence.jpeg.repeats", "code.attack"} <= differ
    assert {"config.trainer.fold_batch_norms", "config.trainer.attack_precision"} <= differ
    assert {
        "weights.vit_small",
        "data",
        "config.trainer.precision",
        "key_parts.layers.vit_small",
    } <= differ
    order = first | {"targets": first["targets"][::-1]}
    assert signature(order) == signature(first)


def test_no_name_parts_a_signature():
    names = {"label": "a, b|c (x=1, 2|3)", "dataset": "my set|2,3", "source": "a b@c|d"}
    line = signature(make() | names)
    assert line.count("|") == signature(make()).count("|") == 10
    assert "|a%2C%20b%7Cc x=1%2C%202%7C3" in line and "img=my%20set%7C2%2C3|" in line
    assert "src=a%20b@c%7Cd|" in line


def test_networks_of_other_channels_are_no_trainings_of_one():
    models = {"x": {"channels": "RGB"}, "x_seed1": {"channels": "BGR"}, "x_seed2": {}}
    record = JobRecord.model_validate(make() | {"weights": dict.fromkeys(models, "w")})
    record = record.model_copy(update={"config": {"model": models}})
    assert networks_of(record) == {"x": "x", "x_seed1": "x_seed1", "x_seed2": "x"}
    words = ["model.vit_small.network._target_=src.models.small.vgg_small"]
    words += ["model.vit_small.training_of=vgg_small", *WORDS.split()]
    assert read(*words)
    with pytest.raises(ValueError, match=r"vit_small\.training_of=vgg_small: .* and channels must"):
        read(*words, "model.vit_small.channels=BGR")
