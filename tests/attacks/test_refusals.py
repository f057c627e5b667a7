"""What attacks refuse, each in one sentence that names the key, the value and what is allowed."""

import re
from functools import partial

import pytest
import torch
from torch import Tensor

from src.attacks import bim, emi_fgsm, fgsm, iterate, mi_fgsm, pgd, rfgsm, vmi_fgsm, vni_fgsm
from src.config.attack import read_attack

NAN, INF = float("nan"), float("inf")
WHOLE = "must be a whole number of at least"
SCHEDULE = {
    "steps": 20,
    "step_size_255": 1,
    "relative_step_size": 0.1,
    "allow_overshoot": True,
    "random_start": "uniform",
    "start_radius": 0.5,
    "restarts": 2,
}
"""What an attack of several steps may be given."""


def rows():
    for steps in (0, -1, 2.5, True, "3", None):
        yield bim, {"steps": steps}, f"attack.steps {WHOLE} 1, not {steps}."
    for value in (0, 1.5, False):
        yield pgd, {"restarts": value}, f"attack.restarts {WHOLE} 1, not {value}."
    yield (
        pgd,
        {"random_start": "normal"},
        "attack.random_start=normal is not one of null, uniform, sign.",
    )
    for value in (-0.1, 1.1, NAN, None, True):
        yield (
            pgd,
            {"start_radius": value},
            f"attack.start_radius must be a number in [0, 1], not {value}.",
        )
    for value in (0, -1, 256, NAN, INF, "1"):
        yield (
            bim,
            {"step_size_255": value},
            f"attack.step_size_255 must be a number in (0, 255], not {value}.",
        )
    for value in (0, -1, NAN, INF):
        yield (
            bim,
            {"relative_step_size": value},
            f"attack.relative_step_size must be a number in (0, inf], not {value}.",
        )
    yield (
        bim,
        {"step_size_255": 1, "relative_step_size": 0.5},
        "attack.step_size_255 and attack.relative_step_size are both set; set one of them.",
    )
    yield (
        bim,
        {"restarts": 2},
        "attack.restarts=2 repeats one walk; set attack.random_start to uniform or sign.",
    )
    yield (
        pgd,
        {"restarts": 3, "random_start": None},
        "attack.restarts=3 repeats one walk; set attack.random_start to uniform or sign.",
    )
    yield bim, {"norm": "l1"}, "attack.norm=l1 is not one of linf, l2."
    for attack in (partial(pgd, random_start="sign"), rfgsm):
        yield (
            attack,
            {"norm": "l2"},
            "attack.random_start=sign belongs to attack.norm=linf; use uniform.",
        )
    long = "set attack.allow_overshoot=true if that is meant."
    yield (
        bim,
        {"step_size_255": 9},
        f"attack.step_size_255=9 is longer than the largest budget, 8; {long}",
    )
    yield (
        bim,
        {"relative_step_size": 1.5},
        f"attack.relative_step_size=1.5 is longer than the budget; {long}",
    )
    yield (
        bim,
        {"loss": "mse"},
        "attack.loss=mse is not one of cross_entropy, logit, margin, dlr.",
    )
    yield (
        mi_fgsm,
        {"lookahead": "far"},
        "attack.lookahead=far is not one of null, momentum, gradient.",
    )
    for value in (-1, NAN, INF, None):
        yield mi_fgsm, {"decay": value}, f"attack.decay must be a number in [0, inf], not {value}."
    for value in (-1, 2.5, True):
        yield bim, {"kernel_size": value}, f"attack.kernel_size {WHOLE} 0, not {value}."
    yield bim, {"kernel_size": 4}, "attack.kernel_size must be odd, or 0 for none, not 4."
    for value in (0, -3, 1.5, True):
        yield bim, {"max_batch": value}, f"max_batch {WHOLE} 1, not {value}."
    for value in (0, 1, 2.5):
        yield emi_fgsm, {"samples": value}, f"attack.samples {WHOLE} 2, not {value}."
    for value in (0, 1.5, None):
        for attack in (vmi_fgsm, vni_fgsm):
            yield attack, {"neighbours": value}, f"attack.neighbours {WHOLE} 1, not {value}."
    for value in (-1, 1001, NAN):
        for attack in (emi_fgsm, vmi_fgsm, vni_fgsm):
            message = f"attack.radius must be a number in [0, 1000], not {value}."
            yield attack, {"radius": value}, message
    for value in (-0.1, 1, 2, NAN, "x", None):
        message = f"attack.start_radius must be a number in [0, 1), not {value}."
        yield rfgsm, {"start_radius": value}, message
    for attack, name in ((fgsm, "fgsm"), (rfgsm, "rfgsm")):
        for key, value in SCHEDULE.items():
            if (name, key) != ("rfgsm", "start_radius"):
                message = (
                    f"attack.{key} is no setting of {name}, which takes one step; bim and pgd take "
                    "several."
                )
                yield attack, {key: value}, message


@pytest.mark.parametrize(("attack", "words", "message"), list(rows()))
def test_refuses(attack, words, message, network, batch):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        attack(network(), *batch(), torch.tensor([1, 8]) / 255, **words)


@pytest.mark.parametrize("eps", [-0.1, 1.5, NAN, INF, [[0.1]], [0.1, 2]])
@pytest.mark.parametrize("attack", [fgsm, bim, pgd, vmi_fgsm])
def test_refuses_a_budget_that_is_none(attack, eps, network, batch):
    with pytest.raises(ValueError, match=r"^eps must be one number or a list of numbers in"):
        attack(network(), *batch(), eps)


