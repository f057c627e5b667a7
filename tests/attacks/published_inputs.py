"""Published rules that change the images which the source sees, or the step."""

import itertools
from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.interpolate
import scipy.signal
import scipy.stats
import torch

from tests.attacks.published_case import MU, SIDE, STEPS, Case, Change, Image, momentum, unit


def bilinear(old: int, new: int) -> torch.Tensor:
    """Return the matrix (new, old) that resizes an axis, pixels being areas."""
    matrix = np.zeros((new, old))
    for i in range(new):
        place = max((i + 0.5) * old / new - 0.5, 0)
        low = int(place)
        matrix[i, low] += 1 - (place - low)
        matrix[i, min(low + 1, old - 1)] += place - low
    return torch.from_numpy(matrix)


def nearest(old: int, new: int) -> torch.Tensor:
    """Return the matrix (new, old) that resizes an axis to its nearest pixels, counted from 0."""
    line = torch.arange(old, dtype=torch.float64)[None, None]
    chosen = torch.nn.functional.interpolate(line, new, mode="nearest")[0, 0].long()
    return torch.eye(old, dtype=torch.float64)[chosen]


def padding(
    case: Case,
    probability: float = 0.7,
    largest: int = 26,
    resizing: Callable[[int, int], torch.Tensor] = bilinear,
) -> Change:
    luck, side = case.drawn("uniform"), int(case.drawn("integers", SIDE, largest))
    top, left = np.floor(case.drawn("uniform", 2) * (largest - side)).astype(int)

    def change(x: torch.Tensor) -> torch.Tensor:
        if luck >= probability:
            return x
        grow, shrink = resizing(SIDE, side), resizing(largest, SIDE)
        canvas = torch.zeros(3, largest, largest, dtype=x.dtype)
        canvas[:, top : top + side, left : left + side] = grow @ x @ grow.T
        return shrink @ canvas @ shrink.T

    return change


def convolved(image: Image, kernel: np.ndarray) -> Image:
    return np.stack([scipy.signal.convolve2d(c, kernel, mode="same") for c in image])


def gaussian(size: int) -> np.ndarray:
    line = scipy.stats.norm.pdf(np.linspace(-3, 3, size))
    return np.outer(line, line) / np.outer(line, line).sum()


def admixed(case: Case) -> Image:
    def gradient(x: Image) -> Image:
        total = np.zeros_like(x)
        for _ in range(3):
            other = torch.from_numpy(case.drawn("others"))
            for i in range(5):
                total += case.gradient(x, lambda x, o=other, i=i: (x + 0.2 * o) / 2**i)
        return total

    return momentum(case, gradient)


def masked(case: Case, chain_rule: bool) -> Image:
    """Take the gradient through scale and mask, or at the copy."""

    def gradient(x: Image) -> Image:
        total = np.zeros_like(x)
        for _ in range(3):
            mask = 0.4 + 1.2 * case.drawn("others")
            for s in np.linspace(0.2, 0.9, 4):
                factor = s * mask
                g = case.gradient(np.clip(factor * x, 0, 1))
                total += g * factor * (factor * x <= 1) if chain_rule else g
        return total

    return momentum(case, gradient)


def warped(case: Case) -> Image:
    """Sample with hat functions; the plate is SciPy's."""
    line, three = np.linspace(-1, 1, SIDE), np.array([-1, 0, 1])
    places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    points = np.stack(np.meshgrid(three, three), axis=-1).reshape(-1, 2)
    plate = scipy.interpolate.RBFInterpolator(points, np.eye(9)[4], degree=1)
    pull, number = torch.from_numpy(plate(places)[:, None]), torch.arange(SIDE)

    def warp(x: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
        pixels = (torch.from_numpy(places) + pull * xi + 1) / 2 * (SIDE - 1)
        across, down = ((1 - (p[:, None] - number).abs()).relu() for p in pixels.unbind(1))
        return torch.einsum("cij,ui,uj->cu", x, down, across).reshape(x.shape)

    def gradient(x: Image) -> Image:
        total, fixed = np.zeros_like(x), torch.from_numpy(x)
        for _ in range(3):
            xi = case.drawn("uniform", 2, low=-1, high=1)
            xi = xi - 0.5 * case.gradient(xi, lambda move: warp(fixed, move))
            total += case.gradient(x, lambda z, xi=xi: warp(z, torch.from_numpy(xi)))
        return total

    return momentum(case, gradient)


def some_patches(case: Case) -> Image:
    """Six of nine patches, with borders at 7 and 14 pixels of 20."""

    def gradient(x: Image) -> Image:
        mask, delta = np.zeros((SIDE, SIDE)), x - case.clean
        ends = [0, 7, 14, 20]
        for number, rank in enumerate(case.drawn("permutations", 9)):
            i, j = divmod(number, 3)
            mask[ends[i] : ends[i + 1], ends[j] : ends[j + 1]] = rank < 6
        length = np.linalg.norm(delta)
        outwards = delta / length if length else 0
        return mask * case.gradient(case.clean + mask * delta) + 0.1 * outwards

    return momentum(case, gradient)


def triangles(old: slice, new: slice) -> torch.Tensor:
    """Return the matrix (SIDE, SIDE) that resizes part of an axis, smoothing where it shrinks."""
    scale = (old.stop - old.start) / (new.stop - new.start)
    centres = old.start + (np.arange(SIDE)[:, None] - new.start + 0.5) * scale
    weights = np.maximum(1 - np.abs(np.arange(SIDE) + 0.5 - centres) / max(scale, 1), 0)
    weights[:, : old.start], weights[:, old.stop :] = 0, 0
    weights[: new.start], weights[new.stop :] = 0, 0
    return torch.from_numpy(weights / np.maximum(weights.sum(1, keepdims=True), 1e-9))


def block_scaling(case: Case) -> Change:
    numbers = case.drawn("uniform", 31)
    middle, least, cuts = (5 if numbers[3] < 0.5 else 6), SIDE * 30 / 224, []
    for shares in (numbers[4:middle], numbers[middle:7]):
        room = SIDE - least * (len(shares) + 1)
        places = np.sort(shares) * room + least * np.arange(1, len(shares) + 1)
        cuts.append(list(itertools.pairwise([0, *np.floor(places).astype(int), SIDE])))
    parts = []
    for sides, own in zip(itertools.product(*cuts), numbers[7:].reshape(6, 4), strict=True):
        rho, matrices = 1 / 1.7 + own[1] * (1.7 - 1 / 1.7), []
        for (start, end), share in zip(sides, own[2:], strict=True):
            small = max(1, int((end - start) * min(rho, 1 / rho)))
            first = start + int(share * (end - start - small + 1))
            whole, part = slice(start, end), slice(first, first + small)
            way = (whole, whole) if own[0] >= 0.9 else (whole, part) if rho < 1 else (part, whole)
            matrices.append(triangles(*way))
        parts.append(matrices)
    return lambda x: sum(down @ x @ across.T for down, across in parts)


def strongly_scaled(case: Case) -> Image:
    def gradient(x: Image) -> Image:
        image = torch.from_numpy(x).requires_grad_()
        logits = case.model(block_scaling(case)(image)[None])[0]
        largest, second, *_ = sorted(logits.tolist(), reverse=True)
        torch.log_softmax(logits / (largest - second), 0)[case.label].backward()
        return convolved(image.grad.numpy(), gaussian(5))

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
