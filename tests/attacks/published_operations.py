"""Published rules of chains of operations, one image at a time."""

import numpy as np
import scipy.fft
import torch

from tests.attacks.published_case import SIDE, Case, Change, Image, momentum
from tests.attacks.published_inputs import bilinear, padding


def rotated(degrees: float) -> Change:
    line = np.arange(SIDE) - (SIDE - 1) / 2
    turned = (line + 1j * line[:, None]) * np.exp(1j * np.radians(degrees))
    x, y = (np.rint(np.round(part + (SIDE - 1) / 2, 6)) for part in (turned.real, turned.imag))
    inside = torch.from_numpy((x >= 0) & (x < SIDE) & (y >= 0) & (y < SIDE))
    rows, columns = (torch.from_numpy(its.clip(0, SIDE - 1).astype(int)) for its in (y, x))
    return lambda image: image[:, rows, columns] * inside


def rolled(case: Case, axis: int) -> Change:
    shift = int(case.drawn("integers", 0, SIDE))
    return lambda image: image.roll(shift, axis)


def basic(case: Case, number: int) -> Change:
    """The 31 operations of OPS in their order in TransferAttack, with flips before rolls."""
    if number < 5:
        axis = -2 if number in (1, 3) else -1
        plain = (lambda x: x) if number == 0 else lambda x: x.flip(axis)
        return rolled(case, axis) if number > 2 else plain
    if number < 14:
        return rotated([5, -5, 15, -15, 45, -45, 90, -90, 180][number - 5])
    if number < 21:
        return lambda x: x / (number - 12)
    return padding(case, 1.0, int(SIDE * (1.1 + 0.2 * (number - 21)) + 1e-6))


def sampled_operators(case: Case) -> Image:
    def gradient(x: Image) -> Image:
        total = case.gradient(x)
        for _ in range(3):
            radius = 1.5 * case.eps * case.drawn("integers", 1, 7, 1, 1, 1) / 4
            near = x + radius * case.drawn("uniform", 3, SIDE, SIDE, low=-1, high=1)
            length = int(case.random.shared.integers(2, 5))
            numbers = case.random.shared.integers(0, 31, 4)[0].tolist()
            chain = [drawing(case, basic, number) for number in numbers[:length]]
            for _ in numbers[length:]:
                drawing(case, basic, 0)
            total += case.gradient(near, in_turn(chain))
        return total / 4

    return momentum(case, gradient)


def drawing(case: Case, make, *words) -> Change:
    """Return an operation, and leave the stream eight draws later."""
    first = case.random.drawn
    made = make(case, *words)
    case.random.drawn = first + 8
    return made


def in_turn(chain: list[Change]) -> Change:
    def change(x: torch.Tensor) -> torch.Tensor:
        for one in chain:
            x = one(x)
        return x

    return change


def shuffled(case: Case, blocks: int) -> Change:
    lines = []
    for _ in range(2):
        weights, order = 1 - case.drawn("uniform", blocks), case.drawn("permutations", blocks)
        shares = np.float32(weights).cumsum(dtype=np.float32) / np.float32(weights).sum()
        ends = [0, *np.rint(shares * (SIDE - blocks)).astype(int) + np.arange(1, blocks + 1)]
        lines.append(np.concatenate([np.arange(ends[b], ends[b + 1]) for b in order]))
    return lambda x: x[:, lines[0]][:, :, lines[1]]


def dropped(case: Case, share: float) -> Change:
    left = torch.from_numpy(case.drawn("uniform", 3, SIDE, SIDE) >= share)
    return lambda x: x * left


