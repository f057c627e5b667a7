"""Rows of predictions."""

import pytest
import torch

from src.data import Batch
from src.measure.prediction_rows import prediction_rows
from src.utils.model_names import ModelRef

LEVEL = {"eps_255": 4.0, "kind": "x"}
NET = ModelRef.parse("net")


def batch(index, labels):
    return Batch(torch.zeros(len(index), 3, 1, 1), torch.tensor(labels), torch.tensor(index))


@pytest.mark.parametrize("classes", [3, 7])
def test_a_row_holds_the_softmax(classes):
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0, -2.0, -3.0]])[:, :classes]
    targeted = torch.tensor([1]) if classes == 3 else None
    table = prediction_rows(NET, batch([5], [2]), logits, LEVEL, targeted)
    (row,) = table.to_pylist()
    probabilities = logits.softmax(1)[0]
    order = [number for number in (1, 3, 2, 0, 4) if number < classes]
    assert (row["index"], row["label"], row["eps_255"]) == (5, 2, 4.0)
    assert (row["predicted"], row["target_label"]) == (1, 1 if classes == 3 else None)
    assert row["kind"] == "x" and (row["draws"], row["draws_correct"]) == (1, 0)
    assert row["confidence"] == pytest.approx(probabilities[1].item())
    assert row["true_confidence"] == pytest.approx(probabilities[2].item())
    assert row["top5_classes"] == order
    assert row["top5_confidences"] == pytest.approx(probabilities[order].tolist())


def test_logits_that_are_not_finite_are_refused():
    logits = torch.full((3, 4), float("nan"))
    with pytest.raises(ValueError, match=r"net .* finite"):
        prediction_rows(NET, batch([0, 1, 2], [0, 0, 0]), logits, LEVEL)


def test_a_defence_is_applied_once_for_all_targets(run, linear):
    counts = []
    for names in ("a", "abc"):
        calls = []

        def dims(images, calls=calls):
            calls.append(len(images))
            return images * 0.9

        run({name: linear(ord(name)) for name in names}, defences={"dims": dims})
        counts.append(sum(calls))
    assert counts[0] == counts[1] >= 33  # eleven images, clean and at two budgets


def test_a_draw_that_abstains_breaks_no_tie():
    """The votes of two draws are equal; class 5 has the better mean rank."""
    draws = torch.tensor(
        [[9.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 8.0, 7.0, 9.0], [torch.nan] * 6]
    )
    rows = [
        prediction_rows(NET, batch([0], [0]), its[:, None], LEVEL).to_pylist()[0]
        for its in (draws, draws[:2])
    ]
    assert [row["predicted"] for row in rows] == [5, 5]
