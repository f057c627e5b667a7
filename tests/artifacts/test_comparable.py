"""What may be compared: facts in which jobs differ, names that tell them apart, shared facts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from src.artifacts.comparable import differences, groups_of, overlaps, training_of
from src.artifacts.jobs import find_jobs, name_jobs
from src.artifacts.record import JobRecord, with_record
from src.models.providers import LOADER
from src.utils.package import find_asset
from tests.records import make_record

TIMM, OURS = "timm.create_model", "src.models.architectures"
MODELS = {
    "a1": ({"_target_": TIMM, "model_name": "resnet50.a1_in1k", "pretrained": True}, "included"),
    "a2": ({"_target_": TIMM, "model_name": "resnet50.a2_in1k", "pretrained": True}, "included"),
    "copy": ({"_target_": TIMM, "model_name": "resnet50.a1_in1k", "pretrained": True}, "included"),
    "wide": ({"_target_": TIMM, "model_name": "wide_resnet50_2.tv_in1k"}, None),
    "vit": ({"_target_": TIMM, "model_name": "vit_tiny.augreg_in21k", "pretrained": True}, None),
    "eva": ({"_target_": TIMM, "model_name": "eva02.clip_in22k", "pretrained": True}, "included"),
    "alexnet": (
        {"_target_": "torchvision.models.get_model", "name": "alexnet", "weights": "DEFAULT"},
        "included",
    ),
    "resnet50": ({"_target_": f"{OURS}.resnet50", "stem": None, "pretrained": False}, "a.pt"),
    "inception": ({"_target_": f"{OURS}.inception_v3"}, "/x/src/assets/vgg_small.safetensors"),
    "inception_v4": (
        {"_target_": TIMM, "model_name": "inception_v4"},
        "/x/src/assets/vit_small.safetensors",
    ),
    "deep": ({"_target_": "mine.net", "depth": 50}, "b.pt"),
    "shallow": ({"_target_": "mine.net", "depth": 18}, "c.pt"),
    "parts": ({"_target_": "torch.nn.Sequential", "_args_": [1]}, "d.pt"),
    "others": ({"_target_": "torch.nn.Sequential", "_args_": [1]}, "e.pt"),
    "class": ({"_target_": "mine.load", "name": "package.Net"}, "f.pt"),
    "other class": ({"_target_": "mine.load", "name": "package.Other"}, "g.pt"),
    "loaded": (
        {"_target_": LOADER, "name": "timm/resnet50.a1_in1k", "pretrained": True},
        "included",
    ),
    "reloaded": (
        {"_target_": LOADER, "name": "timm/resnet50.a2_in1k", "pretrained": True},
        "included",
    ),
    "module": ({"name": "ResNet"}, "included"),
    "another": ({"name": "ResNet"}, "included"),
}


def _record(models: dict[str, tuple], source: str) -> JobRecord:
    weights = {name: name for name in models} | {"copy": "a1"}
    config = {
        "model": {name: {"network": own, "weights": file} for name, (own, file) in models.items()}
    }
    facts = {"key": "", "images": 1, "class_names": ("cat",), "budgets": (0.0, 8.0)}
    return make_record(
        **facts, reference=8.0, source=source, attack="fgsm", weights=weights, config=config
    )


@pytest.mark.parametrize(
    ("source", "target", "shared"),
    [
        ("a1", "copy", "weights, architecture, family, pretraining, data"),
        ("a1", "a2", "architecture, family, data"),
        ("a1", "resnet50", "architecture, family"),
        ("a1", "wide", "family"),
        ("a1", "alexnet", "data"),
        ("a1", "eva", ""),
        ("wide", "vit", "data"),
        ("inception", "inception_v4", "family, data"),
        ("deep", "shallow", "family"),
        ("parts", "others", ""),
        ("module", "another", ""),
        ("class", "other class", ""),
        ("loaded", "reloaded", "architecture, data"),
        ("module", "module", "weights"),
        ("eva+a2@jpeg", "a1", "architecture, family, data"),
    ],
)
def test_pairs_share_what_their_files_say(source, target, shared):
    record = _record(MODELS, source)
    wanted = tuple(f"same {name}" for name in shared.split(", ") if name)
    assert overlaps(record, source, target) == wanted


def test_only_files_of_the_program_are_embedded(tmp_path, monkeypatch):
    """A user's folder `src/assets` is not the program's, whatever names its files have."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "src" / "assets"
    mine.mkdir(parents=True)
    (mine / "vgg_small.safetensors").touch()
    paths = {
        "elsewhere": "/x/src/assets/vit_small.safetensors",
        "wheel": "/x/site-packages/transferability/assets/vit_small.safetensors",
        "here": str(find_asset("assets/vit_small.safetensors")),
        "relative": "src/assets/vit_small.safetensors",
        "mine": "src/assets/vgg_small.safetensors",
        "absolute": str(mine / "vgg_small.safetensors"),
        "unknown": "/x/src/assets/mine.safetensors",
        "other": "/x/assets/vit_small.safetensors",
    }
    record = _record({name: ({"name": name}, path) for name, path in paths.items()}, "here")
    embedded = {"elsewhere", "wheel", "here", "relative"}
    shared = {name for name in paths if "same data" in overlaps(record, "elsewhere", name)}
    assert shared == embedded


