"""What one command does once: build each model, open each data set, check each job."""

from collections import Counter

import pytest

CODE = """
import json
from pathlib import Path

import torch
from torch import nn

from src.data.cifar10_mini import cifar10_mini

def note(text):
    with Path("log.txt").open("a") as file:
        file.write(text + "\\n")

class Counted(nn.Sequential):
    def __init__(self, name):
        note(f"build {name}")
        super().__init__(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))

def images(split, **settings):
    note(f"open {split} {json.dumps(settings, sort_keys=True)}")
    return cifar10_mini(split)

def defence():
    note("defence")
    return nn.Identity()
"""
MODEL = """# @package model.{0}
network: {{_target_: counting.Counted, name: {0}}}
mean: [0, 0, 0]
std: [1, 1, 1]
weights: {1}
"""


@pytest.fixture
def noted(workspace, run_job, monkeypatch):
    """A function that runs a command, and counts what it has built and opened."""
    (workspace / "counting.py").write_text(CODE)
    for name, weights in (("one", "included"), ("two", "included"), ("new", "null")):
        (workspace / "conf/model" / f"{name}.yaml").write_text(MODEL.format(name, weights))
    (workspace / "conf/dataset").mkdir()
    (workspace / "conf/dataset/counted.yaml").write_text(
        "name: counted\n_target_: counting.images\n"
    )
    log = workspace / "log.txt"

    def run(*words: str, code: int = 0) -> Counter[str]:
        log.write_text("")
        assert run_job("dataset=counted", *words) == code
        return Counter(log.read_text().splitlines())

    return run


SWEEP = ["-m", "attack=fgsm,rfgsm", "source=one,two", "targets=[one,two]"]


@pytest.mark.parametrize(
    "words", [pytest.param(["source=one", "targets=[one,two]"], marks=pytest.mark.slow), SWEEP]
)
def test_a_command_builds_each_model_and_opens_each_data_set_once(noted, words):
    counts = noted(*words)
    assert {name: counts[name] for name in counts if "build" in name} == {
        "build one": 1,
        "build two": 1,
    }
    opened = {name: number for name, number in counts.items() if "open" in name}
    assert opened and set(opened.values()) == {1}, opened
