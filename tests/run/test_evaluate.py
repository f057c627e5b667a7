"""The pass over a small data set, and its attack: budgets, labels, counts, alarms, memory."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from src.attacks import adapt, bim, fgsm, gi, pgd_l2, pi_patchwise
from src.data import Batch, ImageDataset, LabelledImages, to_unit
from src.defences import AttackedDefence
from src.images.attacker import Attacker, CountedModel
from src.images.storage import COST, AdversarialBatch
from src.measure.attack_cost import AttackCost
from src.measure.prediction_rows import prediction_rows
from src.models import Ensemble, PixelClassifier
from src.run.job import make_record
from src.run.outputs import make_job
from src.run.trainer import Batches, layout
from src.utils.model_names import ModelRef
from tests.job_context import TRAINER, run_modules
from tests.measure.small import linear

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


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 12), processes=st.integers(1, 4))
def test_every_image_is_in_one_batch_of_one_process_with_its_partner(count, size, processes):
    data = ImageDataset(LabelledImages(np.zeros((count, 4, 4, 3), np.uint8), np.zeros(count, int)))
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


def batch(count: int = 6, first: int = 0) -> Batch:
    index = torch.arange(first, first + count)
    draws = [torch.Generator().manual_seed(int(i)) for i in index]
    images = torch.stack([torch.randint(0, 256, (3, 8, 8), generator=draw) for draw in draws])
    return Batch(images.to(torch.uint8), index % 5, index)


@pytest.fixture
def model() -> nn.Module:
    return linear(0, 5)


def attacked(source, attack=fgsm, one=None, budgets=(4.0, 8.0), **words) -> AdversarialBatch:
    """Return the adversarial images of a batch."""
    one = batch() if one is None else one
    return Attacker(source, attack, num_classes=5, **words)(to_unit(one.images), one, budgets)


def labelled(source, rule, one, **words) -> torch.Tensor:
    return attacked(source, one=one, target_label_rule=rule, **words).target_labels


def test_target_labels_that_are_next_random_or_of_the_data(model):
    labels, many = batch().labels.tolist(), batch(200)
    assert labelled(model, "next", batch()).tolist() == [(label + 1) % 5 for label in labels]
    chosen = {number: 4 - label for number, label in enumerate(labels)}
    found = labelled(model, "data", batch(), data_target_labels=chosen)
    assert found.tolist() == list(chosen.values())
    targets = labelled(model, "random", many, seed=3)
    assert torch.equal(labelled(model, "random", batch(4, first=2), seed=3), targets[2:6])
    counts = torch.bincount((targets - many.labels) % 5, minlength=5).tolist()
    assert counts[0] == 0 and min(counts[1:]) > 30
    assert not torch.equal(labelled(model, "random", many, seed=4), targets)
    with pytest.raises(ValueError, match=r"^attack.target_label=random needs at least two classes"):
        Attacker(model, fgsm, target_label_rule="random", num_classes=1)
    Attacker(model, fgsm, target_label_rule="random", num_classes=2)
    Attacker(model, fgsm, num_classes=1)


def test_least_likely_is_never_the_true_class_and_of_the_source_behind_no_defence(model):
    images = batch(50)
    lowest = model(to_unit(images.images)).argmin(dim=1)
    targets, true = labelled(model, "least_likely", images), lowest == images.labels
    assert true.any() and not true.all() and (targets != images.labels).all()
    assert torch.equal(targets[~true], lowest[~true])
    for source in (model, Ensemble([model, linear(1, 5)], "loss")):
        behind = AttackedDefence(source, lambda images, random: random.uniform(*images.shape[1:]))
        wanted = labelled(source, "least_likely", images)
        assert torch.equal(labelled(behind, "least_likely", images), wanted)


class Edged(nn.Sequential):
    """A network behind the identity, which has no derivative where a value is 0."""

    def forward(self, images):
        return super().forward(images.pow(2).sqrt())


class Stepping(type("Attack", (), {"__module__": "torchattack.attack"})):
    """An object of another library that leaves images as they are."""

    def __init__(self, eps=8 / 255, alpha=2 / 255):
        self.model, self.eps, self.alpha = nn.Identity(), eps, alpha

    def __call__(self, images, labels):
        return images


def beyond(model, images, labels, eps, *, share=0.5):
    """Add three times the budget to some of the images, the budget to the others, and clip none."""
    size = torch.where(torch.arange(len(images)) < share * len(images), 3.0, 1.0)
    return images + size.view(-1, 1, 1, 1) * eps.view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_are_clipped_to_their_budgets_and_by_how_much_is_noted(model, norm):
    one = batch()
    one = one._replace(images=one.images // 2 + 64)
    found = attacked(model, beyond, one, norm=norm)
    moved = torch.tensor([[8.0] * 3 + [0.0] * 3, [16.0] * 3 + [0.0] * 3]).double()
    torch.testing.assert_close(found.cost[5], moved, rtol=0, atol=1e-4)
    change = 255 * (found.images[1] - to_unit(one.images))
    torch.testing.assert_close(change, torch.full_like(change, 8), rtol=0, atol=1e-4)


def reused_leaf(model, images, labels, eps):
    """Take three steps on one leaf, whose hooks add up, where the gradients are zero."""
    point = images.clone().requires_grad_()
    for _ in range(3):
        point.grad = None
        (0 * model(point).sum()).backward()
        with torch.no_grad():
            point += 0.001
    return point.detach().expand(len(eps), *images.shape)


def test_zero_gradients_are_counted_and_are_no_more_than_gradients(model):
    class Dead(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :5] * torch.tensor([0.0, 1.0] * 3)[: len(images), None]

    counted = CountedModel(Dead())
    images = torch.rand(6, 3, 2, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(counted(images).square().sum(), images)
    assert counted.counts.gradients == 6 and int(counted.counts.zeros) == 3
    assert (gradient.flatten(1).abs().amax(1) == 0).sum() == 3
    assert attacked(model, reused_leaf).cost[:2, 0, 0].tolist() == [3, 3]


@pytest.mark.parametrize("precision", ["32-true", "tf32", "bf16"])
def test_gradients_have_a_precision_of_their_own(precision):
    """Predictions around them have another one."""
    seen, products = [], torch.backends.cuda.matmul

    class Noting(nn.Flatten):
        def forward(self, images):
            seen.append((products.fp32_precision, torch.is_autocast_enabled("cpu")))
            return super().forward(images)[:, :5]

    with torch.autocast("cpu", torch.bfloat16):
        attacked(Noting(), precision=precision)
        assert torch.is_autocast_enabled("cpu")
    assert {*seen} == {("tf32" if precision == "tf32" else "ieee", precision == "bf16")}


def test_an_attack_may_change_all_that_it_is_given():
    layers = nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 5)
    model = nn.Sequential(nn.Flatten(), *layers).eval().requires_grad_(False)

    def attack(model, images, labels, eps, *, seeds):
        found = fgsm(model, images, labels, eps)
        for tensor in (*model.parameters(), *model.buffers(), images, labels, eps, seeds):
            tensor.data.add_(1)
        model.train()
        model.model[1].register_forward_hook(lambda *call: -call[-1])
        model.model[2].eps = 0.1
        return found

    one = batch()
    wanted, *found = (attacked(model, its, one) for its in (fgsm, attack, attack))
    for each in found:
        assert torch.equal(each.images, wanted.images) and torch.equal(each.cost, wanted.cost)
    assert all(map(torch.equal, one, batch()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found[0], "returns a tensor (6, 3, 8, 8) of torch.float32"),
        (lambda found: found.double(), "returns a tensor (2, 6, 3, 8, 8) of torch.float64"),
        (lambda found: found.index_fill(1, torch.tensor([3]), torch.nan), "infinity for image 13."),
        (lambda found: None, "returns NoneType; for eps of shape (2,)"),
        (lambda found: {}["lost"], "attack=mine: KeyError: 'lost'"),
    ],
)
def test_what_is_no_image_is_refused(model, change, said):
    def attack(model, images, labels, eps):
        return change(fgsm(model, images, labels, eps))

    with pytest.raises(ValueError, match=r"^attack=mine") as caught:
        attacked(model, attack, batch(first=10), name="mine")
    assert said in str(caught.value)


STEPS, CLIPPED, GRADIENTS = "steps_too_short", "clipped", "gradients_not_as_stated"
LONG = "steps_too_long"
FINITE = "gradients_not_finite"
TAKEN = "mine: 5 gradients per image and member, but {} are stated or assumed"
SHORT = "mine: its steps add up to {} of the budget 16/255"
MOVED = "mine: {} of the images exceeded the budget and were clipped to it, by up to 32/255 in a"


@pytest.mark.parametrize(
    ("attack", "words", "alarm", "finding"),  # None: no alarm
    [
        (partial(bim, steps=3), {"about": {"gradients": 4.9}}, GRADIENTS, TAKEN.format(4.9)),
        (partial(bim, steps=3), {"about": {"gradients": 5.1}}, GRADIENTS, TAKEN.format(5.1)),
        (partial(bim, steps=3), {"about": {"gradients": ""}}, GRADIENTS, None),
        (partial(bim, step_size_255=2 / 255), {}, STEPS, SHORT.format(0.0049)),
        (partial(bim, steps=5, relative_step_size=0.1), {}, STEPS, SHORT.format(0.5)),
        (partial(bim, steps=8, step_size_255=2), {}, STEPS, None),
        (partial(pgd_l2, step_size_255=1), {"norm": "l2"}, STEPS, None),
        (partial(pi_patchwise, step_size_255=1), {}, STEPS, None),  # it amplifies its steps
        (partial(bim, step_size_255=255), {}, LONG, "mine: step_size_255 is 15.9 times the budget"),
        (partial(bim, relative_step_size=3), {}, LONG, "mine: relative_step_size is 3 times the"),
        (partial(bim, step_size_255=32), {}, LONG, None),
        (gi, {}, LONG, None),  # its warm-up takes long steps
        (adapt(Stepping(eps=1.0)), {}, LONG, "mine: eps is 15.9 times the budget 16/255"),
        (adapt(Stepping(alpha=1.0)), {}, LONG, "mine: alpha is 15.9 times the budget 16/255"),
        (adapt(Stepping()), {}, LONG, None),
        (beyond, {}, CLIPPED, MOVED.format("6 / 11 = 54.55%")),
        (partial(beyond, share=0), {}, CLIPPED, None),  # outside [0, 1] alone
        (fgsm, {"edged": True}, FINITE, "a: NaN or infinity in gradients for 7 / 11"),  # have a 0
        (fgsm, {}, FINITE, None),
    ],
)
def test_an_alarm_is_of_what_an_attack_does(attack, words, alarm, finding, dataset, tmp_path):
    """The budgets are 2 and 16: three times the larger one is 32 too much."""
    words = dict(words)
    networks = {"a": Edged(linear()) if words.pop("edged", False) else linear(), "b": linear(1)}
    for _ in ("computed", "from stored rows"):
        run = run_modules(dataset, networks, attack, cache=tmp_path, **words)
        record = make_record(run.planned, run.job, run.results, None)
        raised = make_job(run.job, run.results, record, Path()).alarms
        found = {its.name: its.finding for its in raised}
        assert (alarm in found) == (finding is not None)
        assert found.get(alarm, "").startswith(finding or "")


COUNTED = [  # (budgets, gradients) of calls, the gradients stated for one and two budgets, and all
    ([(1, 3), (1, 3)], (3, 5), 5),
    ([(1, 3), (1, 3)], (3.02, 4.9), 4.9),
    ([(1, 3), (1, 3)], (3, 6), 6),
    ([(1, 3), (1, 3)], (3, 2), 6),
    ([(1, 3), (1, 4)], (3, 5), 7),
    ([(1, 3), (1, 3)], (None, None), 6),
    ([(4, 9)], (None, None), 4.5),
    ([(1, 0), (1, 0)], (3, 5), 0),
]


def test_a_statement_counts_if_the_calls_for_other_budgets_agree_with_it():
    """Calls of one budget that took 3 gradients each: a call for both takes 3 to 6."""
    job = SimpleNamespace(budgets=(2.0, 16.0))
    for calls, (one, two), total in COUNTED:
        rows = [
            {"index": 7, **dict(zip(COST, (taken, 1, 2 * taken, budgets, 0, taken), strict=True))}
            for budgets, taken in calls
        ]
        cost = AttackCost({1: one, 2: two, 4: None}.get)
        (row,) = cost.finish(pa.Table.from_pylist(rows), job).to_pylist()
        assert row["gradients"] == pytest.approx(total), (calls, one, two)
        assert row["forwards"] == pytest.approx(2 * total) and row["index"] == 7
        assert row["clipped"] == max(taken for _, taken in calls) and "budgets" not in row
