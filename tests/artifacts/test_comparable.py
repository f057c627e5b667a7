"""What may be compared: facts in which jobs differ, names that tell them apart, shared facts."""

from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.artifacts.comparable import (
    differences,
    groups_of,
    networks_of,
    overlaps,
    training_of,
)
from src.artifacts.jobs import find_jobs, name_jobs
from src.artifacts.record import JobRecord, with_record
from src.models.providers import LOADER
from tests.records import make_record

TIMM, OURS = "timm.create_model", "src.models.architectures"
TORCHVISION = "torchvision.models.get_model"


def timm(name, weights="included", pretrained=True, target=TIMM):
    key = "name" if target == LOADER else "model_name"
    return {"_target_": target, key: name, "pretrained": pretrained}, weights


MODELS = {
    **dict.fromkeys(["a1", "copy"], timm("resnet50.a1_in1k")),
    "a2": timm("resnet50.a2_in1k"),
    "eva": timm("eva02.clip_in22k"),
    "alexnet": ({"_target_": TORCHVISION, "name": "alexnet", "weights": "DEFAULT"}, "included"),
    "resnet50": ({"_target_": f"{OURS}.resnet50", "stem": None}, "a.pt"),
    "inception": ({"_target_": f"{OURS}.inception_v3"}, "/x/src/assets/vgg_small.safetensors"),
    "inception_v4": timm("inception_v4", "/x/src/assets/vit_small.safetensors", pretrained=False),
    "deep": ({"_target_": "mine.net", "depth": 50}, "b.pt"),
    "shallow": ({"_target_": "mine.net", "depth": 18}, "c.pt"),
    **{its: ({"_target_": "torch.nn.Sequential", "_args_": [1]}, its) for its in ("d.pt", "e.pt")},
    "loaded": timm("timm/resnet50.a1_in1k", target=LOADER),
    "reloaded": timm("timm/resnet50.a2_in1k", target=LOADER),
}
SHARED = [
    ("a1", "copy", "weights, architecture, family, pretraining, data"),
    ("a1", "a2", "architecture, family, data"),
    ("a1", "resnet50", "architecture, family"),
    ("a1", "alexnet", "data"),
    ("a1", "eva", ""),
    ("inception", "inception_v4", "family, data"),
    ("deep", "shallow", "family"),
    ("d.pt", "e.pt", ""),
    ("d.pt", "d.pt", "weights"),
    ("loaded", "reloaded", "architecture, data"),
    ("eva+a2@jpeg", "a1", "architecture, family, data"),
]


def record_of(models, source):
    """Return the record of a job with these models."""
    weights = {name: name for name in models} | {"copy": "a1"}
    own = {name: {"network": network, "weights": file} for name, (network, file) in models.items()}
    return job(source, weights=weights, config={"model": own})


def test_pairs_share_what_their_files_say():
    for source, target, shared in SHARED:
        wanted = tuple(f"same {name}" for name in shared.split(", ") if name)
        assert overlaps(record_of(MODELS, source), source, target) == wanted


def trainer(**keys):
    """Return facts of a job with other arithmetic."""
    usual = {"batch_size": 50, "fold_batch_norms": True, "attack_precision": "32-true"}
    return {"config": {"trainer": usual | keys}}


MORE = {"images": 500, "data": "more"}
LARGER, OTHER = {"data": "larger", "values": 3072}, {"data": "3f2a9c0123456789"}
OTHERWISE = [
    ("images (200 of digest data, 500 of digest more)", "500 images", MORE),
    ("images (200 of digest data, 200 of digest 3f2a9c0123456789)", "images 3f2a9c", OTHER),
    ("images (200 of digest data, 200 of digest larger)", "32 px", LARGER),
    ("norm (linf, l2)", "l2", {"norm": "l2"}),
    ("epsilon.reference (8, 0.5)", "reference 0.5", {"reference": 0.5}),
    ("protocol (joint, all)", "all", {"protocol": "all"}),
    ("storage (float32, uint8)", "uint8", {"storage": "uint8"}),
    ("trainer.precision (32-true, bf16-mixed)", "bf16-mixed", {"precision": "bf16-mixed"}),
    ("trainer.attack_precision (32-true, tf32)", "grad", trainer(attack_precision="tf32")),
    ("trainer.fold_batch_norms (True, False)", "fold", trainer(fold_batch_norms=False)),
    ("program's code (1a2b3c4d5e6f7081, fedc)", "program fedc", {"code": {"program": "fedc"}}),
    ("seed (0, 7)", "seed 7", {"seed": 7}),
    ("model.net", "net ", {"weights": {"a": "A", "b": "B", "net": "another"}}),
]
"""Words for a difference, the name of another job, and that job's facts."""


