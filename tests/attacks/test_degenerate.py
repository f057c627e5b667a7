"""Attacks that are others once a setting is taken away, to the bit where nothing is rounded.

Two attacks that compute the same numbers in the same batches give the same bits. Where sums are
taken in another order the comparison is in float64, in which no sign is close to turning, and the
test says so.
"""

from functools import partial

import pytest
import torch

from src.attacks import (
    LOSSES,
    admix,
    bfa,
    bim,
    bsr,
    cfm,
    cwa,
    decowa,
    dem,
    di,
    emi,
    fgsm,
    fia,
    gi,
    gra,
    ila,
    ilpd,
    logit_mi_di_ti,
    mef,
    mi,
    mumodig,
    naa,
    ni,
    pgd,
    pgn,
    pi_patchwise,
    pi_pregradient,
    rap,
    rpa,
    s4st,
    si_ni,
    ssa,
    svre,
    ti,
    usmm,
    vmi,
)
from src.defences import AttackedDefence, Smoothing
from src.images.attacker import CountedModel
from src.models import Ensemble

EPS = 8 / 255
GRID = torch.tensor([1, 8, 32]) / 255

SAME = {
    "bim of one step = fgsm": (partial(bim, steps=1), fgsm),
    "mi without decay = bim": (partial(mi, decay=0.0), bim),
    "ni without decay = bim": (partial(ni, decay=0.0), bim),
    "gi without warm-up = mi": (partial(gi, warm_up_steps=0), mi),
    "di of probability 0 = mi": (partial(di, probability=0), mi),
    "pgd without random start and step size = bim": (
        partial(pgd, random_start=None, relative_step_size=None),
        bim,
    ),
    "vmi of radius 0 = mi": (partial(vmi, radius=0, neighbours=2), mi),
    "ti with no kernel = mi": (partial(ti, kernel_size=0), mi),
    "si of one copy = ni": (partial(si_ni, copies=1), ni),
    "admix of strength 0 = si without lookahead": (
        partial(admix, scales=3, admixed=1, strength=0),
        partial(si_ni, copies=3, lookahead=None),
    ),
    "usmm of one scale of 1 without mixing = mi": (
        partial(usmm, scales=1, admixed=1, lowest=1, strength=0),
        mi,
    ),
    "dem of one rate of 1 = mi": (
        partial(dem, copies=1, lowest_rate=1, relative_step_size=None),
        mi,
    ),
    "bsr of one block that stays upright = mi": (
        partial(bsr, copies=1, blocks=1, max_angle=0),
        mi,
    ),
    "emi of radius 0, 2 samples = mi": (partial(emi, radius=0, samples=2), mi),
    "ni of two steps = pi of two steps": (partial(ni, steps=2), partial(pi_pregradient, steps=2)),
    "pgn of delta 0 at one point = mi": (partial(pgn, samples=2, zeta=0, delta=0), mi),
    "gra of radius 0 with full steps = mi": (partial(gra, samples=2, radius=0, shrink=1.0), mi),
    "mef of radius 0 without memories, as long as mi = mi": (
        partial(
            mef,
            **{"samples": 2, "radius": 0, "shift": 0},
            **{"steps": 10, "relative_step_size": None, "decay": 1.0},
        ),
        mi,
    ),
    **{
        f"rap {how}, as long as bim = bim": (
            partial(rap, steps=10, relative_step_size=None, **words),
            bim,
        )
        for how, words in {
            "of radius 0": {"inner_radius": 0.0},
            "that starts too late": {"late_start": 10},
        }.items()
    },
    "pi_patchwise without amplification and spread = bim": (
        partial(pi_patchwise, amplification=1, spread=0),
        bim,
    ),
    "logit_mi_di_ti without di and ti, normalised = mi of the logit": (
        partial(
            logit_mi_di_ti,
            **{"steps": 3, "relative_step_size": None, "normalised": True},
            **{"probability": 0, "kernel_size": 0},
        ),
        partial(mi, steps=3, loss="logit"),
    ),
    "s4st that changes nothing = ti of the calibrated loss": (
        partial(s4st, steps=3, relative_step_size=None, scaling=0.0, colour=0.0),
        partial(ti, steps=3, kernel_size=5, loss="calibrated"),
    ),
    "fia of one whole image at the last layer = mi of the logit": (
        partial(fia, masks=1, probability=0, layer="6"),
        partial(mi, loss="logit"),
    ),
    "rpa without patches = fia without masks": (
        partial(rpa, masks=5, probability=0),
        partial(fia, masks=5, probability=0),
    ),
    "naa of one point without noise = fia of one whole image and its probability": (
        partial(naa, points=1, sigma_255=0),
        partial(fia, masks=1, probability=0, score="probability"),
    ),
    "bfa of distance 0 = fia without masks": (
        partial(bfa, points=5, distance_255=0),
        partial(fia, masks=5, probability=0),
    ),
    "cfm without mixing and di = ti of the logit": (
        partial(cfm, steps=3, relative_step_size=None, mix_probability=0, probability=0),
        partial(ti, steps=3, loss="logit", kernel_size=5),
    ),
    "ilpd of weight 1 = bim": (partial(ilpd, weight=1, steps=10, relative_step_size=None), bim),
    "relative step = step of the same size": (
        partial(bim, steps=3, relative_step_size=0.5),
        partial(bim, steps=3, step_size_255=4),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_to_the_bit(case, network, batch):
    first, second = SAME[case]
    model, (images, labels) = network(), batch()
    for words in ({}, {"norm": "l2", "targeted": True}):
        result = first(model, images, labels, EPS, **words)
        assert torch.equal(result, second(model, images, labels, EPS, **words))
        assert not torch.equal(result, images)


@pytest.mark.parametrize(
    "attack",
    [partial(ssa, rho=0, sigma_255=0, copies=2), partial(decowa, radius=0, rho=0, copies=2)],
)
def test_copies_that_are_not_changed_are_mi(attack, network, batch):
    """Spectra there and back round, as do places of pixels."""
    model, (images, labels) = network().double(), batch()
    given = (model, images.double(), labels, GRID)
    torch.testing.assert_close(attack(*given), mi(*given), atol=1e-6, rtol=0)


@pytest.mark.parametrize("targeted", [False, True])
def test_the_first_step_of_cwa_with_one_member_is_fgsm(targeted, network, batch):
    """In float64, since the way of its member vanishes in no pixel there."""
    model, (images, labels) = network().double(), batch()
    given, words = (model, images.double(), labels), {"targeted": targeted}
    result = cwa(*given, GRID, steps=1, reverse_size=0, inner_decay=0, decay=0, **words)
    torch.testing.assert_close(result, fgsm(*given, 0.2 * GRID, **words), atol=1e-7, rtol=0)


def test_mumodig_without_copies_at_the_end_of_its_paths_is_fgsm_where_paths_are_long(
    network, batch
):
    """From the minimum alone: a value that is the least of its channel has no path, and no step."""
    model, (images, labels) = network().double(), batch()
    images = images.double()
    plain = {"copies": 0, "regions": 1, "shift": 1.0, "steps": 1}
    change = mumodig(model, images, labels, GRID, **plain) - images
    least = images == images.amin((-2, -1), keepdim=True)
    expected = (fgsm(model, images, labels, GRID) - images) * ~least
    torch.testing.assert_close(change, expected, atol=1e-12, rtol=0)
    assert least.any() and (change != 0).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_svre_of_one_inner_step_is_mi_and_of_several_not(norm, network, batch):
    """In float64, since what momentum adds is divided by its mean size twice."""
    given = (network().double(), batch()[0].double(), batch()[1], GRID)
    one, several = (svre(*given, norm=norm, inner_steps=count) for count in (1, 2))
    expected = mi(*given, norm=norm)
    torch.testing.assert_close(one, expected, atol=1e-7, rtol=0)
    assert (several - expected).abs().max() > 1e-3


def test_steps_of_pi_patchwise_that_exceed_the_budget_by_rounding_are_fgsm(network, batch):
    """Ten tenths of some of these budgets are more than the whole in float32."""
    given = (network(), *batch(2), torch.arange(1, 33) / 255)
    result = pi_patchwise(*given, steps=1, relative_step_size=0.1)
    torch.testing.assert_close(result, fgsm(*given), atol=1e-7, rtol=0)


@pytest.mark.parametrize("targeted", [False, True])
def test_ila_at_a_layer_with_one_direction_is_bim(targeted, network, batch):
    """At two opposite logits both raise the one that a single first step raises."""
    last = torch.nn.Linear(5, 2, bias=False)
    last.weight.data[1] = -last.weight.data[0]
    model, (images, labels) = torch.nn.Sequential(network(), last).eval(), batch()
    given, words = (model, images, labels % 2, GRID), {"targeted": targeted}
    result = ila(*given, layer="1", first_steps=1, **words)
    assert torch.equal(result, bim(*given, loss="logit", **words))


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("average", ["logits", "probabilities", "loss"])
def test_an_ensemble_of_equals_is_its_member(average, members, network, batch):
    """To the bit for `logits` and `loss`, since halves are exact; log-probabilities round."""
    exact = average != "probabilities"
    model, (images, labels) = network(), batch()
    if not exact:
        model, images = model.double(), images.double()
    ensemble = CountedModel(Ensemble([model] * members, average))
    for attack, norm in ((bim, "l2"), (ni, "linf")):
        result = attack(ensemble, images, labels, EPS, norm=norm)
        expected = attack(model, images, labels, EPS, norm=norm)
        if exact:
            assert torch.equal(result, expected)
        else:
            torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("average", ["logits", "probabilities", "loss"])
def test_equals_agree_on_features(average, network, batch):
    """A layer may be hooked once in a pass, so that the members must be two."""
    model, (images, labels) = network().double(), batch()
    ensemble = CountedModel(Ensemble([model, network().double()], average))
    for attack, words in ((fia, {"masks": 2}), (ilpd, {"steps": 3, "norm": "l2"})):
        result = attack(ensemble, images.double(), labels, EPS, layer=("1", "1"), **words)
        expected = attack(model, images.double(), labels, EPS, **words)
        torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_more_restarts_never_lower_the_loss_at_any_budget(loss, targeted, network, batch):
    model, (images, labels) = network(), batch(8)
    losses = []
    for restarts in (1, 5):
        words = {"steps": 2, "loss": loss, "targeted": targeted, "restarts": restarts}
        grid = pgd(model, images, labels, GRID, **words)
        losses.append(torch.stack([LOSSES[loss](model(one), labels, targeted) for one in grid]))
    assert (losses[1] >= losses[0] - 1e-6).all()
    assert (losses[1] > losses[0] + 1e-6).any(dim=1).all()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_best_iterate_is_that_of_the_highest_loss(loss, targeted, network, batch):
    """Of long steps, whose losses fall now and then, and up to any step and at any budget."""
    model, (images, labels) = network(), batch(8)
    words = {"steps": 6, "relative_step_size": 1.5, "loss": loss, "targeted": targeted}
    attack = partial(pgd, model, images, labels, GRID, **words)
    iterates = attack(iterates=range(1, 7))
    losses = torch.stack(
        [torch.stack([LOSSES[loss](model(one), labels, targeted) for one in x]) for x in iterates]
    )
    assert (losses[-1] < losses.amax(dim=0)).any()
    found = attack(iterates=[2, 6], keep_best=True)
    for number, steps in enumerate((2, 6)):
        best = losses[:steps].argmax(dim=0)[None, ..., None, None, None].expand_as(iterates[:1])
        assert torch.equal(found[number], iterates.gather(0, best)[0])
    assert torch.equal(attack(keep_best=True), found[1])


def test_looking_at_losses_leaves_random_numbers_alone(network, batch):
    """A run that keeps its best iterate takes the steps of one that does not."""
    source = AttackedDefence(network(), Smoothing(0.1))
    images, labels = batch(8)
    words = {"steps": 4, "restarts": 1}
    iterates = pgd(source, images, labels, EPS, iterates=range(1, 5), **words)
    best = pgd(source, images, labels, EPS, keep_best=True, **words)
    assert (best == iterates).flatten(2).all(dim=2).any(dim=0).all()


@pytest.mark.parametrize("attack", [fgsm, mi, bsr])
def test_no_images_give_none(attack):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)).eval()
    images, labels = torch.rand(0, 3, 4, 4), torch.zeros(0, dtype=torch.int64)
    assert attack(model, images, labels, GRID).shape == (3, 0, 3, 4, 4)
