from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from rich.console import Console

from src import attacks, load_classifier, transfer
from src.artifacts import Alarm
from src.attacks import attack, bim, dem, fgsm, pgd, pgd_l2, pi_patchwise, rfgsm
from src.attacks.libraries import make_function
from src.attacks.zoo.input_blocks import BlockShuffle
from src.data import load_dataset
from src.defences import Jpeg
from src.report.results import JobResults, Results
from src.report.terminal import print_alarms
from src.run.job import make_record
from src.run.outputs import make_job
from tests.job_context import TRAINER, run_modules


def test_an_alarm_of_several_jobs_is_printed_once_with_its_causes():
    guessing = Alarm("clean_at_chance", "coarse: correct on 2 / 23")
    few = Alarm("few_images", "coarse -> fine: 2")
    empty = pd.DataFrame()
    jobs = [
        [JobResults(SimpleNamespace(folder=Path("out", name)), empty, empty, alarms)]
        for name, alarms in (("0-fgsm", [guessing]), ("1-bim", [guessing, few]))
    ]
    console = Console(width=200, record=True)
    print_alarms(Results(jobs), console)
    lines = console.export_text().splitlines()
    assert lines[0] == "ALARM 0-fgsm (and 1 more): clean_at_chance: coarse: correct on 2 / 23"
    assert "wrong mean or std" in lines[1]
    assert lines[2] == "ALARM 1-bim: few_images: coarse -> fine: 2" and len(lines) == 4


@pytest.mark.parametrize(("offset", "idle"), [(0, True), (4, False)])
def test_a_defence_that_hardly_changes_the_clean_images_raises_an_alarm(offset, idle, caplog):
    """The embedded images are JPEG files of this quality, on the grid without an offset."""
    data = load_dataset("test", {"_target_": "src.data.cifar10_mini.cifar10_mini"}, n_images=20)
    batch = data[:20]
    models = {"vgg_small": load_classifier("vgg_small", "experiment=demo")}
    options = {"attacks": ["fgsm"], "eps": 4 / 255, "defences": {"jpeg": Jpeg(offset=offset)}}
    transfer(models, models, batch.images, batch.labels, **options)
    found = [its.message for its in caplog.records if "defence jpeg: clean images" in its.message]
    assert len(found) == idle


def alarms_of(run: SimpleNamespace) -> dict[str, str]:
    """Return the findings of a run's alarms by name."""
    record = make_record(run.planned, run.job, run.results, None)
    finished = make_job(run.job, run.results, record, Path())
    return {alarm.name: alarm.finding for alarm in finished.raised}


def reported(run: SimpleNamespace) -> list[float]:
    """Return the different numbers of gradients in a run's predictions."""
    return sorted({*run.tables["float32"]["gradients"].to_pylist()})


@pytest.mark.parametrize(
    ("stated", "wrong"),
    [(1, True), (0, True), (4.9, True), (5.04, False), (5.1, True), ("", False)],
)
def test_counted_gradients_are_reported_and_another_statement_is_an_alarm(
    stated, wrong, dataset, networks
):
    found = run_modules(dataset, networks, partial(bim, steps=3), about={"gradients": stated})
    assert reported(found) == [1 + 2 * 2] and found.results.gradients == 5 * len(dataset)
    text = f"mine: 5 gradients per image and member, but {stated} are stated or assumed"
    assert alarms_of(found).get("gradients_not_as_stated") == (text if wrong else None)


@pytest.mark.parametrize(
    ("counts", "total", "wrong"),
    [
        ((3, 5), 5, False),
        ((3.02, 4.9), 4.9, False),
        ((5, 5), 6, True),
        ((2, 4), 6, True),
        ((3, 9), 6, True),
        ((3, 2), 6, True),
        (None, 6, False),
    ],
)
def test_a_statement_counts_if_the_calls_for_fewer_budgets_agree_with_it(
    counts, total, wrong, dataset, networks, tmp_path, monkeypatch
):
    """Calls of one budget each took 3 gradients: a call for both takes 3 to 6."""

    @attack(steps=3, gradients=lambda n: counts[n.budgets - 1])  # None: unknown
    def mine() -> None:
        """Ascend."""

    monkeypatch.setattr(attacks, "mine", mine, raising=False)
    words = {"keys": {"_target_": "src.attacks.mine"}, "cache": tmp_path}
    for budgets in ((2.0,), (2.0, 16.0)):
        found = run_modules(dataset, networks, mine, budgets, **words)
    assert reported(found) == [total]
    assert ("gradients_not_as_stated" in alarms_of(found)) == wrong
    assert reported(run_modules(dataset, networks, mine, (16.0,), **words)) == [3]