def test_refuses_unknown_words(network, batch):
    with pytest.raises(TypeError, match="unexpected keyword argument 'stepz'"):
        iterate(network(), *batch(), 0.1, stepz=3)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (bim, {"step_size_255": 8}),  # of the largest budget; longer than the smallest
        (bim, {"step_size_255": 9, "allow_overshoot": True}),
        (bim, {"relative_step_size": 1.0}),
        (bim, {"relative_step_size": 1.5, "allow_overshoot": True}),
        (pgd, {"restarts": 2, "random_start": "sign"}),
        (pgd, {"start_radius": 0}),
        (pgd, {"steps": 1}),
        (rfgsm, {"start_radius": 0.99}),
        (bim, {"kernel_size": 1, "max_batch": 1, "decay": 5}),
    ],
)
def test_allows(attack, words, network, batch):
    assert attack(network(), *batch(), torch.tensor([1, 8]) / 255, **words).isfinite().all()


def test_a_long_step_is_none_where_every_budget_is_zero(network, batch):
    images, labels = batch()
    result = bim(network(), images, labels, torch.zeros(2), step_size_255=5)
    assert torch.equal(result, images.expand_as(result))


# As a config section


def test_every_config_refuses_keys_that_its_attack_does_not_have(attack_name, read):
    message = rf"^attack={attack_name}: it has no key attack\.nonsense\.$"
    with pytest.raises(ValueError, match=message):
        read(attack_name, nonsense=3)


def test_every_config_refuses_other_aims_and_norms(attack_name, read):
    message = "attack.target_label=cat is not one of null, data, least_likely, random, next."
    with pytest.raises(ValueError, match=re.escape(message)):
        read(attack_name, target_label="cat")
    with pytest.raises(ValueError, match=re.escape("attack.norm=l0 is not one of linf, l2.")):
        read(attack_name, norm="l0")


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("bim", "steps", 0, f"attack=bim: attack.steps {WHOLE} 1, not 0."),
        ("bim", "step_size_255", 9, "attack=bim: attack.step_size_255=9 is longer than the"),
        ("mi", "restarts", 2, "attack=mi: attack.restarts=2 repeats one walk"),
        ("fgsm", "loss", "l1", "attack=fgsm: attack.loss=l1 is not one of cross_entropy"),
        ("emi", "samples", 1, f"attack=emi: attack.samples {WHOLE} 2, not 1."),
        ("ti", "kernel_size", 14, "attack=ti: attack.kernel_size must be odd"),
        ("vmi", "neighbours", 0, f"attack=vmi: attack.neighbours {WHOLE} 1, not 0."),
        ("si_ni", "copies", 0, f"attack=si_ni: attack.copies {WHOLE} 1, not 0."),
        ("admix", "strength", 2, "attack=admix: attack.strength must be a number in [0, 1]"),
        ("rfgsm", "norm", "l2", "attack=rfgsm: attack.random_start=sign belongs to"),
        ("rfgsm", "steps", 20, "attack=rfgsm: attack.steps is no setting of rfgsm"),
        ("fgsm", "steps", 20, "attack=fgsm: attack.steps is no setting of fgsm"),
        ("llc", "random_start", "uniform", "attack=llc: attack.random_start is no setting of fgsm"),
        ("di", "transforms", [3], "attack=di: "),
    ],
)
def test_a_config_passes_the_refusal_on(name, key, value, message, read):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read(name, **{key: value})


def test_refusals_of_a_configured_transform_name_the_attack(read):
    transform = {"_target_": "src.attacks.DiverseInput", "probability": 3}
    with pytest.raises(ValueError, match=r"^attack=mi: attack.probability must be a number in"):
        read("mi", transforms=[transform])


def unaimed(model, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
    """An attack of a user's own that only goes away from the label."""
    return fgsm(model, images, labels, eps)


def single(model, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
    return images


def broken(model, images: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
    raise RuntimeError("first line\nsecond line")


def _sections(monkeypatch, function):
    import src.attacks

    monkeypatch.setattr(src.attacks, "mine", function, raising=False)
    return {"name": "mine", "_target_": "src.attacks.mine"}


def test_an_attack_of_ones_own_needs_nothing_but_four_arguments(monkeypatch):
    section = _sections(monkeypatch, unaimed)
    attack = read_attack(section, [1, 8])
    assert attack.aim is None and attack.norm == "linf" and attack.name == "mine"


@pytest.mark.parametrize("aim", ["data", "least_likely", "random", "next"])
def test_an_attack_without_targeted_cannot_be_aimed(monkeypatch, aim):
    section = {**_sections(monkeypatch, unaimed), "target_label": aim}
    message = (
        f"attack=mine cannot aim for attack.target_label={aim}: its function has no argument "
        "`targeted`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_attack(section, [1, 8])


def test_an_attack_must_return_images_for_every_budget(monkeypatch):
    message = "attack=mine returns (2, 3, 64, 64) for 2 budgets and images of shape"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_attack(_sections(monkeypatch, single), [1, 8])


def test_an_attack_that_raises_is_named(monkeypatch):
    with pytest.raises(ValueError, match=r"^attack=mine: first line$"):
        read_attack(_sections(monkeypatch, broken), [1, 8])


def test_an_attack_that_cannot_be_imported_is_named():
    with pytest.raises(ValueError, match=r"^attack=x: its _target_ no\.such cannot be imported"):
        read_attack({"name": "x", "_target_": "no.such"}, [1])
