"""Changes of outputs and transfer to resized copies, against direct computation."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from findings.measurements import OutputChanges, SelfTransfer
from src.attacks import fgsm
from tests.job_context import named

REFERENCE = 8.0
"""Reference budget of `diagnosed`."""


def stacked(column):
    return np.stack([*column])


def test_changes_are_clean_minus_adversarial_logits(images, curved, batch_of, diagnosed):
    networks, dataset = {"a": curved(0), "b": curved(1)}, images(11)
    arguments, only = (
        (dataset, networks["a"], networks),
        {"only": {}, "measurements": named(OutputChanges)},
    )
    found = diagnosed(*arguments, **only).output_changes
    clean, batch = batch_of(dataset)
    (attacked,) = fgsm(networks["a"], clean, batch.labels, torch.tensor([REFERENCE / 255]))
    assert found["target"].tolist() == ["a"] * 11 + ["b"] * 11
    for name, rows in found.groupby("target"):
        wanted = networks[name](clean) - networks[name](attacked)
        assert rows["index"].tolist() == list(range(11))
        np.testing.assert_allclose(stacked(rows["change"]), wanted, atol=1e-4)


def test_a_source_that_is_no_target_has_its_changes(images, curved, diagnosed):
    only = {"only": {}, "measurements": named(OutputChanges)}
    found = diagnosed(images(), curved(0), {"b": curved(1)}, **only).output_changes
    assert found["target"].unique().tolist() == ["source", "b"]


def test_self_transfer_is_the_share_of_resized_copies_that_are_fooled(
    images, curved, batch_of, diagnosed
):
    source, other = curved(0), curved(1)
    dataset = images(40, model=source)
    arguments, only = (
        (dataset, source, {"a": source, "b": other}),
        {"only": {}, "measurements": named(SelfTransfer)},
    )
    found = diagnosed(*arguments, **only).self_transfer
    clean, batch = batch_of(dataset)
    (attacked,) = fgsm(source, clean, batch.labels, torch.tensor([REFERENCE / 255]))
    assert found["index"].tolist() == list(range(40)) and set(found["target"]) == {"a"}
    for image, other, label, share in zip(clean, attacked, batch.labels, found.fooled, strict=True):
        outcomes = []
        for side in (5, 6, 7, 9, 10, 13):
            pair = functional.interpolate(
                torch.stack([image, other]), (side, side), mode="bilinear", antialias=True
            )
            before, after = (8 - side) // 2, 8 - side - (8 - side) // 2
            if side > 8:  # torchvision rounds the start of a crop, half to even
                before = -round((side - 8) / 2)
                after = 8 - side - before
            pair = functional.pad(pair, (before, after, before, after))
            on_clean, on_attacked = (source(pair).argmax(dim=1) == label).tolist()
            outcomes += [not on_attacked] * on_clean
        assert share == pytest.approx(np.mean(outcomes) if outcomes else np.nan, nan_ok=True)
    assert found.fooled.between(0.1, 0.9).any()


def test_some_have_no_copy_that_is_right(images, curved, diagnosed):
    found = diagnosed(
        images(40), curved(0), {"a": curved(0)}, only={}, measurements=named(SelfTransfer)
    )
    assert 0 < found.self_transfer["fooled"].isna().sum() < 40
