"""What attacks refuse, naming the key and the value."""

import re

import pytest
import torch

import src.attacks
from src.attacks import (
    admix_fgsm,
    bim,
    bsr_fgsm,
    di_fgsm,
    emi_fgsm,
    fgsm,
    iterate,
    mi_fgsm,
    pgd,
    rfgsm,
    si_ni_fgsm,
    sia_fgsm,
    ssa_fgsm,
    vmi_fgsm,
    vni_fgsm,
)
from src.evaluation.configured_attack import try_attack

NAN, INF = float("nan"), float("inf")
MEANINGLESS = [
    ([bim, pgd], "steps", [0, -1, 2.5, True, "3", None]),
    ([pgd], "restarts", [0, 1.5, False]),
    ([pgd], "random_start", ["normal"]),
    ([pgd], "start_radius", [-0.1, 1.1, NAN, None, True, "x"]),
    ([bim], "step_size_255", [0, -1, 256, NAN, INF, "1"]),
    ([bim], "relative_step_size", [0, -1, NAN, INF]),
    ([bim, fgsm], "norm", ["l1"]),
    ([bim, fgsm], "loss", ["mse"]),
    ([mi_fgsm], "lookahead", ["far"]),
    ([mi_fgsm], "decay", [-1, NAN, INF, None]),
    ([bim], "kernel_size", [-1, 2.5, True, 4]),
    ([bim], "transforms", [[3], [torch.sin]]),
    ([emi_fgsm], "samples", [0, 1, 2.5]),
    ([vmi_fgsm, vni_fgsm], "neighbours", [0, 1.5, None]),
    ([emi_fgsm, vmi_fgsm, vni_fgsm], "radius", [-1, INF, NAN]),
    ([di_fgsm], "probability", [1.5, -0.1, NAN, None]),
    ([di_fgsm], "resize_rate", [0.9, 4.5]),
    ([si_ni_fgsm, ssa_fgsm, bsr_fgsm, sia_fgsm], "copies", [0, -1, 2.0, True, None]),
    ([admix_fgsm], "scales", [0]),
    ([admix_fgsm], "strength", [-0.1, 2]),
    ([ssa_fgsm], "sigma_255", [256]),
    ([bsr_fgsm, sia_fgsm], "blocks", [0, "3"]),
    ([bsr_fgsm], "max_angle", [181]),
]


def test_refuses_values_without_a_meaning(network, batch):
    for attacks, key, values in MEANINGLESS:
        for attack in attacks:
            for value in values:
                with pytest.raises(ValueError, match=f"^{key}") as caught:
                    attack(network(), *batch(), 0.1, **{key: value})
                assert "\n" not in str(caught.value)


CONTRADICTIONS = [
    (bim, {"restarts": 2}, "restarts=2"),
    (bim, {"step_size_255": 9}, "step_size_255=9"),  # longer than the largest budget
    (pgd, {"restarts": 3, "random_start": None}, "restarts=3"),
    (pgd, {"norm": "l2", "random_start": "sign"}, "random_start=sign"),
    (rfgsm, {"norm": "l2"}, "random_start=sign"),
    (rfgsm, {"relative_step_size": 1.5}, "relative_step_size=1.5"),
    (bsr_fgsm, {"blocks": 13}, "blocks=13"),  # of images of 12 pixels
]


@pytest.mark.parametrize(("attack", "words", "named"), CONTRADICTIONS)
def test_refuses_values_that_do_not_go_together(attack, words, named, network, batch):
    with pytest.raises(ValueError, match=named):
        attack(network(), *batch(), torch.tensor([1, 8]) / 255, **words)


def test_steps_may_be_as_long_as_the_largest_budget_or_longer_where_that_is_meant(network, batch):
    eps = torch.tensor([1, 8]) / 255
    for words in ({"step_size_255": 8}, {"step_size_255": 9, "allow_overshoot": True}):
        assert bim(network(), *batch(), eps, **words).isfinite().all()


