"""Counts and ratios of the benchmark by hand, and the whole of it on few images."""

import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.agreement import counted, counts, differences
from benchmarks.beside import times
from benchmarks.theirs import ATTACKS, craft
from src.attacks import bim, fgsm, mi


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
    seconds = {"ours": [10, 20, 40], "torchattacks": [20, 20, 120]}
    runs = [(name, number, its) for name in seconds for number, its in enumerate(seconds[name])]
    runs = pd.DataFrame(runs, columns=["library", "round", "seconds"])
    theirs = times(runs.assign(loop=runs["seconds"] / 2, megabytes=100)).loc["torchattacks"]
    assert theirs[["ratio", "least", "largest", "loop"]].tolist() == [2, 1, 3, 10]


@pytest.mark.filterwarnings("ignore")  # the library's own, when it is imported
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_library_is_asked_for_the_same_attack(attack):
    pytest.importorskip("torchattacks", exc_type=ImportError)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images, labels = torch.rand(6, 3, 16, 16), torch.arange(6) % 3
        network = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
        eps = 4 / 255
        theirs = craft(network, attack, images, labels, eps)
    assert 0.9 * eps < (theirs - images).abs().max() <= eps + 1e-6
    if attack not in ("pgd", "di"):
        ours = {"fgsm": fgsm, "bim": bim, "mi": mi}[attack](network, images, labels, eps)
        torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=0)
