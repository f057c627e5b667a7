"""Invariants of every attack: one table for all files of `conf/attack/`."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor, nn

from src.attacks import PerImageRandom, Philox
from src.attacks.loop import ascend
from src.attacks.parts import stateful
from src.config.attack_settings import AttackSettings
from src.images.attacker import CountedModel
from tests.nondeterministic import refuse_nondeterministic

EPS = torch.tensor([0.25, 8, 64]) / 255
WITH_ZERO = torch.tensor([0.25, 8, 64, 0], dtype=torch.float64) / 255
SEEDS = torch.tensor([5, 17, 3, 1000])


def gradients(k: int, keys: Mapping[str, Any], members: int = 1) -> float:
    """Gradients an image takes of each source for k budgets, by the attack's own statement."""
    settings = AttackSettings(name="any", label="", about=keys["about"], settings=keys)
    return settings.gradients(k, members)


def forwards(k: int, keys: Mapping[str, Any]) -> int:
    """Passes an image takes besides."""
    function = get_object(keys["_target_"])
    defaults = {key: word.default for key, word in inspect.signature(function).parameters.items()}
    count = function.counts.get("forwards", lambda numbers: 0)
    return count(SimpleNamespace(**defaults | keys, budgets=k))


def attacked(attack: Any, model: Any, images, labels, eps, pool=None, **words: Any) -> Tensor:
    """Return adversarial images; targeted attacks take the class after the true one."""
    targeted = attack.settings["target_label"] is not None
    goal = (labels + 1) % 5 if targeted else labels
    words = {"seeds": SEEDS[: len(images)], **words}
    return attack.function(model, images, goal, eps, targeted=targeted, pool=pool, **words)


def in_float64(batch) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    images, labels = batch()
    others, classes = batch(6, seed=2)
    return images.double(), labels, (others.double(), classes)


def test_stays_in_the_ball_and_budgets_batches_and_order_do_not_matter(
    attack_name, norm, small, network, batch
):
    images, labels, pool = in_float64(batch)
    attack, model = small(attack_name, norm=norm), network().double()

    def run(rows: Any, budgets: Tensor = WITH_ZERO, **words: Any) -> Tensor:
        words["seeds"] = SEEDS[rows]
        return attacked(attack, model, images[rows], labels[rows], budgets, pool, **words)

    whole = run(slice(None))
    assert whole.shape == (4, *images.shape) and whole.dtype == images.dtype
    change = (whole - images).flatten(2)
    size = change.abs().amax(2) if norm == "linf" else change.square().mean(2).sqrt()
    assert (size <= WITH_ZERO[:, None] + 1e-12).all(), "outside the ball"
    assert (size >= 0.2 * WITH_ZERO[:, None]).all(), "hardly changed"
    assert whole.min() >= 0 and whole.max() <= 1, "outside the pixel range"
    assert torch.equal(whole[3], images), "a budget of 0 changes something"
    order, four = torch.tensor([2, 0, 3, 1]), torch.arange(4)
    own = run(slice(None), WITH_ZERO[(four[:, None] + four) % 4])  # other budgets for each image
    again = {
        "each budget alone": torch.stack([run(slice(None), budget) for budget in WITH_ZERO]),
        "own budgets": own[(four[:, None] - four) % 4, four],
        "two parts": torch.cat([run(slice(0, 1)), run(slice(1, None))], dim=1),
        "order": run(order)[:, order.argsort()],
        "max_batch=7": run(slice(None), max_batch=7),
    }
    for case, result in again.items():
        torch.testing.assert_close(result, whole, atol=1e-12, rtol=0, msg=lambda m, c=case: c + m)


def test_leaves_everything_as_it_was_and_draws_by_the_seeds_alone(
    attack_name, small, source, batch, monkeypatch
):
    images, labels = batch()
    pool = batch(6, seed=2)
    attack, model, drawn = small(attack_name), source("loss"), []
    expected = attacked(attack, CountedModel(source("loss")), images, labels, EPS, pool)
    model.train()
    next(m for m in model.modules() if isinstance(m, nn.Flatten)).eval()  # an odd mixture
    given = (images, labels, *pool, EPS, SEEDS)
    before = [tensor.clone() for tensor in given]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(99)  # the global generator has no say
    random = torch.get_rng_state()
    with torch.no_grad():  # gradients are taken all the same
        result = attacked(attack, CountedModel(model), images, labels, EPS, pool)
        assert not torch.is_grad_enabled()
    assert torch.equal(result, expected), "as in evaluation mode, and once more"
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, given, before))
    assert not any(tensor.requires_grad for tensor in (result, *given))
    for kind in ("uniform", "normal", "integers", "permutations"):

        def draw(random: Philox, *words: Any, kind: str = kind, **more: Any) -> Tensor:
            drawn.append(kind)
            return getattr(Philox, kind)(random, *words, **more)

        monkeypatch.setattr(PerImageRandom, kind, draw)
    given = (CountedModel(model), images, labels, EPS, pool)
    other = attacked(attack, *given, seeds=SEEDS + 1)
    assert torch.equal(result, other) == (not drawn), f"other seeds, {drawn=}"


