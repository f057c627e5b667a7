"""Counts and ratios of the benchmark by hand, and the whole of it on two tiny networks."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.agreement import counted, counts, differences
from benchmarks.bench import Run
from benchmarks.compare import times
from benchmarks.gpu import PARTS, check
from benchmarks.gpu_parts import Row
from benchmarks.peers import PEERS, Files
from src.attacks import bim, fgsm, mi
from tests.conftest import REPOSITORY, run_python

INPUT = REPOSITORY / "tests" / "golden" / "input"


def rows(predicted: dict[tuple[str, str, float], list[int]]) -> pd.DataFrame:
    """Return rows of four images of class 0."""
    names = ["source", "target", "eps_255", "index", "predicted"]
    cells = [(*c, *each) for c, classes in predicted.items() for each in enumerate(classes)]
    return counted(pd.DataFrame(cells, columns=names).assign(label=0))


CLEAN = {("a", "a", 0.0): [0, 0, 0, 1], ("a", "b", 0.0): [0, 0, 1, 0]}


OURS = rows({**CLEAN, ("a", "a", 8.0): [0, 1, 0, 0], ("a", "b", 8.0): [0, 0, 0, 0]})


def test_only_images_that_both_classify_correctly_are_counted():
    found = counts(OURS)
    assert found.loc[("a", "a", 8.0)].tolist() == [2, 3]
    assert found.loc[("a", "b", 8.0)].tolist() == [2, 2]


def test_differences_count_cells_and_single_predictions_in_any_order():
    theirs = rows({("a", "b", 8.0): [1, 1, 0, 0], ("a", "a", 8.0): [0, 1, 0, 2], **CLEAN})
    assert differences(OURS, theirs) == {
        **{"cells": 2, "cells_differ": 1, "largest": 2},
        **{"predictions": 16, "predictions_differ": 3},  # the fourth image of `a` is not counted
    }


def test_ratios_are_of_the_same_round():
    seconds = {"ours": [10, 20, 40], "peer": [20, 20, 120]}
    runs = [
        Run(name, number, value, value / 2, 100)
        for name, values in seconds.items()
        for number, value in enumerate(values)
    ]
    peer = times(runs).loc["peer"]
    assert peer[["ratio", "least", "largest", "loop"]].tolist() == [2, 1, 3, 10]


@pytest.mark.filterwarnings("ignore")  # the libraries' own, when they are imported
@pytest.mark.parametrize(
    ("library", "attack"),
    [(name, attack) for name, peer in PEERS.items() for attack in peer.attacks],
)
def test_every_library_is_asked_for_the_same_attack(library, attack):
    pytest.importorskip(library, exc_type=ImportError)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 3
        network = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
        peer = PEERS[library].build(network, attack, Files(images, labels, 3, {}), 4)
        budgets = [4 / 255, 16 / 255]
        theirs = [torch.as_tensor(one) for one in peer.craft(images, labels, budgets)]
    assert peer.classify(theirs[0]).tolist() == network(theirs[0]).argmax(1).tolist()
    for eps, found in zip(budgets, theirs, strict=True):
        assert 0.9 * eps < (found - images).abs().max() <= eps + 1e-6
        assert found.min() >= 0 and found.max() <= 1
        if attack not in ("pgd", "di") and (library, attack) != ("foolbox", "mi"):
            ours = {"fgsm": fgsm, "bim": bim, "mi": mi}[attack](network, images, labels, eps)
            torch.testing.assert_close(found, ours, atol=1e-6, rtol=0)


def test_without_a_gpu_there_is_nothing_to_check(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert check(False, [*PARTS], tmp_path, {}) == 2 and not list(tmp_path.iterdir())
    assert "--tiny" in capsys.readouterr().err


def run_on_tiny_networks(folder: Path, *words: str) -> dict[str, Any]:
    """Run the benchmark in a process of its own, and return its only result."""
    shutil.copytree(INPUT, folder, dirs_exist_ok=True)
    own = ["--own", "wide,flat", f"hydra.searchpath=['file://{folder / 'conf'}']"]
    own += ["dataset=cifar10_mini", "seed=35"]
    own += ["trainer.attack_precision=bf16"]  # of the input, not of the bench's own
    own += ["--images", "20", "--threads", "1", "--folder", "found"]
    run_python("-m", "benchmarks", *words, *own, folder=folder)
    (found,) = json.loads((folder / "found" / "results.json").read_text())["results"]
    return found


@pytest.mark.slow
def test_the_speeds_of_networks_are_measured_without_a_sweep(tmp_path):
    found = run_on_tiny_networks(tmp_path, "speeds")
    speeds = pd.DataFrame(found["speeds"]).set_index("model")
    assert speeds.index.tolist() == ["wide", "flat"]
    assert (speeds[["gradients", "gradients_bf16", "predictions"]] > 0).all(axis=None)
    assert (speeds["predictions"] > speeds["gradients"]).all()


@pytest.mark.slow
def test_a_machine_is_checked(tmp_path):
    run_python("-m", "benchmarks", "gpu", "--tiny", "--folder", "found", folder=tmp_path)
    found = json.loads((tmp_path / "found" / "gpu-cpu.json").read_text())
    assert found["failed"] == {} and found["seconds"].keys() == PARTS.keys()
    assert {"device", "hardware", "commit", "versions"} < found.keys()
    measured: dict[str, list[float]] = {}
    for row in found["rows"]:
        measured.setdefault(row["measured"], []).append(row["value"])
    assert measured.pop("demo, most images unlike the CPU's in a cell") <= [2]
    for equal in ("images unlike those of a second run", "rows unlike those of one device"):
        assert set(measured.pop(equal)) == {0}
    assert sum(measured.pop("tests")) > 0
    assert min(measured.pop("gradients, TFLOP / s")) > 0
    assert len(list((tmp_path / "found").iterdir())) == 4
    table = (tmp_path / "found" / "gpu-cpu.md").read_text()
    assert len(table.splitlines()) > 2 + len(measured)


def test_quick_parts_run_in_this_process(tmp_path):
    assert check(True, ["precisions", "training"], tmp_path, {}) == 0


@pytest.mark.slow
def test_a_failed_part_is_noted_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(setup):
        yield Row("made", "before", 32, 1.0)
        raise RuntimeError("a broken part")

    def whole(setup):
        yield Row("made", "after", 32, 2.0)

    monkeypatch.setattr("benchmarks.gpu.PARTS", {"broken": (9, broken), "whole": (9, whole)})
    assert check(True, ["broken", "whole"], tmp_path, {}) == 1
    found = json.loads((tmp_path / "gpu-cpu.json").read_text())
    assert [row["of"] for row in found["rows"]] == ["before", "after"]
    assert found["failed"] == {"broken": "RuntimeError: a broken part"}


@pytest.mark.slow
def test_the_bench_agrees_with_torchattacks_on_tiny_networks(tmp_path):
    pytest.importorskip("torchattacks", exc_type=ImportError)
    words = ["--attacks", "fgsm", "--rounds", "1", "--libraries", "torchattacks"]
    words += ["--variant", "unfolded", "trainer.fold_batch_norms=false"]
    words += ["--budgets", "8", "2"]
    found = run_on_tiny_networks(tmp_path, *words)
    measured = pd.DataFrame(found["times"]).set_index("library")
    assert measured.index.tolist() == ["ours", "unfolded", "torchattacks"]
    assert (measured > 0).all(axis=None)
    assert all(one["predictions_differ"] == 0 for one in found["agreement"].values())
    assert found["counts"]["ours"] == found["counts"]["torchattacks"]
    assert {one["eps_255"] for one in found["counts"]["ours"]} == {2.0, 8.0}
    assert 0 < found["needed"] < measured.loc["ours", "seconds"]
