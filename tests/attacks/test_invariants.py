"""What every attack keeps to: one table for all files of `conf/attack/`."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from src.config.attack import AttackConfig
from src.data import Batch
from src.evaluation import Attacker
from src.evaluation.attacker import CountedModel
from src.models import Ensemble

EPS = torch.tensor([0.25, 8, 64]) / 255
OWN = torch.tensor([[0.25, 8, 64, 3], [16, 0, 0.5, 200]], dtype=torch.float64) / 255
"""Two budgets for each of four images."""
SEEDS = torch.tensor([5, 17, 3, 1000])
AIMS = (None, "next")
NORMS = ("linf", "l2")

DETERMINISTIC = {
    *("fgsm", "fgsm_l2", "llc", "illc", "bim", "mi", "ni", "ti"),
    *("si_ni", "emi", "pi_pregradient"),
}
"""The attacks that draw nothing."""
RANDOM_STARTS = {"pgd", "pgd_l2", "rfgsm"}


def one_step(k: int, keys: Mapping[str, Any]) -> int:
    return 1  # all budgets stand at the clean image and share the gradient


def iterative(k: int, keys: Mapping[str, Any]) -> int:
    return 1 + k * (keys["steps"] - 1)


def copied(k: int, keys: Mapping[str, Any]) -> int:
    return keys["copies"] * (1 + k * (keys["steps"] - 1))


def tuned(k: int, keys: Mapping[str, Any]) -> int:
    return 1 + k * (keys["steps"] - 1) + k * keys["neighbours"] * (keys["steps"] - 1)


GRADIENTS: dict[str, Callable[[int, Mapping[str, Any]], int]] = {
    "fgsm": one_step,
    "fgsm_l2": one_step,
    "llc": one_step,
    "rfgsm": lambda k, keys: k,  # every budget has a start of its own
    "bim": iterative,
    "illc": iterative,
    "mi": iterative,
    "ni": iterative,
    "pi_pregradient": iterative,
    "di": iterative,
    "ti": iterative,
    "mi_di_ti": iterative,
    "pgd": lambda k, keys: k * keys["steps"] * keys["restarts"],
    "pgd_l2": lambda k, keys: k * keys["steps"] * keys["restarts"],
    "emi": lambda k, keys: 1 + k * keys["samples"] * (keys["steps"] - 1),
    "vmi": tuned,
    "vni": tuned,
    "si_ni": copied,
    "si_ni_di_ti": copied,
    "ssa": copied,
    "bsr": copied,
    "sia": copied,
    "admix": lambda k, keys: keys["scales"] * keys["admixed"] * (1 + k * (keys["steps"] - 1)),
}
"""Gradients an image takes of one source for k budgets, by the keys of the config."""


def attacked(
    attack: AttackConfig,
    model: Any,
    images: Tensor,
    labels: Tensor,
    eps: float | Tensor,
    pool: tuple[Tensor, Tensor] | None = None,
    **words: Any,
) -> Tensor:
    """Return what an attack makes; aimed attacks go for the class after the true one."""
    aimed = attack.aim is not None
    goal = (labels + 1) % 5 if aimed else labels
    words = {"seeds": SEEDS[: len(images)], **words}
    return attack.function(model, images, goal, eps, targeted=aimed, pool=pool, **words)


def height(source: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return what an untargeted attack raises: the cross-entropy, averaged over the members."""
    logits = source.attacked(images) if isinstance(source, Ensemble) else source(images)
    logits = logits.reshape(-1, *logits.shape[-2:])  # (M, N, C)
    losses = [nn.functional.cross_entropy(each, labels) for each in logits]
    return torch.stack(losses).mean()


def refused(attack_name: str, norm: str) -> bool:
    return attack_name == "rfgsm" and norm == "l2"  # a sign step fills no L2 ball