def test_untargeted_raises_the_loss_and_targeted_lowers_that_of_the_target(
    attack_name, small, source, batch
):
    images, labels = batch(6)
    for kind, aim in (("logits", None), ("probabilities", "next")):
        attack, model = small(attack_name, target_label=aim), source(kind)
        given = (CountedModel(model), images, labels, 8 / 255)
        result = attacked(attack, *given, seeds=torch.arange(6))
        classes = labels if aim is None else (labels + 1) % 5
        before, after = (nn.functional.cross_entropy(model(x), classes) for x in (images, result))
        assert after > before + 0.01 if aim is None else after < before - 0.01, aim


def test_takes_the_stated_gradients_deterministically_in_batches_as_large_as_allowed(
    attack_name, small, source, batch
):
    attack, seen = small(attack_name), []
    for kind, members, k in (("single", 1, 1), ("loss", 2, 3)):
        counted = CountedModel(source(kind))
        with refuse_nondeterministic():  # operators that a GPU computes differently in each run
            attacked(attack, counted, *batch(2, 8), EPS[:k])
        taken, besides = gradients(k, attack.settings, members), forwards(k, attack.settings)
        assert counted.counts.gradients == 2 * members * taken
        assert counted.counts.forwards == 2 * members * (taken + besides)
        assert int(counted.counts.zeros) == 0 and not counted.counts.not_finite.any()
    parts = CountedModel(source(kind))  # budgets in several batches share no first gradient
    parts.model.members[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    attacked(attack, parts, *batch(2, 8), EPS, max_batch=2)
    alone = k * gradients(1, attack.settings, members)
    assert taken <= parts.counts.gradients / 2 / members <= alone
    assert min(seen) > 0 and max(seen) <= 2


class Behind(nn.Module):
    """A network behind the identity, with other derivatives at black and at white than 1."""

    def __init__(self, network: nn.Module, black: float, white: float) -> None:
        super().__init__()
        self.network, self.black, self.white = network, black, white

    def forward(self, images: Tensor) -> Tensor:
        behind, inside = images.clone(), (images > 0) & (images < 1)
        edges = torch.where(images == 0, self.black, self.white)
        if behind.requires_grad:
            behind.register_hook(lambda gradient: torch.where(inside, gradient, edges))
        return self.network(behind)


def test_zero_gradients_are_counted_and_nan_and_infinity_count_as_zero(
    attack_name, small, network, batch
):
    """Called directly and as a job calls it, other values are attacked as if those had none."""
    attack, model, (images, labels) = small(attack_name), network(), batch(3, 8)
    images[0].clamp_(0.3, 0.7)
    given = (images, labels, EPS[:2])
    expected = attacked(attack, Behind(model, 0.0, 0.0), *given, max_batch=3)
    broken = Behind(model, torch.nan, -torch.inf)
    for each in (broken, CountedModel(broken)):
        assert torch.equal(attacked(attack, each, *given, max_batch=3), expected)
    model[-1].weight.data.zero_()  # constant logits
    counted = CountedModel(model)
    result = attacked(attack, counted, *given)
    assert result.isfinite().all()
    start = inspect.signature(attack.function).parameters.get("random_start")
    still = start is None or start.default is None
    assert torch.equal(result, images.expand_as(result)) == still
    versions = sum(attack.settings.get(key, 0) for key in ("masks", "points"))
    at_layer = (versions + (attack_name == "att")) * len(images)  # not at the pixels
    assert int(counted.counts.zeros) == counted.counts.gradients - at_layer > 0


def test_extreme_gradients_give_finite_images(small, network, batch):
    images, labels = batch()
    model = network()
    for scale in (1e-30, 1e12):
        for name in ("mi", "emi", "vmi", "pgd_l2"):
            given = (lambda x, scale=scale: model(x) * scale, images, labels, EPS)
            result = attacked(small(name), *given)
            assert result.isfinite().all() and not torch.equal(result[2], images)


class Alike:
    """An estimator that begins each start with the same random numbers."""

    def __init__(self, part: Any) -> None:
        self.part = stateful(part)

    def init(self, problem):
        self.first, problem.random.count, problem.random.shared.count = True, 100, 100
        return self.part.init(problem)

    def step(self, gradient, state, memory):
        if self.first:
            gradient(state.at)  # an objective draws before its first gradient
            state.random.count = state.random.shared.count = 1000
        self.first = False
        return self.part.step(gradient, state, memory)


def test_a_warm_up_leaves_its_momentum_and_nothing_else(attack_name, small, network, batch):
    """Where the momentum does not count, a run after a warm-up is one without it."""
    for changes in ({}, {"step_rule": "mdcs"}) if attack_name == "mi" else ({},):
        attack, given = small(attack_name, **changes), (*batch(), 8 / 255)
        settings = attack.function.func.check(dict(attack.function.keywords))
        settings = replace(settings, estimator=Alike(settings.estimator), decay=0.0)
        words = {"targeted": attack.settings["target_label"] is not None, "pool": batch(6, seed=2)}
        fresh = ascend(network(), *given, settings, **words)
        warm = ascend(network(), *given, replace(settings, warm_up_steps=2), **words)
        assert torch.equal(warm, fresh)
