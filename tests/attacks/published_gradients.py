"""Published rules of momentum, gradient estimators and ensembles."""

from functools import partial

import numpy as np
import torch

from tests.attacks.published_case import MU, STEPS, Case, Image, momentum, unit
from tests.attacks.published_inputs import convolved, moved, padding


def warmed_up(case: Case) -> Image:
    m = np.zeros_like(case.clean)
    for steps, scale in ((2, 3), (STEPS, 1)):
        x = case.clean
        for _ in range(steps):
            m = MU * m + unit(case.gradient(x))
            x = case.clip(x + scale * case.alpha * np.sign(m))
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


def penalised(case: Case) -> Image:
    """Show both points with the same padding."""

    def gradient(x: Image) -> Image:
        total = np.zeros_like(x)
        for _ in range(3):
            a = x + 3 * case.eps * case.drawn("uniform", *x.shape, low=-1, high=1)
            change = padding(case)
            g = case.gradient(a, change)
            total += 0.3 * g + 0.7 * case.gradient(a - case.alpha * unit(g), change)
        return total

    return momentum(case, gradient)


def flat(case: Case) -> Image:
    memories = [np.zeros_like(case.clean)] * 3

    def gradient(x: Image) -> Image:
        total = 0.0
        for i in range(3):
            u = 2 * case.eps * case.drawn("uniform", *x.shape, low=-1, high=1)
            g = case.gradient(x + u + 0.15 * case.eps * memories[i])
            memories[i] = unit(g) - 0.9 * memories[i]
            total = total + g
        return total

    return momentum(case, gradient)


def relevant(case: Case) -> Image:
    x, m, signs, b = case.clean, 0.0, 0.0, 1 / 0.6
    for _ in range(STEPS):
        g0, around = case.gradient(x), []
        for _ in range(3):
            r = 3.5 * case.eps * case.drawn("uniform", *x.shape, low=-1, high=1)
            around.append(case.gradient(x + r))
        gbar = np.mean(around, axis=0)
        s = (g0 * gbar).sum() / (np.linalg.norm(g0) * np.linalg.norm(gbar))
        m = MU * m + unit(s * g0 + (1 - s) * gbar)
        b = b * np.where(np.sign(m) == signs, 1, 0.6)
        signs = np.sign(m)
        x = case.clip(x + case.alpha * b * signs)
    return x


def reversed_first(case: Case) -> Image:
    x, m = case.clean, np.zeros_like(case.clean)
    for t in range(STEPS):
        n = np.zeros_like(x)
        if t >= 1:
            n = 1.5 * case.eps * case.drawn("uniform", *x.shape, low=-1, high=1)
            n = np.clip(x + n, 0, 1) - x
            for _ in range(3):
                n = n - 0.5 * case.eps * np.sign(case.gradient(x + n))
                n = np.clip(x + np.clip(n, -1.5 * case.eps, 1.5 * case.eps), 0, 1) - x
        m = MU * m + unit(-case.gradient(x + n, logit=True))
        x = case.step(x, m)
    return x


def integrated(case: Case) -> Image:
    """Differentiate through each change by itself."""

    def gradient(x: Image) -> Image:
        total = np.zeros_like(x)
        for copy in range(9):
            change = moved(case) if copy else lambda z: z
            z = change(torch.from_numpy(x))
            low, high = z.amin((1, 2), keepdim=True), z.amax((1, 2), keepdim=True)
            cuts = low + torch.from_numpy(case.drawn("uniform", 2, 3, 1, 1)) * (high - low)
            b = torch.stack([low.expand_as(z), *torch.where(cuts <= z, cuts, low)]).amax(0)
            for share in (0.65 / 2, 1.65 / 2):
                way = partial(lambda s, b, t, w: b + s * (t(w) - b), share, b, change)
                total += (z - b).numpy() * case.gradient(x, way)
        return total

    return momentum(case, gradient)


def patch_wise(case: Case) -> Image:
    x, m, a = case.clean, np.zeros_like(case.clean), 0.0
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]) / 8
    for _ in range(STEPS):
        m = MU * m + unit(case.gradient(x))
        v = 4.2 * case.alpha * np.sign(m)
        a = a + v
        c = np.maximum(np.abs(a) - case.eps, 0) * np.sign(a)
        p = 0.5 * 4.2 * case.alpha * np.sign(np.round(convolved(c, ring) / case.eps, 6))
        a = a + p
        x = case.clip(x + v + p)
    return x


def common_weakness(case: Case) -> Image:
    x, inner, outer = case.clean, 0.0, 0.0
    for _ in range(STEPS):
        b = case.clip(x - case.eps / 15 * np.sign(case.gradient(x)))
        for member in case.model.members:
            g = case.gradient(b, model=member)
            inner = 0.9 * inner + g / np.linalg.norm(g)
            b = case.clip(b + 0.644 * np.sqrt(x.size) * inner)
        outer = MU * outer + (b - x) / np.abs(b - x).sum()
        x = case.step(x, outer)
    return x


def variance_reduced(case: Case) -> Image:
    x, outer, members = case.clean, 0.0, case.model.members
    for _ in range(STEPS):
        ge, b, inner = case.gradient(x), x, 0.0
        for j in range(3 * len(members)):
            k = int(case.random.shared.integers(0, len(members))[0]) if j else 0
            q = case.gradient(b, model=members[k])
            inner = 0.9 * inner + unit(q - (case.gradient(x, model=members[k]) - ge))
            b = case.step(b, inner)
        outer = MU * outer + unit(inner)
        x = case.step(x, outer)
    return x