def test_every_attack_has_a_formula_for_its_gradients(attack_name):
    assert attack_name in GRADIENTS, f"write down how many gradients {attack_name} takes"


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("norm", NORMS)
def test_stays_inside_the_ball_and_the_pixel_range(attack_name, norm, aim, small, network, batch):
    if refused(attack_name, norm):
        pytest.skip("refused: see test_refusals.py")
    images, labels = batch()
    attack = small(attack_name, norm=norm, target_label=aim)
    result = attacked(attack, network(), images, labels, EPS)
    assert result.shape == (3, *images.shape) and result.dtype == images.dtype
    for eps, adversarial in zip(EPS.double(), result, strict=True):
        change = (adversarial.double() - images.double()).flatten(1)
        size = change.abs().amax(1) if norm == "linf" else change.square().mean(1).sqrt()
        assert (size <= eps + 1e-7).all()
        assert (size > 0.2 * eps).all()
        assert adversarial.min() >= 0 and adversarial.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_zero_budget_changes_nothing(attack_name, norm, small, network, batch):
    if refused(attack_name, norm):
        pytest.skip("refused: see test_refusals.py")
    images, labels = batch()
    attack = small(attack_name, norm=norm)
    assert torch.equal(attacked(attack, network(), images, labels, 0.0), images)
    mixed = attacked(attack, network(), images, labels, torch.tensor([8 / 255, 0.0]))
    assert torch.equal(mixed[1], images) and not torch.equal(mixed[0], images)


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("kind", ["single", "loss"])
def test_leaves_everything_as_it_was(attack_name, kind, aim, small, source, batch):
    images, labels = batch()
    pool = batch(6, seed=2)
    model = source(kind)
    next(m for m in model.modules() if isinstance(m, nn.Flatten)).train()  # an odd mixture
    given = (images, labels, *pool, EPS, SEEDS)
    before = [tensor.clone() for tensor in given]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    random = torch.get_rng_state()
    attack = small(attack_name, target_label=aim)
    assert torch.equal(torch.get_rng_state(), random)  # reading a config tries the attack
    result = attacked(attack, CountedModel(model), images, labels, EPS, pool)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(map(torch.equal, given, before))
    assert not any(tensor.requires_grad for tensor in (result, *given))
    assert images.grad is None and torch.is_grad_enabled()


def test_is_deterministic_and_works_where_gradients_are_off(
    attack_name, kind, small, source, batch
):
    images, labels = batch()
    attack, model = small(attack_name), CountedModel(source(kind))
    expected = attacked(attack, model, images, labels, EPS)
    assert torch.equal(attacked(attack, model, images, labels, EPS), expected)
    with torch.no_grad():
        assert torch.equal(attacked(attack, model, images, labels, EPS), expected)
        assert not torch.is_grad_enabled()


def test_seeds_change_random_attacks_only(attack_name, small, network, batch):
    images, labels = batch()
    attack, model = small(attack_name), network()
    one = attacked(attack, model, images, labels, EPS)
    torch.manual_seed(99)  # the global generator has no say
    other = attacked(attack, model, images, labels, EPS, seeds=SEEDS + 1)
    assert torch.equal(one, other) == (attack_name in DETERMINISTIC)


