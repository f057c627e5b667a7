"""The table of predictions, on one process and on two."""

import pyarrow as pa
import pytest
import torch

from src.evaluation import Predictions

TARGETS = ["a", "b"]
BUDGETS = [0.5, 8.0]


def fill(predictions: Predictions, images: torch.Tensor) -> None:
    """Add a batch for both targets and budgets, of logits that tell image, target and budget."""
    for target, name in enumerate(TARGETS):
        for budget in range(len(BUDGETS)):
            generator = torch.Generator().manual_seed(10 * target + budget)
            logits = torch.randn(1000, 7, generator=generator)[images]
            predictions.update(name, budget, images, images % 7, logits)


@pytest.fixture
def one_process() -> pa.Table:
    predictions = Predictions(TARGETS, pa.table({"eps_255": BUDGETS}))
    for part in torch.arange(103).split(16):
        fill(predictions, part)
    return predictions.compute()


def test_rows_are_complete_and_sorted(one_process):
    frame = one_process.to_pandas()
    assert len(frame) == 103 * 2 * 2
    keys = list(zip(frame["target"], frame["eps_255"], frame["index"], strict=True))
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert (frame["label"] == frame["index"] % 7).all()


def test_a_row_holds_the_softmax():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0, -2.0, -3.0]])
    predictions = Predictions(["net"], pa.table({"eps_255": [4.0]}))
    predictions.update("net", 0, torch.tensor([5]), torch.tensor([3]), logits)
    row = predictions.compute().to_pylist()[0]
    probabilities = logits.softmax(1)[0]
    assert (row["index"], row["label"], row["target"], row["eps_255"]) == (5, 3, "net", 4.0)
    assert (row["predicted"], row["target_label"]) == (1, None)
    assert row["confidence"] == pytest.approx(probabilities[1].item())
    assert row["true_confidence"] == pytest.approx(probabilities[3].item())
    assert row["top5_classes"] == [1, 3, 2, 0, 4]
    assert row["top5_confidences"] == pytest.approx(probabilities[[1, 3, 2, 0, 4]].tolist())


def test_three_classes_have_a_top_three():
    predictions, zero = Predictions(["net"], pa.table({"eps_255": [0.0]})), torch.tensor([0])
    predictions.update("net", 0, zero, zero + 2, torch.eye(3)[:1], zero + 1)
    row = predictions.compute().to_pylist()[0]
    assert row["target_label"] == 1
    assert row["top5_classes"][0] == 0 and len(row["top5_classes"]) == 3


def test_logits_that_are_not_finite_are_refused():
    predictions = Predictions(["net"], pa.table({"eps_255": [0.0]}))
    labels, logits = torch.zeros(3).long(), torch.full((3, 4), float("nan"))
    with pytest.raises(ValueError, match=r"net .* finite"):
        predictions.update("net", 0, torch.arange(3), labels, logits)
