"""Table of predictions, on one process and on two."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from src.measure.predictions import Predictions, merged

TARGETS = ["a", "b"]
LEVELS = pa.table({"eps_255": [0.5, 8.0], "kind": ["x", "y"]})
ONE = pa.table({"eps_255": [4.0]})


def test_rows_are_complete_and_sorted():
    predictions = Predictions(TARGETS, LEVELS)
    for images in torch.arange(103).flip(0).split(16):
        for target in reversed(TARGETS):
            for level in (1, 0):
                predictions.add(target, level, images, images % 7, torch.rand(len(images), 7))
    frame = predictions.compute().to_pandas()
    keys = list(zip(frame["target"], frame["eps_255"], frame["index"], strict=True))
    assert keys == [(t, e, n) for t in TARGETS for e in (0.5, 8.0) for n in range(103)]
    assert frame["kind"].tolist() == (["x"] * 103 + ["y"] * 103) * 2
    assert (frame["label"] == frame["index"] % 7).all()


@pytest.mark.parametrize("classes", [3, 7])
def test_a_row_holds_the_softmax(classes):
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0, -2.0, -3.0]])[:, :classes]
    predictions, aimed = Predictions(["net"], ONE), torch.tensor([1]) if classes == 3 else None
    predictions.add("net", 0, torch.tensor([5]), torch.tensor([2]), logits, aimed)
    row = predictions.compute().to_pylist()[0]
    probabilities, order = (
        logits.softmax(1)[0],
        [each for each in (1, 3, 2, 0, 4) if each < classes],
    )
    assert (row["index"], row["label"], row["target"], row["eps_255"]) == (5, 2, "net", 4.0)
    assert (row["predicted"], row["target_label"]) == (1, 1 if classes == 3 else None)
    assert row["confidence"] == pytest.approx(probabilities[1].item())
    assert row["true_confidence"] == pytest.approx(probabilities[2].item())
    assert row["top5_classes"] == order
    assert row["top5_confidences"] == pytest.approx(probabilities[order].tolist())


def test_logits_that_are_not_finite_are_refused():
    labels, logits = torch.zeros(3).long(), torch.full((3, 4), float("nan"))
    with pytest.raises(ValueError, match=r"net .* finite"):
        Predictions(["net"], ONE).add("net", 0, torch.arange(3), labels, logits)


def merge(number: int, folder: str) -> None:
    """Merge, as one of two processes, rows of both, of the second alone, and of none."""
    dist.init_process_group("gloo", f"file://{folder}/store", rank=number, world_size=2)
    metrics = {name: Predictions(["net"], ONE) for name in ("both", "second", "none")}
    fill(metrics["both"], torch.arange(number, 9, 2))
    if number == 1:
        fill(metrics["second"], torch.arange(9))
    tables = merged(metrics)
    assert tables.keys() == {"both", "second"}
    for name, table in tables.items():
        pq.write_table(table, f"{folder}/{name}-{number}.parquet")
    dist.destroy_process_group()


def fill(predictions: Predictions, images: torch.Tensor) -> None:
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))[images]
    predictions.add("net", 0, images, images % 3, logits)


def test_rows_on_both_processes_on_one_and_on_none(tmp_path):
    mp.start_processes(merge, args=(str(tmp_path),), nprocs=2, start_method="fork")
    one = Predictions(["net"], ONE)
    fill(one, torch.arange(9))
    tables = [pq.read_table(path) for path in tmp_path.glob("*.parquet")]
    assert len(tables) == 4 and all(table.equals(one.compute()) for table in tables)