NOT_TAKEN = [
    *((fgsm, key) for key in ("steps", "step_size_255", "random_start", "restarts")),
    *((attack, "stepz") for attack in (iterate, bim, pgd, vni_fgsm)),
    (vmi_fgsm, "estimator"),
]


def test_refuses_settings_that_it_does_not_have(network, batch):
    for attack, key in NOT_TAKEN:
        with pytest.raises(TypeError, match=key):
            attack(network(), *batch(), 0.1, **{key: 1})


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_refuses_what_is_no_budget_and_no_image(attack, network, batch):
    images, labels = batch()
    for eps in (-0.1, 1.5, NAN, INF, [[0.1]], [0.1, 2], [[0.1] * 3], [[0.1]] * 4, []):
        with pytest.raises(ValueError, match=r"^eps .* 4 images"):
            attack(network(), images, labels, torch.tensor(eps))
    for value in (-1e-3, 1.001, 255.0, NAN, INF, -INF):
        images[2, 1, 3, 4] = value
        with pytest.raises(ValueError, match=r"^images .*\[0, 1\]"):
            attack(network(), images, labels, 8 / 255)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_refuses_other_than_one_number_for_each_image(attack, network, batch):
    images, labels = batch()
    for words in ({"labels": labels[:1]}, {"true_labels": labels[None]}, {"seeds": labels[:3]}):
        given = {"labels": labels, "targeted": "true_labels" in words, **words}
        with pytest.raises(ValueError, match=rf"^{next(iter(words))} .* 4 images"):
            attack(network(), images, eps=0.1, **given)
    with pytest.raises(ValueError, match="max_batch"):
        attack(network(), images, labels, 0.1, max_batch=0)
    for wrong, named in ((labels.float(), "labels .*float32"), (labels + 10**6, "labels .* 0 to")):
        with pytest.raises(ValueError, match=named):
            attack(network(), images, wrong, 0.1)
    for pixels in (images.numpy(), images.permute(0, 2, 3, 1), images[0]):
        with pytest.raises(ValueError, match=r"^images must be a torch tensor \(N, 3, H, W\)"):
            attack(network(), pixels, labels, 0.1)


def test_foreign_words_are_told_in_those_of_this_program(network, batch):
    with pytest.raises(TypeError, match=r"alpha.*step_size_255"):
        bim(network(), *batch(), 0.1, alpha=0.01)
    for name, own in (("mi", "mi_fgsm"), ("pi_pregradient", "pi_fgsm"), ("pgd_l2", "pgd")):
        with pytest.raises(AttributeError, match=own):
            getattr(src.attacks, name)


def test_refuses_inference_mode_which_has_no_gradients(network, batch):
    images, labels = batch()
    with torch.inference_mode():
        made = images.clone()
        with pytest.raises(ValueError, match="inference_mode"):
            fgsm(network(), images, labels, 0.1)
    with pytest.raises(ValueError, match="clone"):
        fgsm(network(), made, labels, 0.1)


DIVERSE = {"_target_": "src.attacks.DiverseInput"}
IN_A_CONFIG = [
    ("bim", {"steps": 0}, "attack.steps=0"),
    ("emi", {"samples": 1}, "attack.samples=1"),
    ("admix", {"strength": 2}, "attack.strength=2"),
    ("ti", {"kernel_size": 4}, "attack.kernel_size: 4"),
    ("di", {"transforms": [3]}, "attack.transforms=3"),
    ("mi", {"transforms": [DIVERSE | {"probability": 3}]}, "attack.probability=3"),
    ("mi", {"transforms": [DIVERSE | {"chance": 0.5}]}, "attack.chance"),
]


def test_a_config_passes_the_refusal_on_in_a_sentence(section):
    for name, changes, named in IN_A_CONFIG:
        with pytest.raises(ValueError, match=re.escape(named)) as caught:
            try_attack(section(name, **changes), (1.0, 8.0))
        assert "\n" not in str(caught.value)