def hidden(case: Case, blocks: int) -> Change:
    row, column = case.drawn("integers", 0, blocks, 2, 1)[:, 0]
    mask = torch.ones(SIDE, SIDE, dtype=torch.float64)
    inside = [[p for p in range(SIDE) if p * blocks // SIDE == its] for its in (row, column)]
    for y in inside[0]:
        mask[y, inside[1]] = 0
    return lambda x: x * mask


def reweighted(case: Case, rho: float) -> Change:
    noise = 16 / 255 * case.drawn("normal", 3, SIDE, SIDE)
    weights = case.drawn("uniform", 3, SIDE, SIDE, low=1 - rho, high=1 + rho)
    words = {"axes": (1, 2), "norm": "ortho"}

    def change(x: torch.Tensor) -> torch.Tensor:
        spectrum = scipy.fft.dctn(x.detach().numpy() + noise, **words) * weights
        return torch.from_numpy(scipy.fft.idctn(spectrum, **words)) + x - x.detach()

    return change


def enlarged(share: float) -> Change:
    part = int(SIDE * share)
    top, matrix = (SIDE - part) // 2, bilinear(part, SIDE)
    return lambda x: matrix @ x[:, top : top + part, top : top + part] @ matrix.T


def moved_down(pixels: int) -> Change:
    matrix = torch.eye(SIDE, dtype=torch.float64).roll(pixels, 0)
    matrix[:pixels] = 0
    return lambda x: matrix @ x @ matrix.T


def mixed(case: Case, strength: float, divisor: float) -> Change:
    other = torch.from_numpy(case.drawn("others"))
    return lambda x: (x + strength * other) / divisor


def learned() -> list[list]:
    """The operations of L2T: functions of the case, one for each version."""
    subsets = ["1", "12", "123", "1234", "12345", "2345", "1345", "1245", "1235", "1234"]
    fifths, plain = [0.2, 0.4, 0.6, 0.8, 1.0], lambda change: lambda case: change
    return [
        [plain(lambda x: x)],
        *([plain(rotated(a / 2**i)) for i in range(5)] for a in range(30, 301, 30)),
        *([plain(lambda x, i=i: x / 2**i) for i in range(n)] for n in range(1, 11)),
        *([lambda c, r=r: padding(c, 1.0, int(SIDE * r / 100))] for r in range(110, 156, 5)),
        *([lambda c, n=n: shuffled(c, n)] for n in range(3, 13)),
        *([lambda c, s=s, i=i: mixed(c, s, 2**i) for i in range(3)] for s in [0.2] * 5 + [0.4] * 5),
        *([lambda c, p=p: dropped(c, int(p) / 10) for p in text] for text in subsets),
        *([lambda c, n=n: hidden(c, n)] for n in range(2, 12)),
        *([lambda c, n=n: reweighted(c, n / 10)] for n in range(1, 10)),
        *([plain(enlarged(r + (1 - r) * f)) for f in fifths] for r in np.arange(1, 10) / 10),
        *([plain(moved_down(round(p * f))) for f in fifths] for p in 0.5 + np.arange(9) / 20),
    ]


def learned_operations(case: Case, rate: float) -> Image:
    operations, weights = learned(), torch.zeros(98, dtype=torch.float64)
    flat = [(n, make) for n, its in enumerate(operations) for make in its]

    def gradient(x: Image) -> Image:
        nonlocal weights
        weights, total, value = weights.detach().requires_grad_(), np.zeros_like(x), 0.0
        odds = weights.softmax(0)
        ends = np.cumsum([odds[n].item() / len(operations[n]) for n, _ in flat])[:-1]
        for _ in range(4):
            luck = case.random.shared.uniform(2)[0].numpy()
            pair = [flat[np.searchsorted(ends, its, side="right")] for its in luck]
            change = in_turn([drawing(case, make) for _, make in pair])
            total += case.gradient(x, change)
            with torch.no_grad():
                logits = case.model(change(torch.from_numpy(x))[None])[0]
                loss = logits.logsumexp(0) - logits[case.label]
            value = value + loss * odds[pair[0][0]] * odds[pair[1][0]]
        (slope,) = torch.autograd.grad(value / 4, weights)
        weights = weights + rate * slope
        return total / 4

    return momentum(case, gradient)
