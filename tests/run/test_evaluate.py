"""The pass over a small data set: its batches, memory and predictions."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.attacks import bim, fgsm
from src.data import Batch, ImageDataset, LabelledImages, to_unit
from src.measure.prediction_rows import prediction_rows
from src.models import PixelClassifier
from src.run.trainer import Batches, layout
from src.utils.model_names import ModelRef
from tests.job_context import TRAINER

BUDGETS = (2.0, 16.0)


def test_rows_are_each_models_predictions_for_the_same_images(run, networks, dataset):
    result, batch = run(networks), dataset[:]
    clean, eps = to_unit(batch.images), torch.tensor(BUDGETS) / 255
    adversarial = fgsm(networks["a"], clean, batch.labels, eps)
    tables = [result.tables[name].to_pandas() for name in ("clean", "float32")]
    assert [len(table) for table in tables] == [11 * 2, 11 * 2 * 2]
    for target, network in networks.items():
        for budget, images in zip((0, *BUDGETS), [clean, *adversarial], strict=True):
            frame = tables[budget > 0]
            rows = frame[(frame["target"] == target) & (frame["eps_255"] == budget)]
            assert rows["predicted"].tolist() == network(images).argmax(1).tolist()
    assert sorted(result.images) == list(range(11))
    np.testing.assert_allclose(result.images[10], adversarial[:, 10], atol=1e-6)


def test_where_memory_does_not_suffice_batches_are_halved(run, networks, monkeypatch):
    room, attack = [3], partial(bim, steps=2)
    trainer = TRAINER.model_copy(update={"batch_size": 11, "gradient_batch": 8})
    expected, forward = run(networks, attack), nn.Linear.forward

    def cramped(layer, images):
        if len(images) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(layer, images)

    monkeypatch.setattr(nn.Linear, "forward", cramped)
    wrapped = {name: PixelClassifier(its, (0, 0, 0), (1, 1, 1)) for name, its in networks.items()}
    found = run(wrapped, attack, trainer=trainer)
    assert found.results.batch_size == 2  # 11, 5, 2
    assert found.results.gradients == 11 * (1 + 2)  # of the last pass alone
    for column in ("index", "target", "eps_255", "predicted"):
        assert found.tables["float32"][column].equals(expected.tables["float32"][column])
    room[0] = 0
    with pytest.raises(ValueError, match="batch_size=1 "):
        run(networks)


def empty(count: int) -> ImageDataset:
    return ImageDataset(LabelledImages(np.zeros((count, 4, 4, 3), np.uint8), np.zeros(count, int)))


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 12), processes=st.integers(1, 4))
def test_every_image_is_in_one_batch_of_one_process_with_its_partner(count, size, processes):
    data = empty(count)
    whole = layout(data.dealt.tolist(), size)
    assert sorted(position for batch in whole for position in batch) == list(range(count))
    assert all(len(batch) <= max(size, 3) for batch in whole)
    assert all(len(batch) % 2 == 0 for batch in whole[count % 2 :])
    assert all(data.partners[position] in batch for batch in whole for position in batch)
    parts = [Batches(data, size, processes, rank) for rank in range(processes)]
    positions = [part.positions for part in parts]
    assert whole == [
        positions[rank][turn]
        for turn in range(len(whole))
        for rank in range(processes)
        if turn < len(positions[rank]) and positions[rank][turn]
    ]
    assert all(len(part) for part in parts)  # Lightning refuses a process without batches
    assert [batch.index.tolist() for batch in parts[-1]] == positions[-1]


NET = ModelRef.parse("net")
ONE = Batch(torch.zeros(1, 3, 1, 1), torch.tensor([2]), torch.tensor([5]))


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"net .* finite"):
        prediction_rows(NET, ONE, torch.full((1, 3), torch.nan), {})


def test_a_draw_that_abstains_breaks_no_tie():
    """The votes of two draws are equal; class 5 has the better mean rank."""
    draws = torch.tensor(
        [[9.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 8.0, 7.0, 9.0], [torch.nan] * 6]
    )
    for its in (draws, draws[:2]):
        (row,) = prediction_rows(NET, ONE, its[:, None], {}).to_pylist()
        assert (row["predicted"], row["draws"], row["draws_correct"]) == (5, len(its), 0)
