"""Refusals of attacks, naming the key and the value."""

import pytest
import torch

import src.attacks
from src.attacks import (
    bim,
    bsr,
    cwa,
    di,
    emi,
    fgsm,
    mi,
    pgd,
    rfgsm,
    rpa,
    si_ni,
)

NAN, INF = float("nan"), float("inf")
MEANINGLESS = [
    (bim, "steps", [0, 2.5, True, "3", None]),
    (pgd, "random_start", ["normal"]),
    (pgd, "start_radius", [-0.1, 1.1, NAN]),
    (bim, "step_size_255", [0, 256, INF]),
    (fgsm, "norm", ["l1"]),
    (fgsm, "loss", ["mse"]),
    (mi, "decay", [-1, NAN, INF, None]),
    (bim, "kernel_size", [-1, 4]),
    (bim, "transforms", [[3], [torch.sin]]),
    (emi, "samples", [1]),
    (di, "resize_rate", [0.9, 4.5]),
    (si_ni, "copies", [0, 2.0]),
    (cwa, "inner_size", [0, INF]),
    (rpa, "sizes", [[], [0]]),
]


def test_refuses_values_without_a_meaning(network, batch):
    for attack, key, values in MEANINGLESS:
        for value in values:
            with pytest.raises(ValueError, match=f"^{key}") as caught:
                attack(network(), *batch(), 0.1, **{key: value})
            assert "\n" not in str(caught.value)


CONTRADICTIONS = [
    (bim, {"restarts": 2}, "restarts=2"),
    (rfgsm, {"norm": "l2"}, "random_start=sign"),
    (bim, {"step_rule": "mdcs", "norm": "l2"}, "norm=linf"),
    (bim, {"step_rule": "mdcs", "normalised": False}, "normalised=true"),
    (bim, {"step_rule": "mdcs", "update": lambda momentum, _: momentum}, "attack.update"),
    (bsr, {"blocks": 13}, "blocks=13"),  # of images of 12 pixels
]


@pytest.mark.parametrize(("attack", "words", "named"), CONTRADICTIONS)
def test_refuses_values_that_do_not_go_together(attack, words, named, network, batch):
    with pytest.raises(ValueError, match=named):
        attack(network(), *batch(), torch.tensor([1, 8]) / 255, **words)


def test_refuses_misspelt_keywords_and_defaults(network, batch):
    for attack, key in ((fgsm, "steps"), (mi, "decy"), (emi, "estimator")):
        with pytest.raises(TypeError, match=f"{attack.__name__}.*{key}"):
            attack(network(), *batch(), 0.1, **{key: 1})
    for words in ({"decy": 1.0}, {"fixed": ["step"]}):
        with pytest.raises(TypeError, match=r"decy|step"):
            src.attacks.attack(**words)
    with pytest.raises(ValueError, match="decay"):
        src.attacks.attack(decay=-1.0)(test_refuses_misspelt_keywords_and_defaults)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_refuses_what_is_no_budget_and_no_image(attack, network, batch):
    images, labels = batch()
    for eps in (-0.1, 1.5, NAN, [[0.1]], [0.1, 2], [[0.1] * 3], [[0.1]] * 4, []):
        with pytest.raises(ValueError, match=r"^eps .* 4 images"):
            attack(network(), images, labels, torch.tensor(eps))
    for wrong in (images.numpy(), images.permute(0, 2, 3, 1), images[0], images.half()):
        with pytest.raises(ValueError, match=r"^images must be a torch tensor \(N, 3, H, W\)"):
            attack(network(), wrong, labels, 0.1)
    for value in (-1e-3, 255.0, NAN, INF):
        images[2, 1, 3, 4] = value
        with pytest.raises(ValueError, match=r"^images .*\[0, 1\]"):
            attack(network(), images, labels, 8 / 255)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_refuses_other_than_one_number_for_each_image(attack, network, batch):
    images, labels = batch()
    for words in (
        {"labels": labels[:1]},
        {"labels": labels.float()},
        {"true_labels": labels[None]},
        {"seeds": labels[:3]},
    ):
        with pytest.raises(ValueError, match=rf"^{next(iter(words))} .* 4 images"):
            attack(network(), images, eps=0.1, **{"labels": labels, **words})
    with pytest.raises(ValueError, match="max_batch"):
        attack(network(), images, labels, 0.1, max_batch=0)


def test_a_kernel_for_larger_images_is_warned_of_once(small, network, batch, caplog):
    images, labels = batch(height=33)
    for size in (5, 15, 15):
        src.attacks.ti(network(), images, labels, 0.1, kernel_size=size, steps=1)
    assert "kernel_size=15" in caplog.text and "33 pixels" in caplog.text
    assert "kernel_size=3." in caplog.text and len(caplog.records) == 1
