"""Published rules, as papers and authors' code have them, once more: plain loops over one image.

Nothing of `src.attacks` is used here but the random numbers, which both sides have to share. All is
float64, so that a rule that differs in one place differs by far more than the tolerance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import scipy.stats
import torch
from torch import nn

from src.attacks import (
    PerImageRandom,
    admix,
    di,
    emi,
    fia,
    ilpd,
    mi,
    ni,
    pi_pregradient,
    si_ni,
    ssa,
    ti,
    vmi,
    vni,
)

SIDE, STEPS, MU = 20, 4, 0.7
BUDGETS = (4 / 255, 16 / 255)
Image = np.ndarray
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Case:
    """One image (3, H, W), its class, its budget and its random numbers."""

    model: nn.Module
    clean: Image
    label: int
    eps: float
    random: PerImageRandom

    @property
    def alpha(self) -> float:
        return self.eps / STEPS

    def gradient(self, image: Image, change: Change = lambda x: x) -> Image:
        """Return the gradient of the cross-entropy of a changed image, through the change."""
        x = torch.from_numpy(image).requires_grad_()
        logits = self.model(change(x)[None])[0]
        (logits.logsumexp(0) - logits[self.label]).backward()
        return x.grad.numpy()

    def step(self, image: Image, way: Image) -> Image:
        moved = image + self.alpha * np.sign(way)
        inside = np.clip(moved - self.clean, -self.eps, self.eps)
        return np.clip(self.clean + inside, 0, 1)

    def drawn(self, kind: str, *words, **more) -> np.ndarray:
        return getattr(self.random, kind)(*words, **more)[0].numpy()


def unit(gradient: Image) -> Image:
    return gradient / np.abs(gradient).mean()


def momentum(case: Case, gradient: Callable[[Image], Image] | None = None) -> Image:
    """Divide by the L1 norm, as the paper writes: a factor that signs do not see."""
    x, m = case.clean, np.zeros_like(case.clean)
    for _ in range(STEPS):
        g = (gradient or case.gradient)(x)
        m = MU * m + g / np.abs(g).sum()
        x = case.step(x, m)
    return x


def nesterov(case: Case, gradient: Callable[[Image], Image] | None = None) -> Image:
    x, m = case.clean, np.zeros_like(case.clean)
    for _ in range(STEPS):
        m = MU * m + unit((gradient or case.gradient)(x + case.alpha * MU * m))
        x = case.step(x, m)
    return x


def pre_gradient(case: Case) -> Image:
    x, m, last = case.clean, 0.0, 0.0
    for _ in range(STEPS):
        last = unit(case.gradient(x + case.alpha * last))
        m = MU * m + last
        x = case.step(x, m)
    return x


def enhanced(case: Case) -> Image:
    x, m, last = case.clean, 0.0, 0.0
    for _ in range(STEPS):
        line = [x + c * case.alpha * last for c in np.linspace(-7, 7, 11)]
        last = unit(np.mean([case.gradient(point) for point in line], axis=0))
        m = MU * m + last
        x = case.step(x, m)
    return x


def variance_tuned(case: Case, ahead: bool) -> Image:
    """Take the gradient ahead or not; the neighbours are those of the bim in either case."""
    x, m, v = case.clean, np.zeros_like(case.clean), 0.0
    for _ in range(STEPS):
        g = case.gradient(x + case.alpha * MU * m if ahead else x)
        m = MU * m + unit(g + v)
        around = []
        for _ in range(3):
            r = case.drawn("uniform", *x.shape, low=-1.5, high=1.5) * case.eps
            around.append(case.gradient(x + r))
        v = np.mean(around, axis=0) - g
        x = case.step(x, m)
    return x


def bilinear(old: int, new: int) -> torch.Tensor:
    """Return the matrix (new, old) that resizes an axis, pixels being areas."""
    matrix = np.zeros((new, old))
    for i in range(new):
        place = max((i + 0.5) * old / new - 0.5, 0)
        low = int(place)
        matrix[i, low] += 1 - (place - low)
        matrix[i, min(low + 1, old - 1)] += place - low
    return torch.from_numpy(matrix)


def diverse(case: Case) -> Image:
    def change(x: torch.Tensor) -> torch.Tensor:
        luck, side = case.drawn("uniform"), int(case.drawn("integers", SIDE, 26))
        top, left = np.floor(case.drawn("uniform", 2) * (26 - side)).astype(int)
        if luck >= 0.7:
            return x
        grow, shrink = bilinear(SIDE, side), bilinear(26, SIDE)
        canvas = torch.zeros(3, 26, 26, dtype=x.dtype)
        canvas[:, top : top + side, left : left + side] = grow @ x @ grow.T
        return shrink @ canvas @ shrink.T

    return momentum(case, lambda x: case.gradient(x, change))


def smoothed(case: Case) -> Image:
    line = scipy.stats.norm.pdf(np.linspace(-3, 3, 7))
    kernel = np.outer(line, line) / np.outer(line, line).sum()

    def gradient(x: Image) -> Image:
        channels = case.gradient(x)
        return np.stack([scipy.signal.convolve2d(c, kernel, mode="same") for c in channels])

    return momentum(case, gradient)


def scaled(case: Case) -> Image:
    def gradient(x: Image) -> Image:
        return sum(case.gradient(x, lambda x, i=i: x / 2**i) for i in range(5))

    return nesterov(case, gradient)


def admixed(case: Case) -> Image:
    def gradient(x: Image) -> Image:
        total = np.zeros_like(x)
        for _ in range(3):
            other = torch.from_numpy(case.drawn("others"))
            for i in range(5):
                total += case.gradient(x, lambda x, o=other, i=i: (x + 0.2 * o) / 2**i)
        return total

    return momentum(case, gradient)


def spectral(case: Case) -> Image:
    """Take the gradient at the image that comes back from the changed spectrum."""

    def gradient(x: Image) -> Image:
        total = np.zeros_like(x)
        for _ in range(3):
            noisy = x + 16 / 255 * case.drawn("normal", *x.shape)
            weights = case.drawn("uniform", *x.shape, low=0.5, high=1.5)
            spectrum = scipy.fft.dctn(noisy, axes=(1, 2), norm="ortho") * weights
            total += case.gradient(scipy.fft.idctn(spectrum, axes=(1, 2), norm="ortho"))
        return total

    return momentum(case, gradient)


def important(case: Case) -> Image:
    front, back, total = case.model[:3], case.model[3:], 0
    for _ in range(3):
        kept = case.drawn("uniform", *case.clean.shape) >= 0.3
        feature = front(torch.from_numpy(case.clean * kept)[None]).detach().requires_grad_()
        back(feature)[0, case.label].backward()
        total = total + feature.grad
    weights = total / total.norm()

    def gradient(x: Image) -> Image:
        image = torch.from_numpy(x).requires_grad_()
        (-weights * front(image[None])).sum().backward()
        return image.grad.numpy()

    return momentum(case, gradient)


def decayed(case: Case) -> Image:
    front, back = case.model[:3], case.model[3:]

    def gradient(x: Image) -> Image:
        noisy = torch.from_numpy(case.clean + 0.05 * case.drawn("normal", *x.shape))
        image = torch.from_numpy(x).requires_grad_()
        feature = 0.1 * front(image[None]) + 0.9 * front(noisy[None]).detach()
        logits = back(feature)[0]
        (logits.logsumexp(0) - logits[case.label]).backward()
        return image.grad.numpy()

    return momentum(case, gradient)


RULES = {
    "mi": (mi, momentum),
    "ni": (ni, nesterov),
    "pi": (pi_pregradient, pre_gradient),
    "emi": (emi, enhanced),
    "vmi": (partial(vmi, neighbours=3), partial(variance_tuned, ahead=False)),
    "vni": (partial(vni, neighbours=3), partial(variance_tuned, ahead=True)),
    "di": (partial(di, probability=0.7, resize_rate=1.3), diverse),
    "ti": (partial(ti, kernel_size=7), smoothed),
    "si": (si_ni, scaled),
    "admix": (admix, admixed),
    "ssa": (partial(ssa, copies=3), spectral),
    "fia": (partial(fia, masks=3, layer="2"), important),
    "ilpd": (partial(ilpd, relative_step_size=None, layer="2"), decayed),
}


@pytest.mark.parametrize("name", RULES)
def test_is_the_published_rule(name, network, batch):
    ours, published = RULES[name]
    model = nn.Sequential(nn.Tanh(), *network().double())  # curved on either side of its layers
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