ARITHMETIC = {"batch_size": 50, "fold_batch_norms": True, "attack_precision": "32-true"}
OTHERWISE = {
    "images (200 of digest data, 500 of digest more)": (
        {"images": 500, "data": "more"},
        "500 images",
    ),
    "images (200 of digest data, 200 of digest 3f2a9c0123456789)": (
        {"data": "3f2a9c0123456789"},
        "images 3f2a9c",
    ),
    "images (200 of digest data, 200 of digest larger)": (
        {"data": "larger", "values": 3072},
        "32 px",
    ),
    "norm (linf, l2)": ({"norm": "l2"}, "l2"),
    "epsilon.reference (8, 0.5)": ({"reference": 0.5}, "reference 0.5"),
    "protocol (joint, all)": ({"protocol": "all"}, "all"),
    "storage (float32, uint8)": ({"storage": "uint8"}, "uint8"),
    "trainer.precision (32-true, bf16-mixed)": ({"precision": "bf16-mixed"}, "bf16-mixed"),
    "trainer.attack_precision (32-true, tf32)": (
        {"config": {"trainer": ARITHMETIC | {"attack_precision": "tf32"}}},
        "gradients in TF32",
    ),
    "trainer.fold_batch_norms (True, False)": (
        {"config": {"trainer": ARITHMETIC | {"fold_batch_norms": False}}},
        "fold_batch_norms False",
    ),
    "program's code (1a2b3c4d5e6f7081, fedcba9876543210)": (
        {"code": {"program": "fedcba9876543210"}},
        "program fedcba",
    ),
    "seed (0, 7)": ({"seed": 7}, "seed 7"),
    "model.net": ({"weights": {"a": "A", "b": "B", "net": "another"}}, "net "),
}
"""Words for a difference, by the facts of another job, and its name."""


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


@pytest.mark.parametrize("named", OTHERWISE)
def test_a_difference_is_named_and_separates_groups(named):
    facts, _ = OTHERWISE[named]
    first, other = job("a"), job("a", **facts)
    (text,) = differences(first, other)
    assert text.startswith(named)
    assert not differences(first, other, fields=["attack.target_label"])
    one, same, another = groups_of([first, job("b"), other])
    assert one == same != another


@pytest.mark.parametrize("several", [False, True], ids=["one folder", "two folders"])
@pytest.mark.parametrize("named", OTHERWISE)
def test_jobs_of_one_label_that_differ_in_a_fact_are_rows_named_by_it(named, several, tmp_path):
    facts, title = OTHERWISE[named]
    folders = [tmp_path / "one", tmp_path / ("two" if several else "one")]
    write(job("a"), folders[0] / "0-job")
    write(job("b", **facts), folders[1] / "1-job")
    write(job("a", attack="fgsm"), folders[1] / "2-job")
    one, other, alone = find_jobs(dict.fromkeys(folders, ""))
    assert other.attack.startswith(f"mi ({title}") and other.record.source == "b"
    assert one.attack.startswith("mi (") and one.attack != other.attack
    assert alone.attack == "fgsm"


SETTINGS = {"attack": {"settings": {"steps": 3}}}


@pytest.mark.parametrize(("sweep", "start"), [("two", "mi (day"), ("one", "mi (settings ")])
def test_attacks_with_other_settings_have_the_names_of_their_sweeps(sweep, start, tmp_path):
    write(job("a"), tmp_path / "one" / "0-job")
    write(job("b", config=job("b").config | SETTINGS), tmp_path / sweep / "1-job")
    jobs = find_jobs({tmp_path / "one": "day1", tmp_path / sweep: f"day{1 + (sweep == 'two')}"})
    names = {its.attack for its in jobs}
    assert len(names) == 2 and all(name.startswith(start) for name in names)


def test_tolerated_facts_are_in_no_name_unless_jobs_of_one_source_share_it(tmp_path):
    write(job("a", protocol="all"), tmp_path / "0-job")
    write(job("b", seed=7), tmp_path / "1-job")
    write(job("b", key="other", attack="di"), tmp_path / "2-job")
    write(job("b", attack="di", protocol="all"), tmp_path / "3-job")
    names = [its.row_title for its in name_jobs(find_jobs([tmp_path]), ["norm"])]
    assert names == ["mi", "mi", "di (joint)", "di (all)"]
    titles = [its.row_title for its in name_jobs(find_jobs([tmp_path]), ["norm", "seed"])]
    assert titles == ["mi (seed 0)", "mi (seed 7)", "di (joint)", "di (all)"]


def test_facts_are_joined_until_they_tell_all_groups_apart(tmp_path):
    for number, (norm, seed) in enumerate([("linf", 0), ("l2", 0), ("linf", 1), ("l2", 1)]):
        write(job("abnet"[number], norm=norm, seed=seed, weights={}), tmp_path / f"{number}-job")
    names = ["mi (linf, seed 0)", "mi (l2, seed 0)", "mi (linf, seed 1)", "mi (l2, seed 1)"]
    assert [its.attack for its in find_jobs([tmp_path])] == names


def test_other_budgets_and_other_seeds_of_one_source_stay_one_row(tmp_path):
    write(job("a"), tmp_path / "0-job")
    write(job("a", seed=1), tmp_path / "1-job")
    write(job("b", budgets=(0.0, 4.0, 8.0)), tmp_path / "2-job")
    jobs = find_jobs([tmp_path])
    assert {its.row_title for its in jobs} == {"mi"}
    assert [its.attack for its in jobs] == ["mi seed=0", "mi seed=1", "mi"]


def test_a_model_has_the_seed_of_its_training_or_the_name_of_its_file():
    settings = {"here": None, "file": "/x/net_seed1.safetensors", "public": "included"}
    config = {"model": {name: {"weights": its} for name, its in settings.items()}}
    record = job("here", weights={}, config=config | {"training": {"seed": 3}})
    names = [*settings, "here+file"]
    assert [training_of(record, name) for name in names] == ["3", "net_seed1", "", ""]