@pytest.mark.parametrize(
    ("function", "gradient_batch", "taken"),
    [(bim, 4, 5), (bim, 1, 6), (fgsm, 1, 1), (pgd, 4, 6), (dem, 100, 25), (dem, 5, 30)],
)
def test_gradient_batches_that_hold_few_budgets_raise_no_alarm(
    function, gradient_batch, taken, dataset, networks
):
    """Budgets of several gradient batches do not share their first gradient."""
    steps = {} if function is fgsm else {"steps": 3}
    keys = {"_target_": f"src.attacks.{function.__name__}", **steps}
    words = {"trainer": TRAINER.model_copy(update={"gradient_batch": gradient_batch}), "keys": keys}
    found = run_modules(dataset, networks, partial(function, **steps), **words)
    assert reported(found) == [taken]
    assert "gradients_not_as_stated" not in alarms_of(found)


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"lookahead": "momentum", "decay": 1.0},
        {"random_start": "uniform", "restarts": 2},
        {"transform": BlockShuffle, "copies": 2},
    ],
)
def test_the_assumed_number_of_gradients_includes_a_warm_up(words, dataset, networks, monkeypatch):
    @attack(steps=3, warm_up_steps=2, **words)
    def mine() -> None:
        """Ascend."""

    monkeypatch.setattr(attacks, "mine", mine, raising=False)
    found = run_modules(dataset, networks, mine, keys={"_target_": "src.attacks.mine"})
    (taken,) = reported(found)
    assert found.job.attack.stated(2) == taken
    assert "gradients_not_as_stated" not in alarms_of(found)


class Edged(torch.nn.Module):
    """A network behind the identity, which has no derivative where a value is 0."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images.pow(2).sqrt())


def functional(model, images, labels, eps):
    """Return images after one step along a gradient of `torch.func`."""
    loss = partial(torch.nn.functional.cross_entropy, target=labels, reduction="sum")
    gradient = torch.func.grad(lambda its: loss(model(its)))(images)
    return images + eps.view(-1, 1, 1, 1, 1) * gradient.sign()


def backwards(model, images, labels, eps):
    """Take the step of `functional` along a product with a Jacobian."""
    loss = partial(torch.nn.functional.cross_entropy, target=labels, reduction="none")
    (gradient,) = torch.func.vjp(lambda its: loss(model(its)), images)[1](torch.ones(len(images)))
    return images + eps.view(-1, 1, 1, 1, 1) * gradient.sign()


@pytest.mark.parametrize("function", [functional, backwards])
def test_an_own_attack_may_take_gradients_with_torch_func(function, dataset, linear):
    network = linear()
    found, plain = (run_modules(dataset, {"a": network}, its) for its in (function, fgsm))
    for index, images in found.images.items():
        assert (images == plain.images[index]).all()
    assert reported(found) == [1] and "gradients_not_finite" not in alarms_of(found)
    found = run_modules(dataset, {"a": Edged(network)}, function)
    assert alarms_of(found)["gradients_not_finite"].startswith("a: NaN or infinity in gradients")


def own(model, images, labels, eps):
    """Return images after one step that a user takes by hand."""
    images = images.clone().requires_grad_()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    step = images.grad / images.grad.abs().mean((1, 2, 3), keepdim=True)
    return (images + eps.view(-1, 1, 1, 1, 1) * step.sign()).detach()


@dataclass(frozen=True)
class RootOfNothing:
    """A transform that changes nothing and has no derivative where a value is 0."""

    copies: int = 1

    def __call__(self, images, random, copy):
        return images.pow(2).sqrt()


@pytest.mark.parametrize("function", [partial(fgsm, transforms=(RootOfNothing(),))])
def test_nan_that_arises_in_an_attack_itself_is_counted_in_an_alarm(function, dataset, linear):
    black = (dataset[:].images == 0).flatten(1).any(1)
    found = run_modules(dataset, {"a": linear()}, function)
    text = f"a: NaN or infinity in gradients for {int(black.sum())} / 11"
    assert alarms_of(found)["gradients_not_finite"].startswith(text)


def beyond(model, images, labels, eps, *, share=1.0):
    """Add three times the budget to some of the images, the budget to the others, and clip none."""
    size = torch.where(torch.arange(len(images)) < share * len(images), 3.0, 1.0)
    return images + size.view(-1, 1, 1, 1) * eps.view(-1, 1, 1, 1, 1)


class Beyond:
    """An attack class of another library that does not keep to its budget."""

    def __init__(self, model, eps=0.1):
        self.eps = eps


of_library = make_function(
    lambda kind, keywords, call: (call.images + 3 * call.radius).clamp(0, 1), Beyond, ("linf",)
)
"""Another library's attack that does not keep to its budget, as a function."""


