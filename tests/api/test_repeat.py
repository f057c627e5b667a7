"""Commands that repeat a card's jobs, and the count of equal outcomes."""

import copy
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from src.artifacts.card import read_card, write_card
from src.artifacts.finished_job import FinishedJob

MODELS = ["source=vgg_small", "targets=[vgg_small,resnet_small]", "n_images=12"]
BIM = ["attack=bim", "attack.steps=2", "epsilon.grid=[8]", "variants=[uint8]"]


@pytest.fixture(scope="module")
def made(new_workspace, run_tiny, run_in) -> Path:
    """A workspace with a card of one job, and its folder."""
    folder: Path = new_workspace()
    assert run_tiny(folder, *MODELS, *BIM, "hydra.run.dir=mine") == 0
    assert run_in(folder, "mine", "-o", "mine.card", module="src.card") == 0
    return folder


def with_setting(job: FinishedJob, place: str, value: Any, **facts: Any) -> FinishedJob:
    """Return a job with another setting, and other facts in its record."""
    config: Any = copy.deepcopy(job.record.config)
    section, (*path, last) = config, place.split(".")
    for part in path:
        section = section[part]
    section[last] = value
    record = job.record.model_copy(update={"config": config, **facts})
    return replace(job, record=record)


def with_column(job: FinishedJob, name: str, change: Callable[[np.ndarray], Any]) -> FinishedJob:
    """Return a job with another column in its predictions."""
    table = job.read("predictions")
    place, cells = table.schema.get_field_index(name), change(table[name].to_numpy().copy())
    changed = table.set_column(place, table.schema.field(place), pa.array(cells))
    return replace(job, tables={**job.tables, "predictions": changed})


def test_the_printed_command_repeats_the_job(made, run_in, run_tiny, capsys):
    assert run_in(made, "mine.card", "--commands", module="src.card") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "???" not in line
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "src.main"]
    assert run_tiny(made, *words[3:], "hydra.run.dir=again", "n_images=5", "rerun=true") == 0
    capsys.readouterr()
    assert run_in(made, "--equal", "mine.card", "again", module="src.compare") == 0
    assert "20 of 20 outcomes equal, 5 images in common" in capsys.readouterr().out


CANARY = {"_target_": "canary.run"}
NETWORK, WEIGHTS = "model.vgg_small.network", "model.vgg_small.weights"


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (WEIGHTS, "C:\\Users\\me\\vgg_small.safetensors", ""),
        (WEIGHTS, "mine.card", f"{WEIGHTS}=???"),
        (f"{NETWORK}._target_", "canary.run", f"{NETWORK}._target_=???"),
        ("attack.settings._target_", "canary.run", "attack._target_=???"),
        ("attack.settings.loss", "${oc.env:HOME}", "attack.loss=???"),
        ("attack.settings.steps", 3, "attack.steps=3"),
        ("attack.settings.more", [1, 2.5, None], "++attack.more=[1,2.5,null]"),
        ("attack.settings.more", [CANARY], "++attack.more=???"),
        ("dataset.images", "$(touch RAN)", "++dataset.images=???"),
        ("dataset", {"a\x1b[2J\n`touch RAN`": "b"}, "++???=???"),
        ("defence", {"mine": {**CANARY, "repeats": 1}}, "++defence.mine._target_=???"),
        ("source", ["vgg_small; touch RAN\nagrees"], "source=[???]"),
        ("attack.kind", "saved", "attack.path=???"),
        ("source", [], "source=null"),
        ("targets", ["hub/me/nets@0123456789abcdef/evil"], "targets=[???]"),
        ("seed", CANARY, "seed=???"),
        ("source", ["18"], "source=['18']"),
        ("epsilon.below_one", True, "epsilon.below_one=true"),
        ("clean_accuracy_check.action", "warn", "clean_accuracy_check.action=warn"),
        (WEIGHTS, None, "++training.flip=true"),
    ],
)
def test_a_text_that_may_name_code_or_a_file_is_not_printed(
    made, run_in, capsys, place, value, word
):
    (made / "canary.py").write_text("raise SystemExit('imported')")
    (job,) = read_card(made / "mine.card")
    write_card([with_setting(job, place, value)], made / "hostile.card")
    assert run_in(made, "hostile.card", "--commands", module="src.card") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert word in shlex.split(line) if word else "???" not in line
    assert not any(text in line for text in ("touch", "canary", "\x1b", "HOME", "Users"))


