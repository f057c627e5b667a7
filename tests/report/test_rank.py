"""`rank`: one attack as a function or by name, run on the images of a preset."""

from collections.abc import Callable
from functools import partial
from os import mkfifo
from pathlib import Path
from typing import Any

import pytest
from torch.nn.functional import cross_entropy

from src import attacks, rank


@pytest.mark.slow
def test_a_stored_attack_called_as_a_function_gives_what_is_stored():
    (result,) = rank(partial(attacks.fgsm), source="vgg_small", tuning=True)
    rows = result.own.set_index("attack")
    assert rows.loc["fgsm", "difference"] == 0
    assert rows.loc["mine", "gradients"] == 1
    assert any("Images for tuning" in note for note in result.notes)


@pytest.mark.slow
def test_a_function_of_four_arguments_is_enough():
    def mine(model: Any, images: Any, labels: Any, eps: Any) -> Any:
        images = images.clone().requires_grad_()
        cross_entropy(model(images), labels, reduction="sum").backward()
        return (images + eps * images.grad.sign()).clamp(0, 1).detach()

    (result,) = rank(mine, source="vgg_small", tuning=True)
    assert result.own.set_index("attack").loc["fgsm", "difference"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "gradients", "labels", "notes"),
    [
        ("dem", 10, ["dem (10 gradients)", "dem (10 gradients, spend=copies)"], 0),
        ("vmi", 19, ["vmi (19 gradients, spend=copies)"], 1),
        ("mi", 3, ["mi (3 gradients)"], 0),
    ],
)
def test_tuning_ranks_both_ways_to_spend_gradients(attack, gradients, labels, notes):
    results = rank(attack, source="vgg_small", tuning=True, gradients=gradients)
    assert [result.attack for result in results] == labels
    assert {result.cost for result in results} == {gradients}
    assert sum("The nearest" in note for note in results.notes) == notes


def test_refusals_of_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: rank("fgsm", preset="large"), "large: .*photographs, small"),
        (lambda: rank("fgsm", preset=None), "None: .*photographs"),  # type: ignore[arg-type]
        (lambda: rank("fgsm", preset=["small"]), "photographs, small"),  # type: ignore[arg-type]
        (lambda: rank("mii"), "mii.*Did you mean"),
        (lambda: rank("mii", preset="photographs"), "mii.*Did you mean"),
        (lambda: rank("mi", preset="photographs", tuning=True), "networks.md.*tuning"),
        (lambda: rank(None), "NoneType"),  # type: ignore[arg-type]
        (lambda: rank([]), "list"),  # type: ignore[arg-type]
        (lambda: rank({}), "empty"),
        (lambda: rank("nowhere.card"), "does not exist"),
        (lambda: rank("pipe"), "is a named pipe"),
        (lambda: rank(tmp_path, tuning=True), "tuning"),
        (lambda: rank(tmp_path, gradients=10), "gradients"),
        (lambda: rank(attacks.mi, gradients=10), "name of an attack"),
    ]
    monkeypatch.chdir(tmp_path)
    mkfifo("pipe")
    for call, sentence in calls:
        with pytest.raises(ValueError, match=sentence):
            call()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("vgg16", "source=vgg16"),
        (7, "source=7: .*vgg_small"),
        (["vgg_small"] * 2, "vgg_small is listed more than once"),
    ],
)
def test_sources_are_those_of_the_preset(source: Any, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        rank("fgsm", source=source)
