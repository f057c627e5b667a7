"""The signature of an output: the same for the same experiment, and what two of them allow."""

from functools import partial

import pytest
import torch
from torch import nn

import src
from src import load_sweep, transfer
from src.card import main as pack
from src.report.results import results_of
from src.status import main as status
from tests.conftest import REPOSITORY

DEMO = REPOSITORY / "docs" / "results" / "demo"
START = "fooled,joint,n=132-176/200|linf 4/255 float32|bim steps=10 step=eps/10,fgsm,mi steps=10 "
SIGNED = (
    "fooled,joint,n=721/1000|linf 4/255 float32|mi steps=10 step=eps/10 mu=1 grad=10|src=a+b|"
    "tgt=5,no white box|img=cifar10_mini|def=none|fp32|seed=0|#3f9a2c1e|v0.6.0"
)


def test_a_card_and_another_order_of_jobs_have_the_signature_of_the_sweep(tmp_path, capsys):
    results = load_sweep(DEMO)
    line, card = results.signature, tmp_path / "demo.card"
    assert line.startswith(f"{START}step=eps/10 mu=1|src=inception_small,resnet_small,vgg_small|")
    assert "|tgt=5,white box|img=cifar10_mini|def=none|fp32|seed=0|#" in line
    assert results_of(results.jobs[::-1]).signature == line
    assert pack([str(DEMO), "-o", str(card)]) == 0 and line in capsys.readouterr().out
    assert status([str(DEMO), str(card)]) == 0
    assert capsys.readouterr().out.endswith("The same experiment.\n")
    assert status([line, str(card)]) == 0


def test_each_format_with_a_caption_has_the_signature_once():
    for to in ("markdown", "latex", "html", "csv"):
        text = src.table(DEMO, to=to)
        assert text.count("|img=cifar10_mini|") == (to != "csv")
    other = src.table(DEMO, value="accuracy", eps_255=8, white_boxes=False, to="markdown")
    assert "`accuracy,joint,n=1" in other and "/200|linf 8/255 float32|bim steps=10 " in other
    assert "|tgt=5,no white box|" in other
    matrix = src.table(DEMO, name="matrix", attack="mi", to="markdown")
    assert "`counts,joint,n=1" in matrix and "/200|linf 4/255 float32|mi steps=10 " in matrix


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("mi steps=10 step=eps/10 mu=1", "fgsm", 0, "attack: mi steps=10 step=eps/10 mu=1 grad"),
        ("n=721/1000", "n=698/1000", 0, "images counted: 721 -> 698"),
        ("src=a+b", "src=c", 0, "may be in one table."),
        ("n=721/1000", "n=700/900", 1, "that needs equal images."),
        ("linf 4/255", "linf 8/255", 1, "that needs equal budget."),
        ("joint", "all", 1, "value and protocol: fooled,joint -> fooled,all"),
        ("fp32", "bf16-mixed", 1, "that needs equal arithmetic."),
        ("v0.6.0", "v0.7.0", 1, "that needs equal version."),
        ("#3f9a2c1e", "#00000000", 1, "equal targets, weights, files or settings."),
    ],
)
def test_two_signatures_say_whether_numbers_may_be_in_one_table(old, new, code, says, capsys):
    assert status([SIGNED, SIGNED.replace(old, new)]) == code
    assert says in capsys.readouterr().out


def test_what_is_no_signature_is_refused(capsys):
    assert status([SIGNED, "a|b"]) == 2 and "no signature" in capsys.readouterr().err
    assert status([SIGNED, "nowhere.card"]) == 2 and "nowhere.card" in capsys.readouterr().err


class Small(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 4))

    def forward(self, images):
        return self.layers(images)


def up(model, images, labels, eps, decay=1.0):
    return (images + eps).clamp(0, 1)


def down(model, images, labels, eps, decay=1.0):
    return (images - eps).clamp(0, 1)


def blur(images, **_):
    return images


def test_calls_with_the_same_objects_have_one_signature_and_other_code_has_another():
    torch.manual_seed(0)
    models = {"a": Small(), "b": Small()}
    images, labels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8) % 4

    def sign(targets=models, seed=0, defences=None, **attacks):
        call = partial(transfer, {"a": models["a"]}, targets, images, labels, progress_bar=False)
        called = call(attacks=attacks or "mi", protocol="all", seed=seed, defences=defences)
        return called.signature

    first = sign()
    assert "mi steps=10 step=eps/10 mu=1 grad=10|src=a|tgt=2,white box|" in first
    assert first == sign() != sign(seed=1)
    assert sign(mine=up) == sign(mine=up) != sign(mine=down)
    assert sign(mine=partial(up, decay=0.5)) != sign(mine=up)
    behind = sign(defences={"blur": blur})
    assert behind == sign(defences={"blur": blur}) != sign(defences={"blur": lambda x, **_: x})
    assert len({first, sign(mine=up), behind, sign({"a": models["a"], "b": Small()})}) == 4
