"""Records and metadata of strangers: read or refused by ValueError, and nothing in them runs."""

import copy
import json
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from src import load_sweep, rates, table
from src.artifacts.record import read_record, sealed
from src.config.attack_settings import SavedSettings
from src.config.settings import Settings
from src.images.saved import open_set
from src.models.weights import load_weights, weight_facts
from src.run.check_job import check_job
from src.run.data import DataSets
from src.utils.files import sha256_of
from tests.config.test_settings import read

DEMO = Path(__file__).parents[2] / "docs" / "results" / "demo" / "0-fgsm-vgg_small"
KEY = b"transferability"
SHELL = (
    "[k for k in ().__class__.__base__.__subclasses__() if k.__name__ == '_wrap_close'][0]"
    ".__init__.__globals__['system']('touch canary') or 1"
)
HOSTILE = [SHELL, "__import__('canary_module')", "canary_module.f", "canary_module", "${canary:}"]
HOSTILE += ["/", "..", "../../x", "\u202e", "\x1b[31m", "", "a" * 2000, "a+b", "a@b", "<b>", "nan"]
NUMBERS = [0, -1, 1, 2**70, 1.5, 1e400, float("nan"), True, None]
VALUES = st.one_of(
    st.sampled_from([*HOSTILE, *NUMBERS]),
    st.sampled_from([[], {}, [[]], *[[text] for text in HOSTILE]]),
    st.sampled_from([{"_target_": text, "gradients": text} for text in HOSTILE]),
)
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), VALUES), min_size=1, max_size=4)
FUZZ = settings(
    deadline=None,
    derandomize=True,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A module that leaves a file when it is imported; the shell's command leaves the same one."""
    (tmp_path / "canary_module.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nf = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def is_alive() -> bool:
        return "canary_module" not in sys.modules and not (tmp_path / "canary").exists()

    assert is_alive()
    return is_alive


def record_of_demo() -> dict[str, Any]:
    """Return the record of a stored job, as of two images at one budget."""
    named = read_record(DEMO / "predictions.parquet")
    assert named is not None
    changes = {"images": 2, "budgets": (0.0, 8.0), "reference": 8.0}
    content = sealed("predictions", named[1].model_copy(update=changes))
    content["job"]["config"]["epsilon"] = {"grid": [8.0], "reference": 8.0}
    return content


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in JSON data."""
    if not isinstance(data, dict | list):
        return [path]
    items = data.items() if isinstance(data, dict) else enumerate(data)
    return [*([path] if path else []), *(p for k, v in items for p in places(v, (*path, k)))]


def forged(content: dict[str, Any], edits: list[tuple[float, Any]]) -> dict[str, Any]:
    """Return a record with other values at some places, and a digest that fits."""
    content = copy.deepcopy(content)
    job = content["job"]
    for share, value in edits:
        every = places(job)
        # Half of the edits are where code was once named.
        targets = [path for path in every if path[:2] == ("config", "attack")]
        chosen = targets if share < 0.5 and targets else every
        *above, last = chosen[int(share * 1e6) % len(chosen)]
        parent = job
        for key in above:
            parent = parent[key]
        parent[last] = copy.deepcopy(value)
    content["digest"] = sha256(json.dumps(job).encode()).hexdigest()[:16]
    return content


def write_set(folder: Path) -> dict[str, Any]:
    """Write a set of two images at one budget, and return its record."""
    random = np.random.default_rng(0)
    for name in ("0", "8"):
        (folder / name).mkdir(parents=True)
        for number in (3, 7):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    rows = {"filename": ["3.png", "7.png"], "index": [3, 7], "label": [0, 1]}
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    files = [path for path in folder.rglob("*") if path.is_file()]
    content = record_of_demo()
    content["files"] = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    return content


@cache
def settings_of(folder: Path) -> Settings:
    words = ["attack=saved", f"attack.path={folder}", "dataset=cifar10_mini", "plan=only"]
    return read(*words, "targets=[vgg_small]")


def seal(folder: Path, content: dict[str, Any]) -> None:
    content["digest"] = sha256(json.dumps(content["job"]).encode()).hexdigest()[:16]
    (folder / "record.json").write_text(json.dumps(content))


@FUZZ
@given(edits=EDITS)
def test_a_sets_record_runs_nothing(canary, tmp_path, edits):
    folder = tmp_path / "set"
    whole = tmp_path / "whole.json"
    if not folder.exists():
        whole.write_text(json.dumps(write_set(folder)))
    seal(folder, forged(json.loads(whole.read_text()), edits))
    try:
        planned = check_job(settings_of(folder), DataSets())
        assert planned.saved is not None and planned.settings.attack.settings == {}
        assert planned.settings.attack.gradients(1, 1) is None
        assert planned.settings.attack.fit_gradients(1, 1) is None
    except ValueError as error:
        assert len(str(error)) < 1500
    assert canary()


@pytest.mark.slow
@settings(FUZZ, max_examples=40)
@given(edits=EDITS, printed=st.sampled_from([True, *[False] * 9]))
def test_the_metadata_of_a_table_run_nothing(canary, tmp_path, edits, printed):
    content, path = forged(record_of_demo(), edits), tmp_path / "job" / "predictions.parquet"
    path.parent.mkdir(exist_ok=True)
    rows = pq.read_table(DEMO / "predictions.parquet", filters=[("eps_255", "in", [0.0, 8.0])])
    rows = rows.filter(np.isin(rows["index"], np.unique(rows["index"])[:2]))
    metadata = {**rows.schema.metadata, KEY: json.dumps(content).encode()}
    pq.write_table(rows.replace_schema_metadata(metadata), path)
    try:
        frame = load_sweep(path.parent)
        rates(frame)
        if printed:  # it takes long
            table(frame, to="markdown")
    except ValueError as error:
        assert len(str(error)) < 1500
    assert canary()


@FUZZ
@given(
    metadata=st.dictionaries(
        st.sampled_from(["class_names", "expected_accuracy", "tested", "digest", "_target_"]),
        st.sampled_from([*HOSTILE, "1/0/3", "0.5", "1 / 2", "1e400", "-1", ","]),
    )
)
def test_the_metadata_of_weights_run_nothing(canary, tmp_path, metadata):
    network = torch.nn.Linear(3, 2)
    save_file(network.state_dict(), tmp_path / "x.safetensors", metadata=metadata)
    try:
        weight_facts(tmp_path / "x.safetensors")
        load_weights(network, tmp_path / "x.safetensors")
    except ValueError as error:
        assert len(str(error)) < 1000
    assert canary()


def test_a_set_keeps_no_settings_of_its_record(tmp_path):
    content = write_set(tmp_path / "set")
    content["job"]["config"]["attack"] |= {"about": {"gradients": 3}, "settings": {"_target_": "f"}}
    seal(tmp_path / "set", content)
    saved = open_set(SavedSettings(path=str(tmp_path / "set")))
    assert (saved.attack.name, saved.attack.norm, saved.index.tolist()) == ("fgsm", "linf", [3, 7])
    assert saved.attack.settings == {} and saved.attack.gradients(1, 1) is None


REFUSED = {
    "source": "../../x",
    "dataset": "\u202eevil",
    "attack": "a b",
    "weights": {"resnet_small": "0" * 16},
    "budgets": [0.0, 300.0],
    "class_names": [],
    "images": 3,
    "norm": "l3",
    "data": "not a digest",
}


@pytest.mark.parametrize("field", REFUSED)
def test_a_wrong_fact_is_refused_by_the_files_name(tmp_path, field):
    content = write_set(tmp_path / "set")
    content["job"][field] = REFUSED[field]
    seal(tmp_path / "set", content)
    with pytest.raises(ValueError, match=r"record\.json") as caught:
        open_set(SavedSettings(path=str(tmp_path / "set")))
    assert str(caught.value).isprintable()


def test_a_file_that_the_record_does_not_list_refuses_the_set(tmp_path):
    seal(tmp_path / "set", write_set(tmp_path / "set"))
    open_set(SavedSettings(path=str(tmp_path / "set")))
    (tmp_path / "set" / "8" / "evil.py").write_text("")
    with pytest.raises(ValueError, match=r"8/evil\.py is not a file of the set"):
        open_set(SavedSettings(path=str(tmp_path / "set")))


def test_images_in_another_order_are_refused(tmp_path):
    folder = tmp_path / "set"
    content = write_set(folder)
    lines = (folder / "images.csv").read_text().splitlines()
    (folder / "images.csv").write_text("\n".join([lines[0], lines[2], lines[1]]))
    content["files"]["images.csv"] = sha256_of(folder / "images.csv")
    seal(folder, content)
    with pytest.raises(ValueError, match="ascending number"):
        open_set(SavedSettings(path=str(folder)))
