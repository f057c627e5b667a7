"""`attack.gradients`: a number of gradients per image for every attack, as counted."""

import re
from dataclasses import dataclass

import pytest

from src.attacks import attack
from src.config.attack_settings import AttackSettings
from src.config.errors import explain
from src.config.gradient_cost import TOLERANCE, at_cost
from src.config.read import crafted_keys
from src.config.settings import Settings
from src.images.attacker import CountedModel
from src.models import Ensemble
from src.run.check_job import attack_function
from tests.attacks.conftest import SECTIONS
from tests.config.test_settings import read

ONE_STEP = ("fgsm", "fgsm_l2", "llc", "rfgsm")
COARSE = ("decowa", "ops", "pgn", "vmi", "vni")
"""Attacks of two sources that cannot take 200, within 5 %."""


@pytest.fixture(scope="module")
def two_sources() -> Settings:
    return read("attack=mi", "source=[resnet50,vgg16]")


def settings_of(job: Settings, name: str, **keys) -> Settings:
    label = SECTIONS[name]["target_label"]
    fields = crafted_keys(name, SECTIONS[name] | {"target_label": label} | keys)
    return Settings(**dict(job) | {"attack": AttackSettings(**fields, label=name)})


@pytest.mark.few
def test_takes_the_gradients_that_are_asked_for(attack_name, two_sources, network, batch):
    wanted, words = 200, {"gradients": 200}
    if attack_name in ONE_STEP:
        with pytest.raises(ValueError, match="has a fixed number"):
            at_cost(settings_of(two_sources, attack_name, **words))
        return
    if attack_name in COARSE:
        with pytest.raises(ValueError, match="The nearest: ") as caught:
            at_cost(settings_of(two_sources, attack_name, **words))
        wanted = words["gradients"] = int(re.findall(r"(\d+) \(", str(caught.value))[0])
    job = at_cost(settings_of(two_sources, attack_name, **words))
    counted = CountedModel(Ensemble([network(0), network(1)], "loss"))
    targeted = job.attack.target_label is not None
    attack_function(job.attack)(counted, *batch(1), 8 / 255, targeted=targeted)
    assert abs(counted.counts.gradients - wanted) <= TOLERANCE * wanted
    assert f"{wanted} gradients" in job.attack.label and "steps" not in job.attack.label


@dataclass(frozen=True)
class Mirror:
    """A transform of one's own with copies."""

    copies: int = 2

    def __call__(self, images, random, copy):
        return images.flip(-1) if copy else images


@attack(transform=Mirror, transforms=(Mirror(3),), random_start="uniform", warm_up_steps=1)
def mirrored() -> None:
    """Copies of copies, after a warm-up from random starts."""


def plain(model, images, labels, eps, steps=10):
    return images


class Adapting(Mirror):
    def adapt(self, *_):
        """Take gradients that no rule counts."""


MIRROR = {"_target_": "tests.attacks.test_gradient_cost.Mirror", "_args_": [5]}
OWN = {"_target_": "tests.attacks.test_gradient_cost.mirrored"}


@pytest.mark.parametrize("keys", [OWN, OWN | {"transforms": [MIRROR]}, {"transforms": [MIRROR]}])
def test_copies_of_all_transforms_count(keys, two_sources, network, batch):
    job = at_cost(settings_of(two_sources, "mi", gradients=120, **keys))
    counted = CountedModel(Ensemble([network(0), network(1)], "loss"))
    attack_function(job.attack)(counted, *batch(1), 8 / 255)
    assert counted.counts.gradients == 120
    for name, words in (
        ("fia", {"transforms": [MIRROR]}),
        ("mi", {"transforms": [{"_target_": f"{__name__}.Adapting"}]}),
        ("mi", {"_target_": f"{__name__}.plain"}),
    ):
        with pytest.raises(ValueError, match=r"may multiply|no rule for its cost"):
            at_cost(settings_of(two_sources, name, gradients=120, **words))


REFUSED = {
    "attack.gradients=50 attack=vmi": "The nearest: 43 (attack.steps=3) or 64 (attack.steps=4)",
    "attack.gradients=10 attack=mi attack.steps=10": "sets attack.steps",
    "attack.gradients=90 attack=sia attack.copies=0": "copies: Input should be greater than 0",
    "attack.gradients=9 attack=none source=null": "attack.gradients needs an attack",
    "attack.gradients=5 attack=bim attack.random_start=uniform": "attack.random_start",
}


@pytest.mark.parametrize("words", REFUSED)
def test_refuses_numbers_of_gradients_in_a_sentence(words, two_sources):
    with pytest.raises(ValueError, match=re.escape(REFUSED[words])) as caught:
        read("source=resnet50", *words.split())
    assert explain(caught.value).count(". ") <= 1
    with pytest.raises(ValueError, match="attack=uap is fitted"):
        at_cost(settings_of(two_sources, "uap", gradients=200))


def test_draws_and_sources_count():
    assert read("attack=mi", "source=resnet50", "attack.gradients=1").attack.settings["steps"] == 1
    of_a_file = settings_of(read("attack=mi", "source=resnet50"), "mi", gradients=9, steps=20)
    assert at_cost(of_a_file).attack.settings["steps"] == 9  # typed steps are refused
    words = ("source_defence=random_resize_pad", "source_draws=4", "source=[resnet50,vgg16]")
    attack = read("attack=mi", "attack.decay=0.5", "attack.gradients=200", *words).attack
    assert attack.settings["steps"] == 25 and attack.label == "mi (200 gradients, decay=0.5)"
    ten = read("attack=sia", "source=resnet50", "attack.copies=10", "attack.gradients=100").attack
    assert ten.settings["steps"] == 10 and ten.label == "sia (100 gradients, copies=10)"
