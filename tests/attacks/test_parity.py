"""Parity: the same images as torchattacks 3.5 makes (foolbox: `test_external.py`).

A sign makes nothing of rounding but everything of a gradient that is nothing but rounding, so the
comparison is made twice:

- in float32 with 16 images, pixels in units of 1/256. Then x + a * sign(g), both ways to project
  (clamp x to [x0 - eps, x0 + eps], or x - x0 to [-eps, eps]) and torchattacks' loss, the mean over
  the batch where ours is the sum, are exact, and images have to agree to the bit;
- in float64 with 12 images in units of 1/255.

Random parts are switched off.
"""

import pytest
import torch
from torch import Tensor, nn

from src.attacks import (
    bim,
    fgsm,
    mi,
    ni,
    pgd,
    si_ni,
    ti,
)

CLASSES, SIDE = 5, 32
STEPS, KERNEL = 6, 15
REASON = "a dev-only library: pip install --no-deps torchattacks"


class Case:
    """Model and images of one type, with budgets in one unit."""

    def __init__(
        self, model: nn.Module, images: Tensor, labels: Tensor, unit: int, dtype: torch.dtype
    ) -> None:
        self.model = model.to(dtype).requires_grad_(False)
        self.images = (images * 255).round().to(dtype) / unit
        self.labels = labels
        self.eps, self.step = 8 / unit, 2 / unit
        self.exact = dtype == torch.float32
        self.steps = {"steps": STEPS, "step_size_255": self.step * 255}
        self.theirs = {"eps": self.eps, "alpha": self.step, "steps": STEPS}

    def compare(self, ours: Tensor, theirs: Tensor) -> None:
        if self.exact:
            assert torch.equal(ours, theirs)
        else:
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
        assert (ours - self.images).abs().amax((1, 2, 3)).min() > 0.5 * self.eps


@pytest.fixture(scope="module")
def torchattacks():
    return pytest.importorskip("torchattacks", reason=REASON, exc_type=ImportError)


def rough() -> nn.Module:
    """Return a network whose gradient changes from step to step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 49, CLASSES),
        )
    for layer in (layers[0], layers[2], layers[5]):
        layer.weight.data *= 3
    return layers.eval()


@pytest.fixture(params=["float32", "float64"])
def case(request, batch) -> Case:
    """The comparison to the bit, and the other one."""
    single = request.param == "float32"
    kind = (256, torch.float32) if single else (255, torch.float64)
    return Case(rough(), *batch(16 if single else 12, SIDE), *kind)


TORCHATTACKS = {
    "FGSM": (fgsm, {}, {}),
    "BIM": (bim, {}, {}),
    "PGD": (pgd, {"random_start": None}, {"random_start": False}),
    "MIFGSM": (mi, {}, {}),
    "NIFGSM": (ni, {}, {}),
    "SINIFGSM": (si_ni, {}, {}),
    "TIFGSM": (ti, {}, {"diversity_prob": 0.0, "decay": 1.0}),
}


@pytest.mark.parametrize("name", TORCHATTACKS)
def test_torchattacks(name, torchattacks, case):
    attack, words, their_words = TORCHATTACKS[name]
    if case.exact and name == "TIFGSM":
        pytest.skip("ours smooths in two passes, by row and by column, which round differently")
    keys = {"eps": case.eps} if name == "FGSM" else case.theirs
    words = words if name == "FGSM" else {**case.steps, **words}
    for targeted, goal in ((False, case.labels), (True, (case.labels + 1) % CLASSES)):
        theirs = getattr(torchattacks, name)(case.model, **keys, **their_words)
        if targeted:
            theirs.set_mode_targeted_by_label(quiet=True)
        if name == "TIFGSM":
            kernel = torch.from_numpy(theirs.gkern(KERNEL)).to(case.images)
            theirs.stacked_kernel = kernel.expand(3, 1, -1, -1)
        ours = attack(case.model, case.images, goal, case.eps, targeted=targeted, **words)
        case.compare(ours, theirs(case.images, goal))
