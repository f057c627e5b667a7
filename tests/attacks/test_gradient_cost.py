"""`attack.gradients`: a number of gradients per image for every attack, as counted."""

import re

import pytest

from src.api.transfer import transfer
from src.config.attack_settings import AttackSettings
from src.config.gradient_cost import COPIES, TOLERANCE, at_cost
from src.config.read import crafted_keys
from src.config.settings import Settings
from src.images.attacker import CountedModel
from src.models import Ensemble
from src.run.check_job import attack_function
from tests.attacks.conftest import FITTED, SECTIONS
from tests.config.test_settings import read

ONE_STEP = ("fgsm", "fgsm_l2", "llc", "rfgsm")
DEFAULT_AND_COST = {"gradients": 7, "steps": 10}
COARSE = {
    *[(name, "steps", 200) for name in ("decowa", "pgn", "vmi", "vni")],
    *[("gra", "steps", 399), ("s4st", "copies", 200), ("s4st", "copies", 399)],
    *[("ops", "steps", 200), ("ops", "steps", 399)],
}
"""Attacks of two sources that cannot take as many, within 5 %, by steps or by copies."""


@pytest.fixture(scope="module")
def two_sources() -> Settings:
    return read("attack=mi", "source=[resnet50,vgg16]")


def settings_of(job: Settings, name: str, **keys) -> Settings:
    label = SECTIONS[name]["target_label"]
    fields = crafted_keys(name, SECTIONS[name] | {"target_label": label} | keys)
    return Settings(**dict(job) | {"attack": AttackSettings(**fields, label=name)})


@pytest.mark.few
@pytest.mark.parametrize("wanted", [200, pytest.param(399, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spend", ["steps", "copies"])
def test_every_attack_takes_the_gradients_that_are_asked_for(
    attack_name, spend, wanted, two_sources, network, batch
):
    words = {"gradients": wanted, "spend": spend}
    has_copies = not SECTIONS[attack_name].keys().isdisjoint(COPIES)
    if attack_name in ONE_STEP or (spend == "copies" and not has_copies):
        with pytest.raises(ValueError, match=r"has a fixed number|has none"):
            at_cost(settings_of(two_sources, attack_name, **words))
        return
    if (attack_name, spend, wanted) in COARSE:
        with pytest.raises(ValueError, match="The nearest: ") as caught:
            at_cost(settings_of(two_sources, attack_name, **words))
        wanted = words["gradients"] = int(re.findall(r"(\d+) \(", str(caught.value))[0])
    job = at_cost(settings_of(two_sources, attack_name, **words))
    counted = CountedModel(Ensemble([network(0), network(1)], "loss"))
    targeted = job.attack.target_label is not None
    attack_function(job.attack)(counted, *batch(1), 8 / 255, targeted=targeted)
    assert abs(counted.counts.gradients - wanted) <= TOLERANCE * wanted
    assert f"{wanted} gradients" in job.attack.label and "steps" not in job.attack.label


@pytest.mark.parametrize("name", FITTED)
def test_fitted_attacks_refuse_a_number_of_gradients(name, two_sources):
    with pytest.raises(ValueError, match=f"attack={name} is fitted"):
        at_cost(settings_of(two_sources, name, gradients=200))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("gradients=7", "=sia"), "The nearest: 20 (attack.steps=1)"),
        (("gradients=50", "=vmi"), "The nearest: 43 (attack.steps=3) or 64 (attack.steps=4)"),
        (("gradients=10", "=mi", "steps=10"), "sets attack.steps"),
        (("spend=copies", "=sia"), "needs attack.gradients"),
        (("gradients=0", "=mi"), "greater than 0"),
        (("gradients=many", "=mi"), "valid number"),
        (("gradients=5", "=mi", "spend=time"), "attack.spend=time"),
        (("gradients=5", "=bim", "random_start=uniform"), "attack.random_start"),
    ],
)
def test_refuses_numbers_of_gradients_in_a_sentence(words, named):
    typed = [f"attack{word}" if word[0] == "=" else f"attack.{word}" for word in words]
    with pytest.raises(ValueError, match=re.escape(named)) as caught:
        read("source=resnet50", *typed)
    assert str(caught.value).count(". ") <= 1


def test_draws_and_sources_count(two_sources):
    assert read("attack=mi", "source=resnet50", "attack.gradients=1").attack.settings["steps"] == 1
    words = ("source_defence=random_resize_pad", "source_draws=4", "source=[resnet50,vgg16]")
    attack = read("attack=mi", "attack.decay=0.5", "attack.gradients=200", *words).attack
    assert attack.settings["steps"] == 25 and attack.label == "mi (200 gradients, decay=0.5)"
    million = read("attack=mi", "source=resnet50", "attack.gradients=1000000").attack
    assert million.label == "mi (1000000 gradients)"


def test_transfer_takes_a_number_of_gradients(network, batch):
    images, labels = batch()
    models = {"a": network(0), "b": network(1)}
    words = {"attacks": {"mi": {"gradients": 7}}, "eps": 8 / 255, "protocol": "all"}
    results = transfer(models, models, images, labels, **words)
    assert {job.record.label for job in results.jobs} == {"mi (7 gradients)"}
    assert {job.record.config["attack"]["settings"]["steps"] for job in results.jobs} == {7}
    assert {job.record.gradients for job in results.jobs} == {7 * len(images)}
    with pytest.raises(ValueError, match=r"sets attack\.steps"):  # also if it is the default
        transfer(models, models, images, labels, **words | {"attacks": {"mi": DEFAULT_AND_COST}})