def test_a_fit_is_printed_with_its_training(made, run_in, capsys):
    (job,) = read_card(made / "mine.card")
    training = {"flip": False, "optimizer": "adamw", "a=1\n;touch RAN": 1}
    write_card([with_setting(job, "training", training, fit_gradients=4.0)], made / "fit.card")
    assert run_in(made, "fit.card", "--commands", module="src.card") == 0
    words = shlex.split(capsys.readouterr().out)
    assert {"++training.flip=false", "++training.optimizer=adamw", "++???=1"} <= {*words}


def test_each_changed_outcome_counts_and_other_settings_are_named(made, run_in, capsys):
    (job,) = read_card(made / "mine.card")
    wrong = with_column(
        job, "predicted", lambda its: np.where(np.arange(len(its)) < 3, 9 - its, its)
    )
    forged = with_setting(
        wrong, "attack.settings.steps", 3, weights={**job.record.weights, "vgg_small": "0" * 16}
    )
    write_card([forged], made / "forged.card")
    assert run_in(made, "--equal", "forged.card", "mine", module="src.compare") == 1
    told = capsys.readouterr().out
    assert "45 of 48 outcomes" in told and "other weights.vgg_small" in told


def test_a_job_is_compared_with_the_one_of_its_settings(made, run_in, run_tiny, capsys):
    words = [*MODELS, "attack=di", "epsilon.grid=[8]", "n_images=6"]
    assert run_tiny(made, "-m", *words, "attack.steps=2,4", "hydra.sweep.dir=two") == 0
    assert run_tiny(made, *words, "attack.gradients=4", "hydra.run.dir=four") == 0
    capsys.readouterr()
    assert run_in(made, "--equal", "four", "two", module="src.compare") == 0
    assert "24 of 24 outcomes are equal" in capsys.readouterr().out


def test_a_job_is_compared_with_all_jobs_that_have_its_images(made, run_in, capsys):
    (job,) = read_card(made / "mine.card")
    index = job.tables["predictions"]["index"].to_numpy()
    halves = [
        replace(job, tables={"predictions": job.tables["predictions"].filter(pa.array(half))})
        for half in (index < np.median(index), index > np.median(index))
    ]
    wrong = with_column(halves[1], "predicted", lambda its: 9 - its)
    for second, equal, code in ((halves[1], 48, 0), (wrong, 24, 1)):
        write_card([halves[0], second], made / "halves.card")
        for pair in (["mine.card", "halves.card"], ["halves.card", "mine.card"]):
            assert run_in(made, "--equal", *pair, module="src.compare") == code
            assert f"{equal} of 48 outcomes are equal" in capsys.readouterr().out


def test_the_order_of_an_ensemble_does_not_matter(made, run_in, capsys):
    (job,) = read_card(made / "mine.card")
    for name in ("a+b", "b+a"):
        record = job.record.model_copy(update={"source": name})
        write_card([replace(job, record=record)], made / f"{name}.card")
    assert run_in(made, "--equal", "a+b.card", "b+a.card", module="src.compare") == 0
    assert "48 of 48 outcomes are equal" in capsys.readouterr().out


def test_a_record_without_settings_is_one_sentence(made, run_in, capsys):
    (job,) = read_card(made / "mine.card")
    config = {key: value for key, value in job.record.config.items() if key != "epsilon"}
    record = job.record.model_copy(update={"config": config})
    write_card([replace(job, record=record)], made / "short.card")
    assert run_in(made, "short.card", "--commands", module="src.card") == 2
    assert "bim (steps=2) lacks settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["mine.card", "shifted.card"], "No outcome is in both"),
        (["mine.card", "nowhere"], "nowhere"),
        (["mine.card", "mine", "--max-fall=1"], "--equal goes with no other option"),
        (["mine.card", "mine", "--eps=0"], "--equal goes with no other option"),
    ],
)
def test_nothing_in_common_is_a_refusal(made, run_in, capsys, words, refusal):
    (job,) = read_card(made / "mine.card")
    write_card([with_column(job, "index", lambda its: its + 1000)], made / "shifted.card")
    assert run_in(made, "--equal", *words, module="src.compare") == 2
    assert refusal in capsys.readouterr().err