@pytest.mark.parametrize(
    ("function", "norm", "count", "most"),
    [
        (beyond, "linf", 11, "32/255"),
        (partial(beyond, share=0.5), "linf", 6, "32/255"),
        (partial(beyond, share=0), "linf", 0, ""),  # outside [0, 1] alone
        (beyond, "l2", 11, "32/255"),
        (of_library, "linf", 11, "32/255"),
        *((its, "linf", 0, "") for its in (fgsm, rfgsm, pi_patchwise, functional)),
        (pgd_l2, "l2", 0, ""),
    ],
)
def test_images_outside_the_budget_are_counted_in_an_alarm(
    function, norm, count, most, dataset, linear, tmp_path
):
    """Batches have 4, 4 and 3 images: half of each is 2, 2 and 2. The budgets are 2 and 16."""
    said = (
        f"mine: {count} / 11 = {count / 11:.2%} of the images exceeded the budget and were clipped"
    )
    for _ in ("computed", "from stored rows"):
        found = run_modules(dataset, {"a": linear()}, function, norm=norm, cache=tmp_path)
        alarm = alarms_of(found).get("clipped", "")
        assert (alarm == f"{said} to it, by up to {most} in a pixel") if count else not alarm
    for index, images in found.images.items():
        clean = dataset[[index]].images[0].numpy() / 255
        change = 255 * (images - clean)
        sizes = abs(change).max((1, 2, 3)) if norm == "linf" else (change**2).mean((1, 2, 3)) ** 0.5
        assert (sizes <= [2.001, 16.001]).all()


def test_an_attack_of_a_library_keeps_to_its_budget_where_nothing_counts(dataset, linear):
    images = dataset[:].images / 255
    found = of_library(linear(), images, torch.zeros(11, dtype=torch.int64), 8 / 255)
    assert (found - images).abs().max() <= 8 / 255 + 1e-6


def reused_leaf(model, images, labels, eps):
    """Take three steps on one leaf, whose hooks add up."""
    point = images.clone().requires_grad_()
    for _ in range(3):
        point.grad = None
        (0 * model(point).sum()).backward()
        with torch.no_grad():
            point += 0.001
    return point.detach().expand(len(eps), *images.shape)


def test_a_leaf_that_is_used_again_has_no_more_zero_gradients_than_gradients(dataset, linear):
    found = run_modules(dataset, {"a": linear()}, reused_leaf)
    assert found.results.zero_gradients == 1 and reported(found) == [3]


@pytest.mark.parametrize("function", [bim, own])
def test_images_with_nan_in_a_gradient_are_counted_in_an_alarm(function, dataset, linear):
    black = (dataset[:].images == 0).flatten(1).any(1)
    network = Edged(linear())
    found, plain = (run_modules(dataset, {"a": its}, function) for its in (network, linear()))
    text = f"a: NaN or infinity in gradients for {int(black.sum())} / 11"
    if function is own:  # of the clean images alone; later ones may get further black values
        assert alarms_of(found)["gradients_not_finite"].startswith(text)
    assert "gradients_not_finite" in alarms_of(found) and 0 < black.sum() < 11
    assert "gradients_not_finite" not in alarms_of(plain)
    classes = [its.tables["float32"]["predicted"].to_pylist() for its in (found, plain)]
    assert classes[0] == classes[1]


@pytest.mark.parametrize(
    ("function", "short"),
    [
        (partial(bim, step_size_255=2 / 255), "0.0049 of the budget 16/255"),
        (partial(pgd, step_size_255=1), "0.62 of the budget 16/255"),
        (partial(bim, steps=5, relative_step_size=0.1), "0.5 of the budget 16/255"),
        (partial(bim, steps=8, step_size_255=2), None),
        (partial(bim, steps=49), None),
        (pgd, None),
        (fgsm, None),
        (rfgsm, None),
        (partial(pgd_l2, step_size_255=1), None),
        (partial(pi_patchwise, step_size_255=1), None),  # it amplifies its steps
        (own, None),
    ],
)
def test_steps_that_do_not_reach_the_budget_raise_an_alarm(function, short, dataset, networks):
    norm = "l2" if getattr(function, "func", None) is pgd_l2 else "linf"
    found = alarms_of(run_modules(dataset, networks, function, norm=norm))
    assert found.get("steps_too_short") == (short and f"mine: its steps add up to {short}")
