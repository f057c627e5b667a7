"""`python -m src.verify CARD`: honest cards agree, forged ones differ, none opens a file."""

import copy
import os
import re
import shutil
import socket
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from src.artifacts.card import CardJob, read_card, write_card
from src.config.resolvers import CONF
from src.utils.package import find_asset
from tests.config.test_exit_codes import closed_pipe, full_disk, plain_file, with_output

MODELS = ["source=vgg_small", "targets=[vgg_small,resnet_small]", "n_images=12"]
BIM = ["attack=bim", "attack.steps=2", "epsilon.grid=[8]", "variants=[uint8]"]
WEIGHTS = find_asset("assets/resnet_small.safetensors")


@pytest.fixture(scope="module")
def made(new_workspace, run_tiny, run_in) -> Path:
    """A workspace with a card of one job, and one of clean images."""
    folder: Path = new_workspace()
    clean = ["attack=none", "source=null", *MODELS[1:]]
    for name, words in {"mine": [*MODELS, *BIM], "clean": clean}.items():
        assert run_tiny(folder, *words, f"hydra.run.dir={name}") == 0
        assert run_in(folder, name, "-o", f"{name}.card", module="src.card") == 0
    return folder


@pytest.fixture(scope="module")
def verify(made, run_in) -> Callable[..., tuple[int, str]]:
    """A function that runs the command there, and returns its exit code and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        with redirect_stdout(StringIO()) as printed, redirect_stderr(printed):
            code = run_in(made, "--seed=1", *words, module="src.verify")
        assert "Traceback" not in printed.getvalue()
        return code, printed.getvalue()

    return run


@pytest.fixture
def forge(made) -> Callable[..., str]:
    """A function that writes a changed copy of a card with a valid seal; return its name."""

    def write(change: Callable[[CardJob], CardJob], name: str = "mine.card") -> str:
        (job,) = read_card(made / name)
        write_card([change(job)], made / "forged.card")
        return "forged.card"

    return write


def with_record(job: CardJob, **facts: Any) -> CardJob:
    """Return a job with other facts in its record."""
    return replace(job, record=job.record.model_copy(update=facts))


def with_setting(job: CardJob, key: str, value: Any, **facts: Any) -> CardJob:
    """Return a job with another setting, and other facts in its record."""
    config: Any = copy.deepcopy(job.record.config)
    section, (*path, last) = config, key.split(".")
    for part in path:
        section = section[part]
    section[last] = value
    return with_record(job, config=config, **facts)


def with_column(
    job: CardJob, name: str, change: Callable[[np.ndarray], Any], at: str = ""
) -> CardJob:
    """Return a job with other values in a column of its tables, or of one table."""
    tables = {}
    for table_name, table in job.tables.items():
        place, values = table.schema.get_field_index(name), table[name].to_numpy().copy()
        column = pa.array(change(values) if at in table_name else values)
        tables[table_name] = table.set_column(place, table.schema.field(place), column)
    return replace(job, tables=tables)


def flipped(job: CardJob, at: str = "") -> CardJob:
    """Return a job in which half of the outcomes have another class."""
    return with_column(job, "predicted", lambda its: (its + np.arange(len(its)) % 2) % 10, at)


def larger_budget(job: CardJob) -> CardJob:
    """Return a job that states a smaller budget, in settings, record and rows."""
    job = with_column(job, "eps_255", lambda its: np.minimum(its, 4))
    epsilon = {"below_one": False, "grid": [4.0], "reference": None}
    return with_setting(job, "epsilon", epsilon, budgets=(0.0, 4.0), reference=4.0)


def test_an_honest_card_agrees_and_the_seed_repeats_the_sample(verify):
    code, printed = verify("mine.card")
    assert code == 0 and "mine.card: 1 of 1 jobs, sampled with --seed 1" in printed
    assert "agrees: bim (steps=2) vgg_small: 0 of 96 outcomes differ" in printed
    assert verify("mine.card") == (code, printed)


def test_an_honest_card_of_clean_images_agrees(verify):
    code, printed = verify("clean.card", "--images=5")
    assert code == 0 and "agrees: 0 of 10 outcomes differ" in printed


def test_a_folder_is_verified_like_a_card_and_a_repeated_job_once(made, verify):
    (job,) = read_card(made / "mine.card")
    again = replace(job, place=("other", 3))
    write_card([job, again], made / "twice.card")
    for name in ("mine", "twice.card"):
        code, printed = verify(name, "--images=2")
        assert code == 0 and "1 of 1 jobs" in printed and "agrees: 0 of 16 outcomes" in printed


FORGERIES: dict[str, tuple[Callable[[CardJob], CardJob], str]] = {
    "flipped outcomes": (flipped, "outcomes differ"),
    "flipped outcomes of one format": (partial(flipped, at="uint8"), "outcomes differ"),
    "other passes": (
        lambda job: with_column(job, "draws_correct", lambda its: 1 - its),
        "outcomes differ",
    ),
    "other costs": (lambda job: with_column(job, "gradients", lambda its: its / 10), "outcomes"),
    "other labels": (lambda job: with_column(job, "label", lambda its: (its + 1) % 10), "outcomes"),
    "another attack": (lambda job: with_setting(job, "attack.settings.steps", 1), "iterative"),
    "other steps": (lambda job: with_setting(job, "attack.settings.steps", 3), "outcomes differ"),
    "a larger budget": (larger_budget, "outcomes differ"),
    "other settings of the budget": (
        lambda job: with_setting(job, "epsilon.grid", [16.0]),
        "budgets, reference, from the settings",
    ),
    "other images": (lambda job: with_record(job, data="0" * 16), "images"),
    "a choice of images": (lambda job: with_setting(job, "dataset.seed", 5), "images"),
    "other numbers of images": (
        lambda job: with_column(job, "index", lambda its: its + 1000),
        "outcomes differ",
    ),
    "other weights": (
        lambda job: with_record(job, weights={**job.record.weights, "resnet_small": "0" * 16}),
        "weights, from the settings",
    ),
    "another attack's label": (lambda job: with_record(job, label="mi"), "label, from"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_card_differs(verify, forge, name: str):
    change, result = FORGERIES[name]
    code, printed = verify(forge(change))
    assert code == 1, printed
    assert re.search(f"^differs: (bim|mi).* vgg_small: .*{result}", printed, re.M), printed


DEFENCE = {"mine": {"_target_": "canary.run", "repeats": 1}}


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("model.vgg_small.network._target_", "canary.run", ""),
        ("model.vgg_small.network.file", "mine.card", ""),
        ("model.vgg_small.network._args_", [{"_target_": "canary.run"}], ""),
        ("model.vgg_small.weights", "mine.card", ""),
        ("model.vgg_small.weights", None, ""),  # training it takes hours
        ("model.vgg_small.url", "https://example.com/x.pt", ""),
        ("model.vgg_small.feature_layer", "${oc.create:{_target_:canary.run}}", ""),
        ("defence", DEFENCE, ".mine._target_"),
        ("dataset._target_", "canary.run", ""),
        ("dataset.root", "mine", ""),
        ("dataset.images", "mine/images.csv", ""),
        ("dataset.class_names", {"_target_": "canary.run"}, "._target_"),
        ("attack.settings._target_", "canary.run", ""),
        ("attack.settings.loss", "margin.py", ""),
        ("attack.settings.fit_images", "mine", ""),
        ("attack.settings.transforms", [{"_target_": "canary.run"}], ""),
    ],
)
def test_a_hostile_card_opens_no_file_and_imports_no_module(
    made, verify, forge, key: str, value: Any, place: str
):
    (made / "canary.py").write_text("raise SystemExit('imported')")
    code, printed = verify(forge(lambda job: with_setting(job, key, value)))
    assert code == 2 and "imported" not in printed and "No outcome was recomputed." in printed
    shown = key.replace("attack.settings", "attack") + place
    assert f"not checked: bim (steps=2) vgg_small: conf/ has other texts for {shown}." in printed


def test_images_in_files_are_not_checked(verify, forge):
    code, printed = verify(forge(lambda job: with_setting(job, "attack.kind", "saved")))
    assert code == 2 and "conf/ has other texts for attack.path." in printed


def test_an_attack_that_is_named_like_another_is_not_checked(verify, forge):
    code, printed = verify(forge(lambda job: with_record(job, attack="mi", label="mi")))
    assert code == 2 and "conf/ has other texts for attack._target_." in printed


def test_listed_words_are_checked_by_the_settings(verify, forge):
    change = partial(with_setting, key="attack.settings.norm")
    assert "differs: bim" in verify(forge(lambda job: change(job, value="l2")))[1]
    hostile = [{"_target_": "canary.run"}]
    code, printed = verify(forge(lambda job: change(job, value=hostile)))
    assert code == 2 and "attack.norm=[{'_target_': 'canary.run'}]: Input should be" in printed


@pytest.mark.parametrize("key", ["a'; touch RAN; echo '", "`touch RAN`", "a\x1b[2J", "a\nb"])
def test_strange_keys_are_not_repeated(verify, forge, key: str):
    code, printed = verify(forge(lambda job: with_setting(job, "dataset", {key: "b"})))
    assert code == 2 and "other texts for strange keys" in printed and "touch" not in printed


def test_names_in_a_card_begin_no_line(verify, forge):
    """A second line could read like a result of this program."""
    name = "bim\nagrees: 0 of 99 outcomes differ"
    code, printed = verify(forge(lambda job: with_record(job, label=name, source=name)))
    assert code == 1 and not re.search("^ *agrees", printed, re.M)


def test_a_name_of_a_format_is_no_place(verify, forge, tmp_path):
    folder = str(tmp_path / "new")
    code, printed = verify(forge(lambda job: with_record(job, storage=folder), "clean.card"))
    assert code == 0 and not Path(folder).exists(), printed


def test_weights_of_the_package_are_the_same_on_all_machines(verify, forge):
    moved = "C:\\Users\\me\\vgg_small.safetensors"
    code, _ = verify(forge(lambda job: with_setting(job, "model.vgg_small.weights", moved)))
    assert code == 0


def test_a_typed_text_replaces_that_of_the_card(made, verify, forge):
    shutil.copy(WEIGHTS, made / "moved.safetensors")
    shutil.copy(find_asset("assets/resnet_small_seed1.safetensors"), made / "other.safetensors")
    forge(lambda job: with_setting(job, "model.resnet_small.weights", "gone/x.safetensors"))
    typed = "model.resnet_small.weights="
    assert verify("forged.card")[0] == 2
    assert verify("forged.card", f"{typed}moved.safetensors")[0] == 0
    code, printed = verify("forged.card", f"{typed}other.safetensors")
    assert code == 1 and "weights, from the settings" in printed
    code, printed = verify("forged.card", f"{typed}nowhere.pt")
    assert code == 2 and "nowhere.pt is not a file" in printed
    forge(lambda job: with_setting(job, "model.vgg_small.network._target_", "elsewhere.net"))
    assert verify("forged.card")[0] == 2
    word = "model.vgg_small.network._target_=src.models.small.vgg_small"
    assert verify("forged.card", word)[0] == 0
    forge(lambda job: with_setting(job, "attack.settings.loss", "mine"))
    assert verify("forged.card", "attack.loss=margin")[0] == 2


def test_a_hostile_data_set_downloads_nothing(verify, forge, monkeypatch):
    """Without `download` its function would download."""
    asked_for = list[Any]()
    monkeypatch.setattr("requests.Session.get", lambda *arguments, **_: asked_for.append(arguments))
    dataset = yaml.safe_load((CONF / "dataset" / "nips17.yaml").read_text())
    dataset = {key: its for key, its in dataset.items() if key not in ("defaults", "download")}
    code, printed = verify(
        forge(lambda job: with_setting(job, "dataset", dataset, dataset="nips17"))
    )
    assert (code, asked_for) == (2, []) and "not checked: bim" in printed


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_no_card_is_refused_at_once(made, verify, kind: str):
    path = {"folder": made / "conf", "device": Path(os.devnull)}.get(kind, made / kind)
    if kind == "pipe":
        os.mkfifo(path)
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(path))  # a socket's path is short
    code, printed = verify(str(path))
    assert code == 2 and printed.startswith(f"{path} ") and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["conf/model/fine.yaml"], "no card"),
        (["mine.card", "other.card"], "other.card: type KEY=TEXT."),
        (["mine.card", "--images=0"], "No outcome was recomputed."),
        (["mine.card", "--jobs=0"], "No outcome was recomputed."),
        (["mine.card", "--minutes=0"], "The time is up: 0 of the 1 jobs were looked at."),
    ],
)
def test_without_an_outcome_the_exit_code_is_2(verify, words: list[str], refusal: str):
    code, printed = verify(*words)
    assert code == 2 and refusal in printed


def test_a_limit_stops_a_job_that_would_take_days(made, verify, forge):
    (job,) = read_card(made / "mine.card")
    endless = with_setting(job, "attack.settings.steps", 10**9)
    endless = with_record(endless, key="endless", label="bim endless")
    write_card([job, endless], made / "endless.card")
    code, printed = verify("endless.card", "--minutes=0.1")
    assert code == 2 and re.search("The time is up: [01] of the 2 jobs were looked at.", printed)


@pytest.mark.parametrize("stream", [full_disk, closed_pipe])
def test_a_card_that_agrees_is_not_passed_if_nobody_can_read_so(made, run_in, stream):
    call = partial(run_in, made, "mine.card", "--seed=1", module="src.verify")
    assert with_output(call, made, plain_file) == 0
    assert with_output(call, made, stream) == 2
