"""What attacks refuse, with a sentence that names the key and the value."""

import re

import pytest
import torch
from torch import Tensor

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

NAN, INF = float("nan"), float("inf")
MEANINGLESS = [
    ([bim, pgd], "steps", [0, -1, 2.5, True, "3", None]),
    ([pgd], "restarts", [0, 1.5, False]),
    ([pgd], "random_start", ["normal"]),
    ([pgd], "start_radius", [-0.1, 1.1, NAN, None, True]),
    ([bim], "step_size_255", [0, -1, 256, NAN, INF, "1"]),
    ([bim], "relative_step_size", [0, -1, NAN, INF]),
    ([bim, fgsm], "norm", ["l1"]),
    ([bim, fgsm], "loss", ["mse"]),
    ([mi_fgsm], "lookahead", ["far"]),
    ([mi_fgsm], "decay", [-1, NAN, INF, None]),
    ([bim], "kernel_size", [-1, 2.5, True, 4]),
    ([bim], "max_batch", [0, -3, 1.5, True]),
    ([bim], "transforms", [[3], [torch.sin]]),
    ([emi_fgsm], "samples", [0, 1, 2.5]),
    ([vmi_fgsm, vni_fgsm], "neighbours", [0, 1.5, None]),
    ([emi_fgsm, vmi_fgsm, vni_fgsm], "radius", [-1, 1001, NAN]),
    ([rfgsm], "start_radius", [-0.1, 1, 2, NAN, "x", None]),
    ([di_fgsm], "probability", [1.5, -0.1, NAN, None]),
    ([di_fgsm], "resize_rate", [0.9, 4.5]),
    ([si_ni_fgsm, ssa_fgsm, bsr_fgsm, sia_fgsm], "copies", [0, -1, 2.0, True, None]),
    ([admix_fgsm], "scales", [0]),
    ([admix_fgsm], "admixed", [0, True]),
    ([admix_fgsm], "strength", [-0.1, 2]),
    ([ssa_fgsm], "rho", [2]),
    ([ssa_fgsm], "sigma_255", [256]),
    ([bsr_fgsm, sia_fgsm], "blocks", [0, "3", 13]),  # of images of 12 pixels
    ([bsr_fgsm], "max_angle", [181]),
]


@pytest.mark.parametrize(("attacks", "key", "values"), MEANINGLESS)
def test_refuses_values_without_a_meaning(attacks, key, values, network, batch):
    for attack in attacks:
        for value in values:
            shown = value[0] if isinstance(value, list) else value
            with pytest.raises(ValueError, match=rf"^(attack\.)?{key}\b.*{re.escape(str(shown))}"):
                attack(network(), *batch(), torch.tensor([1, 8]) / 255, **{key: value})


CONTRADICTIONS = [
    (bim, {"step_size_255": 1, "relative_step_size": 0.5}, "relative_step_size"),
    (bim, {"restarts": 2}, "restarts=2"),
    (pgd, {"restarts": 3, "random_start": None}, "restarts=3"),
    (pgd, {"norm": "l2", "random_start": "sign"}, "random_start=sign"),
    (rfgsm, {"norm": "l2"}, "random_start=sign"),
    (bim, {"step_size_255": 9}, "step_size_255=9"),  # longer than the largest budget
    (bim, {"relative_step_size": 1.5}, "relative_step_size=1.5"),
]


@pytest.mark.parametrize(("attack", "words", "named"), CONTRADICTIONS)
def test_refuses_values_that_do_not_go_together(attack, words, named, network, batch):
    with pytest.raises(ValueError, match=rf"attack\.{re.escape(named)}"):
        attack(network(), *batch(), torch.tensor([1, 8]) / 255, **words)


def test_own_budgets_do_not_allow_longer_relative_steps(network, batch):
    with pytest.raises(ValueError, match="relative_step_size=2"):
        iterate(network(), *batch(), torch.full((1, 4), 0.1), relative_step_size=2.0)