@pytest.mark.parametrize("kind", ["single", "loss"])
def test_grid_equals_one_budget_at_a_time(attack_name, kind, small, source, batch):
    images, labels = batch()
    images, eps = images.double(), EPS.double()
    attack, model = small(attack_name), CountedModel(source(kind).double())
    together = attacked(attack, model, images, labels, eps)
    alone = torch.stack([attacked(attack, model, images, labels, e) for e in eps])
    torch.testing.assert_close(together, alone, atol=1e-12, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_batches_and_order_do_not_matter(attack_name, norm, small, network, batch):
    if refused(attack_name, norm):
        pytest.skip("refused: see test_refusals.py")
    images, labels = batch()
    images, (others, classes) = images.double(), batch(6, seed=2)
    pool = (others.double(), classes)
    attack, model = small(attack_name, norm=norm), network().double()

    def run(rows: Any, **words: Any) -> Tensor:
        words["seeds"] = SEEDS[rows]
        return attacked(attack, model, images[rows], labels[rows], EPS.double(), pool, **words)

    whole = run(slice(None))
    order = torch.tensor([2, 0, 3, 1])
    again = {
        "two parts": torch.cat([run(slice(0, 1)), run(slice(1, None))], dim=1),
        "order": run(order)[:, order.argsort()],
        "max_batch=1": run(slice(None), max_batch=1),
        "max_batch=2": run(slice(None), max_batch=2),
        "max_batch=7": run(slice(None), max_batch=7),
    }
    for case, result in again.items():
        torch.testing.assert_close(result, whole, atol=1e-12, rtol=0, msg=lambda m, c=case: c + m)


@pytest.mark.parametrize("aim", AIMS)
def test_untargeted_raises_the_loss_and_targeted_lowers_that_of_the_target(
    attack_name, kind, aim, small, source, batch
):
    images, labels = batch(6, 16)
    model = source(kind)
    attack = small(attack_name, target_label=aim)
    result = attacked(attack, CountedModel(model), images, labels, 8 / 255, seeds=torch.arange(6))
    classes = labels if aim is None else (labels + 1) % 5
    gain = height(model, result, classes) - height(model, images, classes)
    assert gain > 0.01 if aim is None else gain < -0.01


@pytest.mark.parametrize("aim", AIMS)
def test_takes_the_stated_number_of_gradients(attack_name, kind, aim, small, source, batch):
    images, labels = batch()
    attack, members = small(attack_name, target_label=aim), 1 if kind == "single" else 2
    for k in (1, 3):
        counted = CountedModel(source(kind))
        attacked(attack, counted, images, labels, EPS[:k])
        expected = len(images) * members * GRADIENTS[attack_name](k, attack.settings)
        assert counted.gradients == expected
        assert int(counted.zeros) == 0


def test_takes_the_stated_number_of_gradients_with_the_file_as_it_is(
    attack_name, read, network, batch
):
    images, labels = batch(2, 8)
    attack, counted = read(attack_name), CountedModel(network())
    result = attacked(attack, counted, images, labels, EPS[:2])
    assert counted.gradients == 2 * GRADIENTS[attack_name](2, attack.settings)
    assert result.isfinite().all()


def test_restarts_are_counted(small, network, batch):
    images, labels = batch()
    attack, counted = small("pgd", restarts=4), CountedModel(network())
    attacked(attack, counted, images, labels, EPS)
    assert counted.gradients == len(images) * 3 * 3 * 4


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_no_gradient_batch_is_larger_than_allowed(attack_name, limit, small, network, batch):
    images, labels = batch()
    seen: list[int] = []
    model = network()

    def watched(images: Tensor) -> Tensor:
        seen.append(len(images))
        return model(images)

    attacked(small(attack_name), watched, images, labels, EPS, max_batch=limit)
    assert max(seen) <= limit
    assert min(seen) > 0


@pytest.mark.parametrize(("kind", "aim"), [("single", None), ("loss", "next")])
def test_attacker_passes_everything_on(attack_name, kind, aim, small, source, batch):
    """What the job's attacker makes is what the function makes, and it counts the same."""
    images, labels = batch()
    others, classes = batch(6, seed=2)
    attack, model = small(attack_name, target_label=aim), source(kind)
    index = torch.tensor([4, 0, 11, 7])
    attacker = Attacker(
        model,
        attack.function,
        (0.25, 8, 64),
        norm=attack.norm,
        aim=aim,
        num_classes=5,
        seed=3,
        pool=((others * 255).round().to(torch.uint8), classes),
        max_batch=8,
    )
    made = attacker(images, Batch((images * 255).round().to(torch.uint8), labels, index))
    counted = CountedModel(model)
    expected = attacked(
        attack,
        counted,
        images,
        labels,
        EPS,
        (others, classes),
        seeds=index + 3 * 1_000_003,
        true_labels=labels,
        max_batch=8,
    )
    torch.testing.assert_close(made.images, expected, atol=1e-7, rtol=0)  # projected once more
    assert attacker.gradients == counted.gradients > 0 and attacker.zero_gradients == 0
    if aim is None:
        assert made.target_labels is None
    else:
        assert torch.equal(made.target_labels, (labels + 1) % 5)


# Shapes, budgets, splits and limits at random


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    count=st.integers(1, 5),
    sides=st.tuples(st.integers(3, 13), st.integers(3, 13)),
    budgets=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    limit=st.none() | st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_any_shape_budgets_and_split(
    data, count, sides, budgets, limit, seed, small, network, batch
):
    attack = small(data.draw(st.sampled_from(sorted(GRADIENTS))))
    cut = data.draw(st.integers(0, count))
    images, labels = batch(count, *sides, seed=seed)
    images, (others, classes) = images.double(), batch(3, *sides, seed=100 + seed)
    pool, model = (others.double(), classes), network().double()
    seeds, eps = torch.arange(count) + seed, torch.tensor(budgets, dtype=torch.float64)
    whole = attacked(attack, model, images, labels, eps, pool, seeds=seeds)
    assert whole.shape == (len(budgets), count, 3, *sides)
    assert whole.min() >= 0 and whole.max() <= 1
    change = (whole - images).flatten(2)
    size = change.abs().amax(2) if attack.norm == "linf" else change.square().mean(2).sqrt()
    assert (size <= eps[:, None] + 1e-12).all()
    parts = [
        attacked(attack, model, images[p], labels[p], eps, pool, seeds=seeds[p], max_batch=limit)
        for p in (slice(0, cut), slice(cut, None))
        if len(images[p])
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-9, rtol=0)


# A budget for each image


def one_by_one(attack, model, images, labels, eps, pool):
    parts = [
        attacked(
            attack, model, images[n, None], labels[n, None], eps[:, n], pool, seeds=SEEDS[n, None]
        )
        for n in range(len(images))
    ]
    return torch.cat(parts, dim=1)


def exact(batch):
    images, labels = batch()
    others, classes = batch(6, seed=2)
    return images.double(), labels, (others.double(), classes)


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("norm", NORMS)
def test_equals_the_attack_image_by_image(attack_name, norm, aim, small, network, batch):
    if refused(attack_name, norm):
        pytest.skip("refused: see test_refusals.py")
    images, labels, pool = exact(batch)
    attack, model = small(attack_name, norm=norm, target_label=aim), network().double()
    expected = one_by_one(attack, model, images, labels, OWN, pool)
    for limit in (None, 1, 2, 3, 5, 100):
        result = attacked(attack, model, images, labels, OWN, pool, max_batch=limit)
        assert result.shape == (2, *images.shape)
        torch.testing.assert_close(result, expected, atol=1e-12, rtol=0)
    change = (result - images).flatten(2)
    size = change.abs().amax(2) if norm == "linf" else change.square().mean(2).sqrt()
    assert (size <= OWN + 1e-12).all() and (size[OWN > 0] > 0.2 * OWN[OWN > 0].clamp_max(0.5)).all()
    assert torch.equal(result[1, 1], images[1])  # a budget of 0
    assert result.min() >= 0 and result.max() <= 1 and not result.requires_grad


def test_equals_it_for_an_ensemble(attack_name, kind, small, source, batch):
    images, labels, pool = exact(batch)
    attack, model = small(attack_name), CountedModel(source(kind).double())
    result = attacked(attack, model, images, labels, OWN, pool)
    members = 1 if kind == "single" else 2
    assert model.gradients == 4 * members * GRADIENTS[attack_name](2, attack.settings)
    torch.testing.assert_close(
        result, one_by_one(attack, model, images, labels, OWN, pool), atol=1e-12, rtol=0
    )


def test_equal_budgets_are_those_of_a_grid(attack_name, small, network, batch):
    images, labels = batch()
    attack, model = small(attack_name), network()
    grid = torch.tensor([2.0, 16.0]) / 255
    together = attacked(attack, model, images, labels, grid)
    result = attacked(attack, model, images, labels, grid[:, None].expand(2, 4))
    torch.testing.assert_close(result, together, atol=1e-6, rtol=0)


# Gradients that are zero


@pytest.mark.parametrize("kind", ["single", "loss"])
def test_zero_gradients_leave_the_image_and_are_counted(attack_name, kind, small, source, batch):
    images, labels = batch()
    model = source(kind)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data.zero_()  # constant logits
    for norm in NORMS:
        if refused(attack_name, norm):
            continue
        attack, counted = small(attack_name, norm=norm), CountedModel(model)
        result = attacked(attack, counted, images, labels, EPS)
        assert result.isfinite().all()
        assert torch.equal(result, images.expand_as(result)) == (attack_name not in RANDOM_STARTS)
        assert int(counted.zeros) == counted.gradients > 0


def test_a_zero_gradient_does_not_touch_other_images(attack_name, small, network, batch):
    """The source is blind for images whose first pixel is black."""
    images, labels = batch()
    images[:, :, 0, 0] = 0.5
    dark = images.clone()
    dark[1, :, 0, 0] = 0
    model = network()

    def partly_blind(images: Tensor) -> Tensor:
        sees = (images[:, :, :1, :1] > 0.2).all(1, keepdim=True)
        return model(torch.where(sees, images, images.detach() * 0))

    if attack_name not in DETERMINISTIC:
        pytest.skip("what is drawn changes the first pixel")
    attack = small(attack_name)
    counted = CountedModel(partly_blind)
    result = attacked(attack, counted, dark, labels, 8 / 255)
    expected = attacked(attack, model, images, labels, 8 / 255)
    assert torch.equal(result[1], dark[1])
    assert result.isfinite().all()
    others = [0, 2, 3]
    if attack_name != "si_ni":  # whose copies darken the first pixel
        assert torch.equal(result[others], expected[others])
    assert int(counted.zeros) >= 1


@pytest.mark.parametrize("loss", ["cross_entropy", "logit", "margin", "dlr"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_extreme_gradients_give_finite_images(loss, scale, small, network, batch):
    images, labels = batch()
    model = network()
    for name in ("bim", "mi", "ni", "emi", "vmi", "pgd_l2"):
        attack = small(name, loss=loss)
        result = attacked(attack, lambda x: model(x) * scale, images, labels, EPS)
        assert result.isfinite().all()
