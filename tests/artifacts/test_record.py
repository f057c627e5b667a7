"""Records of jobs, ranges of columns, the jobs of a sweep, and what may be compared."""

import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.artifacts import sweep_state as state
from src.artifacts.comparable import (
    differences,
    groups_of,
    networks_of,
    overlaps,
    training_of,
)
from src.artifacts.jobs import find_jobs, name_jobs
from src.artifacts.record import (
    JobRecord,
    public,
    read_record,
    with_record,
)
from src.artifacts.tables import CLASSES, FLOAT, INDEX, LABEL, column, read_job_table
from src.models.providers import LOADER
from tests.conftest import REPOSITORY
from tests.records import make_record

DEMO = REPOSITORY / "docs" / "results" / "demo"

RECORD = make_record(
    **{"key": "k", "images": 2, "class_names": ("a", "b"), "weights": {"net": "w"}},
    **{"source": "one+two", "attack": "bim", "label": "bim (steps=20)"},
    **{"budgets": (0.0, 8.0), "reference": 8.0},
)


def test_other_files_are_told_from_this_programs(tmp_path):
    path, table = tmp_path / "x.parquet", pa.table({"x": [1]})
    path.write_text("no table")
    with pytest.raises(ValueError, match="cannot be read as a parquet file"):
        read_record(path)
    pq.write_table(table, path)
    assert read_record(path) is None
    pq.write_table(with_record(table, "sizes", RECORD), path)
    assert read_record(path) == ("sizes", RECORD)
    changed = with_record(table, "sizes", RECORD).schema.metadata[b"transferability"]
    changed = changed.replace(b'"logits"', b'"logitz"')
    for content, message in (
        (b'{"format": 99}', r"x\.parquet has the format 99, "),
        (b'{"format": 3, "table": "sizes", "job": {}}', "has the format 3, "),
        (b'{"format": 6, "table": "sizes", "job": {"surprise": 1}}', "a record of its job"),
        (changed, "its record is damaged"),
    ):
        pq.write_table(table.replace_schema_metadata({b"transferability": content}), path)
        with pytest.raises(ValueError, match=message):
            read_record(path)


def test_passwords_stay_out_of_commands_and_damaged_notes_are_read(tmp_path):
    (tmp_path / "error.txt").write_bytes(b"no s\xf5ace\n\nTraceback")
    assert state.noted_failure(tmp_path) == "no s\N{REPLACEMENT CHARACTER}ace"
    words = ["a=1", "tracking.uri=postgresql://me:secret@db/x", "+tracking.more=2", "tracking=none"]
    assert public([*words, "attack.path=s3://me:se/cret@host/x"]) == (
        "a=1",
        "attack.path=s3://...@host/x",
    )


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("index", [0], [-1]),
        ("label", [0, 9], [10]),  # of ten classes
        ("cosine", [-1.0, 1.0, math.nan], [1.5]),
        ("share", [0.0, 5.0, None], [-0.1, math.nan]),
        ("ranks", [[0, 9]], [[0, 10]]),
    ],
)
def test_values_are_read_if_they_are_inside_the_ranges_of_their_columns(
    name, inside, outside, tmp_path
):
    record, path = find_jobs([DEMO])[0].record, tmp_path / "similarity.parquet"
    share, cosine = column("share", FLOAT, 0, null=True), column("cosine", FLOAT, -1, 1, nan=True)
    ranks = column("ranks", pa.list_(pa.int64()), 0, CLASSES)
    schema = pa.schema([INDEX, LABEL, cosine, share, ranks])
    row = {"index": 7, "label": 9, "cosine": -1.0, "share": 5.0, "ranks": [0, 9]}
    for value in inside:
        pq.write_table(pa.Table.from_pylist([row | {name: value}], schema), path)
        assert read_job_table(path, "similarity", record).num_rows == 1
    for value in outside:
        pq.write_table(pa.Table.from_pylist([row | {name: value}], schema), path)
        with pytest.raises(ValueError, match=rf"similarity\.parquet .*column {name} "):
            read_job_table(path, "similarity", record)


@pytest.mark.parametrize(
    ("sweep", "required"), [("demo", "predicted"), ("targeted", "target_label")]
)
def test_unknown_columns_are_left_out_and_required_ones_must_be_there(sweep, required, tmp_path):
    job, path = find_jobs([DEMO.parent / sweep])[0], tmp_path / "predictions.parquet"
    table = pq.read_table(job.tables["predictions"])
    pq.write_table(table.append_column("calibration", pa.nulls(len(table))), path)
    rows = read_job_table(path, "predictions", job.record)
    assert rows.num_rows == len(table) and "calibration" not in rows.column_names
    pq.write_table(table.drop_columns(required), path)
    with pytest.raises(ValueError, match=required):
        read_job_table(path, "predictions", job.record)


@pytest.mark.parametrize("seconds", [-30, 0, 30])  # by which the file server's clock is off
def test_a_sweep_has_the_jobs_that_hold_its_id_whatever_their_times(tmp_path, seconds):
    manifest, now = state.SweepManifest(jobs=["mi", "bim"], single=False, id="12e5"), time.time()
    state.write_manifest(tmp_path, manifest)
    for number, sweep in enumerate(("'12e5'", "'12e5'", "12e55", "null")):
        folder = tmp_path / f"{number}-job"
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(f"seed: 0\nsweep: {sweep}\nhydra: 1\n")
        (folder / "predictions.parquet").touch()
        for file, ended in ((".hydra/config.yaml", 0), ("predictions.parquet", 5)):
            os.utime(folder / file, (0, now + ended + seconds))
    assert list(state.job_folders(tmp_path, manifest)) == [0, 1]
    done = ("done", pytest.approx(5, abs=1))
    assert [job[2:4] for job in state.job_statuses(tmp_path)] == [done] * 2


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
    ("trainer.precision (32-true, bf16-mixed)", "bf16-mixed", trainer(precision="bf16-mixed")),
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


def test_attacks_of_one_cost_are_one_attack_whatever_number_it_set(tmp_path):
    def told(label: str, folder: str) -> list[str]:
        settings = {"a": {"steps": 30, "decay": 1}, "b": {"steps": 20, "decay": 1}}
        attack = {name: {"settings": its, "target_label": None} for name, its in settings.items()}
        jobs = [job(name, label=label, config={"attack": its}) for name, its in attack.items()]
        return names_of(tmp_path / folder, *jobs)[1]

    assert told("mi (60 gradients, decay=1)", "steps") == ["mi (60 gradients, decay=1)"] * 2
    assert len({*told("mi", "mi")}) == 2


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