ALLOWED = [
    (bim, {"step_size_255": 8}),  # of the largest budget; longer than the smallest
    (bim, {"step_size_255": 9, "allow_overshoot": True}),
    (bim, {"relative_step_size": 1.0}),
    (bim, {"relative_step_size": 1.5, "allow_overshoot": True}),
    (pgd, {"restarts": 2, "random_start": "sign"}),
    (pgd, {"start_radius": 0}),
    (pgd, {"steps": 1}),
    (rfgsm, {"start_radius": 0.99}),
    (bim, {"kernel_size": 1, "max_batch": 1, "decay": 5, "transforms": None}),
]


@pytest.mark.parametrize(("attack", "words"), ALLOWED)
def test_allows(attack, words, network, batch):
    assert attack(network(), *batch(), torch.tensor([1, 8]) / 255, **words).isfinite().all()


def test_a_long_step_is_none_where_every_budget_is_zero(network, batch):
    images, labels = batch()
    result = bim(network(), images, labels, torch.zeros(2), step_size_255=5)
    assert torch.equal(result, images.expand_as(result))


SCHEDULE = (
    *("steps", "step_size_255", "relative_step_size", "allow_overshoot"),
    *("random_start", "start_radius", "restarts"),
)
NOT_TAKEN = [
    *((fgsm, key) for key in SCHEDULE),
    *((rfgsm, key) for key in SCHEDULE if key != "start_radius"),
    *((attack, "stepz") for attack in (iterate, bim, pgd, vni_fgsm)),
    (vmi_fgsm, "estimator"),
]


@pytest.mark.parametrize(("attack", "key"), NOT_TAKEN)
def test_refuses_settings_that_it_does_not_have(attack, key, network, batch):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{key}'"):
        attack(network(), *batch(), 0.1, **{key: 1})


@pytest.mark.parametrize("eps", [-0.1, 1.5, NAN, INF, [[0.1]], [0.1, 2], [[0.1] * 3], [[0.1]] * 4])
@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_refuses_a_budget_that_is_none(attack, eps, network, batch):
    with pytest.raises(ValueError, match=r"^eps must be .* 4 images"):
        attack(network(), *batch(), torch.tensor(eps))


@pytest.mark.parametrize("value", [-1e-3, 1.001, 255.0, NAN, INF, -INF])
@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_refuses_what_is_no_image(attack, value, network, batch):
    images, labels = batch()
    images[2, 1, 3, 4] = value
    with pytest.raises(ValueError, match=r"^images must hold numbers in \[0, 1\]"):
        attack(network(), images, labels, 8 / 255)


@pytest.mark.parametrize(("classes", "targeted"), [(2, False), (2, True), (3, True)])
def test_dlr_refuses_too_few_classes(classes, targeted):
    def model(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :classes]

    images, labels = torch.rand(1, 3, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match=rf"^attack\.loss=dlr .* not {classes}\."):
        fgsm(model, images, labels, 0.1, loss="dlr", targeted=targeted)


# As a config section


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("bim", "steps", 0),
        ("emi", "samples", 1),
        ("vmi", "neighbours", 0),
        ("admix", "strength", 2),
        ("pgd", "step_size_255", 9),
        ("di", "transforms", [3]),
        ("mi", "transforms", [{"_target_": "src.attacks.DiverseInput", "probability": 3}]),
    ],
)
def test_a_config_passes_the_refusal_on(name, key, value, read):
    named = "probability" if isinstance(value, list) and value != [3] else key
    with pytest.raises(ValueError, match=rf"attack\.{named}"):
        read(name, **{key: value})


def test_every_config_refuses_keys_that_its_attack_does_not_have(attack_name, read):
    with pytest.raises(ValueError, match=rf"{attack_name}\b.* attack\.nonsense\b"):
        read(attack_name, nonsense=3)


@pytest.mark.parametrize(
    ("name", "key"), [("fgsm", "steps"), ("rfgsm", "steps"), ("llc", "decays")]
)
def test_attacks_of_one_step_refuse_the_keys_of_several(name, key, read):
    with pytest.raises(ValueError, match=rf"attack\.{key}\b"):
        read(name, **{key: 20})
