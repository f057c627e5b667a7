"""The page for users of torchattacks and foolbox: three changed lines, the same predictions."""

import re
import warnings

import pytest
import torch
from torch import nn

from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```diff\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
DIFFS = dict(zip(("torchattacks", "foolbox"), BLOCKS, strict=True))


def make_values() -> dict[str, object]:
    torch.manual_seed(0)
    model, other = (nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).eval() for _ in range(2))
    images = torch.randint(256, (8, 3, 8, 8)) / 255
    preprocessing = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "axis": -3}
    labels = model(images).argmax(1)
    return dict(model=model, other=other, images=images, labels=labels, preprocessing=preprocessing)


@pytest.mark.parametrize("library", DIFFS)
def test_three_changed_lines_give_the_librarys_own_predictions(library):
    pytest.importorskip(library)
    lines = DIFFS[library].splitlines()
    assert sum(line.startswith("+") for line in lines) <= 3
    old, new = ("\n".join(line[1:] for line in lines if not line.startswith(sign)) for sign in "+-")
    theirs, ours = make_values(), make_values()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        exec(old, theirs)
        exec(new, ours)
    frame = ours["results"]
    frame = frame[(frame.target == frame.target.unique()[1]) & (frame.eps_255 > 0)]
    predicted = theirs["predicted"]
    predicted = torch.cat(predicted) if isinstance(predicted, list) else predicted
    assert frame.sort_values(["eps_255", "index"]).predicted.tolist() == predicted.tolist()


def test_an_object_that_hides_a_setting_is_run_with_it():
    torchattacks = pytest.importorskip("torchattacks")
    from src import attacks, transfer

    values = make_values()
    model, images, labels = values["model"], values["images"], values["labels"]
    attack = {"square": torchattacks.Square(model)}
    attack["same"] = attacks.torchattacks.Square
    results = transfer({"a": model}, {"a": model}, images, labels, attacks=attack, eps=8 / 255)
    rows = results.predictions
    one, two = (its.true_confidence.tolist() for _, its in rows.groupby("attack", observed=True))
    assert one == two
