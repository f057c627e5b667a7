"""`python -m src.verify CARD`: honest cards agree, forged ones differ, none opens a file."""

import copy
import os
import re
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

MODELS = ["source=vgg_small", "targets=[vgg_small,resnet_small]", "n_images=12"]
BIM = ["attack=bim", "attack.steps=2", "epsilon.grid=[8]", "variants=[uint8]"]


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


Change = Callable[[CardJob], CardJob]


def with_record(job: CardJob, **facts: Any) -> CardJob:
    """Return a job with other facts in its record."""
    return replace(job, record=job.record.model_copy(update=facts))


def setting(place: str, value: Any, **facts: Any) -> Change:
    """Return a change of a setting, and of other facts in the record."""

    def change(job: CardJob) -> CardJob:
        config: Any = copy.deepcopy(job.record.config)
        section, (*path, last) = config, place.split(".")
        for part in path:
            section = section[part]
        section[last] = value
        return with_record(job, config=config, **facts)

    return change


def column(name: str, change: Callable[[np.ndarray], Any]) -> Change:
    """Return a change of a column of a job's tables."""

    def changed(job: CardJob) -> CardJob:
        tables = {}
        for table_name, table in job.tables.items():
            place = table.schema.get_field_index(name)
            cells = pa.array(change(table[name].to_numpy().copy()))
            tables[table_name] = table.set_column(place, table.schema.field(place), cells)
        return replace(job, tables=tables)

    return changed


CANARY = {"_target_": "canary.run"}
NETWORK, WEIGHTS = "model.vgg_small.network", "model.vgg_small.weights"
NIPS17 = yaml.safe_load((CONF / "dataset" / "nips17.yaml").read_text())
DOWNLOAD = {key: its for key, its in NIPS17.items() if key not in ("defaults", "download")}
OTHER = {"vgg_small": "1" * 16, "resnet_small": "0" * 16}
TEXTS = "not checked conf/ has other texts for"
CHANGES: list[tuple[Change, str]] = [
    (setting(WEIGHTS, "C:\\Users\\me\\vgg_small.safetensors"), "agrees"),
    (
        column("predicted", lambda its: (its + np.arange(len(its)) % 2) % 10),
        "differs .* outcomes differ",
    ),
    (column("gradients", lambda its: its / 10), "differs .* outcomes differ"),
    (column("label", lambda its: (its + 1) % 10), "differs .* outcomes differ"),
    (column("index", lambda its: its + 1000), "differs .* outcomes differ"),
    (setting("attack.settings.steps", 3), "differs .* outcomes differ"),
    (setting("epsilon.grid", [16.0]), "differs budgets, reference, from the settings"),
    (partial(with_record, data="0" * 16), "differs images"),
    (partial(with_record, weights=OTHER), "differs weights, from the settings"),
    (partial(with_record, attack="mi", label="mi"), rf"{TEXTS} attack\._target_\."),
    (setting(f"{NETWORK}._target_", "canary.run"), rf"{TEXTS} {NETWORK}\._target_\."),
    (setting(WEIGHTS, "mine.card"), rf"{TEXTS} {WEIGHTS}\."),
    (setting("defence", {"mine": {**CANARY, "repeats": 1}}), rf"{TEXTS} defence\.mine\._target_"),
    (setting("dataset.images", "mine/images.csv"), rf"{TEXTS} dataset\.images\."),
    (setting("dataset.class_names", CANARY), rf"{TEXTS} dataset\.class_names\._target_\."),
    (setting("dataset", {"a\x1b[2J\n`touch RAN`": "b"}), f"{TEXTS} strange keys"),
    (setting("dataset", DOWNLOAD, dataset="nips17"), "not checked"),
    (setting("attack.settings._target_", "canary.run"), rf"{TEXTS} attack\._target_\."),
    (setting("attack.settings.loss", "${oc.create:${canary}}"), rf"{TEXTS} attack\.loss\."),
    (setting("attack.settings.norm", [CANARY]), "not checked attack.norm=.*: Input should be"),
    (setting("attack.kind", "saved"), rf"{TEXTS} attack\.path\."),
]
BEGUN = "bim\nagrees: 0 of 99 outcomes differ"


def test_forged_cards_differ_and_hostile_ones_are_not_checked(made, verify, monkeypatch):
    """They open no file, import no module, download nothing and begin no line of results.

    The second word of the name of a copy's attack is its number.
    """
    (made / "canary.py").write_text("raise SystemExit('imported')")
    asked_for = list[Any]()
    monkeypatch.setattr("requests.Session.get", lambda *arguments, **_: asked_for.append(arguments))
    (job,), jobs = read_card(made / "mine.card"), []
    begun = partial(with_record, label=BEGUN.replace(" ", "\u2003"), source=BEGUN)
    for number, change in enumerate([*(change for change, _ in CHANGES), begun]):
        changed = change(job)
        label = f"{changed.record.label.partition(' ')[0]} {number}"
        changed = with_record(changed, key=f"{number}", label=label)
        jobs.append(replace(changed, place=("mine", number)))
    write_card(jobs, made / "forged.card")
    code, printed = verify("forged.card", "--jobs=99")
    assert code == 1 and asked_for == []
    assert not any(word in printed for word in ("imported", "touch", "\x1b"))
    found = re.findall(r"^([a-z ]+): (?:bim|mi) (\d+) vgg_small: (.*)$", printed, re.M)
    lines = {int(number): f"{result} {text}" for result, number, text in found}
    assert len(lines) == len(CHANGES) and len(re.findall("^ *agrees", printed, re.M)) == 1
    wrong = [n for n, (_, text) in enumerate(CHANGES) if not re.match(text, lines[n])]
    assert not wrong, [lines[number] for number in wrong]


def test_an_honest_card_or_folder_agrees_and_the_seed_repeats_the_sample(made, verify):
    """A repeated job counts once."""
    code, printed = verify("clean.card", "--images=5")
    assert code == 0 and "agrees: 0 of 10 outcomes differ" in printed
    code, printed = verify("mine.card")
    assert code == 0 and "mine.card: 1 of 1 jobs, sampled with --seed 1" in printed
    assert "agrees: bim (steps=2) vgg_small: 0 of 96 outcomes differ" in printed
    (job,) = read_card(made / "mine.card")
    write_card([job, replace(job, place=("other", 3))], made / "twice.card")
    for name in ("mine", "twice.card"):
        assert verify(name) == (code, printed.replace("mine.card:", f"{name}:"))


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["conf/model/fine.yaml"], "no card"),
        (["pipe"], "pipe "),
        (["mine.card", "other.card"], "other.card: type KEY=TEXT."),
        (["mine.card", "--images=0"], "No outcome was recomputed."),
        (["mine.card", "--minutes=0"], "The time is up: 0 of the 1 jobs were looked at."),
    ],
)
def test_without_an_outcome_the_exit_code_is_2(made, verify, words: list[str], refusal: str):
    if words == ["pipe"]:
        os.mkfifo(made / "pipe")
    code, printed = verify(*words)
    assert code == 2 and refusal in printed


def test_a_limit_stops_a_job_that_would_take_days(made, verify):
    (job,) = read_card(made / "mine.card")
    endless = setting("attack.settings.steps", 10**9, key="endless", label="bim endless")(job)
    write_card([job, endless], made / "endless.card")
    code, printed = verify("endless.card", "--minutes=0.04")
    assert code == 2 and re.search("The time is up: [01] of the 2 jobs were looked at.", printed)