def job(source: str, **facts) -> JobRecord:
    """Return the record of MI from a network, evaluated on `net`."""
    values = {
        **{"key": f"{source}{facts}", "images": 200, "class_names": ("cat",), "attack": "mi"},
        **{"budgets": (0.0, 8.0), "reference": 8.0, "code": {"program": "1a2b3c4d5e6f7081"}},
        **{"weights": {"a": "A", "b": "B", "net": "N"}, "targets": ["net"], "source": source},
    }
    return make_record(**values | facts)


def write(record: JobRecord, folder: Path) -> Path:
    """Write a table with a job's record, and no rows."""
    folder.mkdir(parents=True)
    pq.write_table(with_record(pa.table({}), "predictions", record), folder / "predictions.parquet")
    return folder.parent


@pytest.mark.parametrize(("words", "title", "facts"), OTHERWISE)
def test_jobs_that_differ_in_a_fact_are_groups_and_rows_named_by_it(words, title, facts, tmp_path):
    first, other = job("a"), job("b", **facts)
    (text,) = differences(first, other)
    assert text.startswith(words) and not differences(first, other, fields=["attack.target_label"])
    one, same, another = groups_of([first, job("b"), other])
    assert one == same != another
    for root, folder in ((tmp_path / "same", "one"), (tmp_path / "apart", "two")):
        write(first, root / "one" / "0-job")
        write(other, root / folder / "1-job")
        write(job("a", attack="fgsm"), root / folder / "2-job")
        mine, its, alone = find_jobs({root / "one": "", root / folder: ""})
        assert its.attack.startswith(f"mi ({title}") and its.record.source == "b"
        assert mine.attack.startswith("mi (") and mine.attack != its.attack
        assert alone.attack == "fgsm"


def names_of(folder, *jobs):
    """Write jobs into a folder, and return their names and the titles of their rows."""
    for number, record in enumerate(jobs):
        write(record, folder / f"{number}-job")
    found = find_jobs([folder])
    return [its.attack for its in found], [its.row_title for its in found]


def test_tolerated_facts_are_in_no_name_unless_jobs_of_one_source_share_it(tmp_path):
    two = [job("b", key="other", attack="di"), job("b", attack="di", protocol="all")]
    names_of(tmp_path, job("a", protocol="all"), job("b", seed=7), *two)
    for fields, first in (
        (["norm"], ["mi"] * 2),
        (["norm", "seed"], ["mi (seed 0)", "mi (seed 7)"]),
    ):
        titles = [its.row_title for its in name_jobs(find_jobs([tmp_path]), fields)]
        assert titles == [*first, "di (joint)", "di (all)"]


def test_facts_are_joined_until_they_tell_all_groups_apart_and_seeds_are_one_row(tmp_path):
    facts = [("a", "linf", 0), ("b", "l2", 0), ("n", "linf", 1), ("e", "l2", 1)]
    jobs = [job(source, norm=norm, seed=seed, weights={}) for source, norm, seed in facts]
    names, _ = names_of(tmp_path / "facts", *jobs)
    assert names == [f"mi ({norm}, seed {seed})" for _, norm, seed in facts]
    jobs = [job("a"), job("a", seed=1), job("b", budgets=(0.0, 4.0, 8.0))]
    assert names_of(tmp_path / "seeds", *jobs) == (["mi seed=0", "mi seed=1", "mi"], ["mi"] * 3)


def test_a_model_has_the_seed_of_its_training_or_the_name_of_its_file():
    settings = {"here": None, "file": "/x/net_seed1.safetensors", "public": "included"}
    config = {"model": {name: {"weights": its} for name, its in settings.items()}}
    record = job("here", weights={}, config=config | {"training": {"seed": 3}})
    names = [*settings, "here+file"]
    assert [training_of(record, name) for name in names] == ["3", "net_seed1", "", ""]


@pytest.mark.parametrize(
    ("models", "networks"),
    [
        ({"x": {}, "x_seed1": {}, "y": {"training_of": "x"}}, {"x": "x", "x_seed1": "x", "y": "x"}),
        ({"x": {}, "x_seed1": {"mean": [0.5]}}, {"x": "x", "x_seed1": "x_seed1"}),
        ({"x_seed1": {"mean": [0.5]}, "x_seed2": {}}, {"x_seed1": "x", "x_seed2": "x_seed2"}),
        ({"a": {"training_of": "b"}, "b": {"training_of": "a"}}, {"a": "a", "b": "b"}),
        ({"a": {"training_of": "b"}, "b": {"training_of": "c"}}, {"a": "a", "b": "b"}),
    ],
)
def test_trainings_of_a_network_have_its_settings_and_no_chains(models, networks):
    weights = {**dict.fromkeys(models, "w"), "x+x_seed1": "w"}
    record = SimpleNamespace(config={"model": models}, weights=weights)
    assert networks_of(record) == {**networks, "x+x_seed1": "x+x_seed1"}
