"""Published rules, as papers and authors' code have them, once more: plain loops over one image.

Nothing of `src.attacks` is used here but the random numbers, which both sides have to share. All is
float64, so that a rule that differs in one place differs by far more than the tolerance.
"""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from src.attacks import (
    DiverseInput,
    PatchOut,
    PerImageRandom,
    admix,
    bfa,
    cfm,
    cwa,
    decowa,
    dem,
    di,
    emi,
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
    vni,
)
from src.models import Ensemble
from tests.attacks.published_case import BUDGETS, MU, SIDE, STEPS, Case, momentum, nesterov
from tests.attacks.published_features import (
    decayed,
    enlarged,
    important,
    mixed_up,
    on_the_way_to_black,
    partly_black,
    patched,
    uphill,
)
from tests.attacks.published_gradients import (
    common_weakness,
    enhanced,
    flat,
    integrated,
    patch_wise,
    penalised,
    pre_gradient,
    relevant,
    reversed_first,
    variance_reduced,
    variance_tuned,
    warmed_up,
)
from tests.attacks.published_inputs import (
    admixed,
    diverse,
    masked,
    scaled,
    several_sizes,
    smoothed,
    some_patches,
    spectral,
    strongly_scaled,
    target_logit,
    warped,
)

RULES = {
    "mi": (mi, momentum),
    "gi": (partial(gi, warm_up_steps=2, warm_up_scale=3.0), warmed_up),
    "ni": (ni, nesterov),
    "pi": (pi_pregradient, pre_gradient),
    "emi": (emi, enhanced),
    "vmi": (partial(vmi, neighbours=3), partial(variance_tuned, ahead=False)),
    "vni": (partial(vni, neighbours=3), partial(variance_tuned, ahead=True)),
    "di": (partial(di, probability=0.7, resize_rate=1.3), diverse),
    "ti": (partial(ti, kernel_size=7), smoothed),
    "si": (si_ni, scaled),
    "admix": (admix, admixed),
    "usmm": (
        partial(usmm, scales=4, lowest=0.2, highest=0.9, strength=0.6),
        partial(masked, chain_rule=True),
    ),
    "usmm at copies": (
        partial(usmm, scales=4, lowest=0.2, highest=0.9, strength=0.6, chain_rule=False),
        partial(masked, chain_rule=False),
    ),
    "dem": (dem, several_sizes),
    "ssa": (partial(ssa, copies=3), spectral),
    "pgn": (partial(pgn, samples=3, delta=0.7, transforms=(DiverseInput(0.7, 1.3),)), penalised),
    "mef": (partial(mef, samples=3, relative_step_size=None), flat),
    "rap": (
        partial(
            rap,
            **{"inner_radius": 1.5, "inner_steps": 3, "late_start": 1},
            **{"relative_step_size": None, "loss": "logit"},
        ),
        reversed_first,
    ),
    "mumodig": (partial(mumodig, copies=8, interpolations=2, regions=3), integrated),
    "gra": (partial(gra, samples=3, shrink=0.6), relevant),
    "decowa": (partial(decowa, copies=3, rho=0.5), warped),
    "patch_out": (partial(mi, estimator=PatchOut(kept=0.7, patches=3)), some_patches),
    "pi_patchwise": (partial(pi_patchwise, amplification=4.2, spread=0.5), patch_wise),
    "cwa": (partial(cwa, relative_step_size=1 / STEPS, inner_decay=0.9), common_weakness),
    "svre": (partial(svre, inner_steps=3, inner_decay=0.9), variance_reduced),
    "logit": (
        partial(logit_mi_di_ti, targeted=True, relative_step_size=None, resize_rate=1.3),
        target_logit,
    ),
    "s4st": (
        partial(s4st, targeted=True, relative_step_size=None, colour=0.0),
        strongly_scaled,
    ),
    "fia": (partial(fia, masks=3, layer="2"), partial(important, versions=partly_black)),
    "rpa": (partial(rpa, masks=4, layer="2"), partial(important, versions=patched)),
    "naa": (
        partial(naa, points=3, layer="2"),
        partial(important, versions=on_the_way_to_black, softmax=True),
    ),
    "bfa": (
        partial(bfa, points=3, layer="2", distance_255=255 * 28 / (3 * 299**2) ** 0.5),
        partial(important, versions=uphill),
    ),
    "ila": (partial(ila, first_steps=3, layer="2"), enlarged),
    "cfm": (
        partial(
            cfm,
            **{"targeted": True, "relative_step_size": None, "probability": 0.7},
            **{"resize_rate": 1.3, "mix_probability": 0.5, "max_width": 1.0},
        ),
        mixed_up,
    ),
    "ilpd": (partial(ilpd, relative_step_size=None, layer="2"), decayed),
}


@pytest.mark.parametrize("name", RULES)
def test_is_the_published_rule(name, network, batch):
    ours, published = RULES[name]
    model = nn.Sequential(nn.Tanh(), *network().double())  # curved on either side of its layers
    if name in ("cwa", "svre"):
        model = Ensemble([model, network(1).double()], "logits")
    images, labels = batch(3, SIDE)
    images, (others, classes) = images.double(), batch(6, SIDE, seed=2)
    pool, seeds = (others.double(), classes), torch.tensor([3, 1, 4])
    words = {"steps": STEPS, "decay": MU}
    eps = torch.tensor(BUDGETS, dtype=torch.float64)
    made = ours(model, images, labels, eps, seeds=seeds, pool=pool, **words).numpy()
    for k, budget in enumerate(BUDGETS):
        for n, (image, label) in enumerate(zip(images, labels, strict=True)):
            random = PerImageRandom(seeds[n, None], images, labels[n, None], pool)
            case = Case(model, image.numpy(), int(label), budget, random)
            expected = published(case)
            np.testing.assert_allclose(made[k, n], expected, atol=1e-12, rtol=0)
            assert np.abs(expected - case.clean).max() > 0.9 * budget
