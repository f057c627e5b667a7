"""Published rules once more, as plain loops over one image.

They are those of attacks whose stored reference (`test_references.py`) is missing or far from ours,
`ni`, the example of the documentation, and the step rule `mdcs`.
Nothing of `src.attacks` is used here but the random numbers, which both sides have to share. All is
float64, so that a rule that differs in one place differs by far more than the tolerance.
"""

import itertools
from collections.abc import Callable
from functools import partial, reduce

import numpy as np
import pytest
import scipy.fft
import scipy.interpolate
import scipy.signal
import scipy.stats
import torch
from torch import nn

from src import attacks
from tests.attacks import published_case as cases
from tests.attacks.conftest import KINDS
from tests.attacks.published_case import BUDGETS, MU, SIDE, STEPS, Case, Change, Image, momentum


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


def padding(case: Case, probability: float = 0.7, largest: int = 26, resizing=bilinear) -> Change:
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


def smoothed(image: Image) -> Image:
    line = scipy.stats.norm.pdf(np.linspace(-3, 3, 5))
    kernel = np.outer(line, line) / np.outer(line, line).sum()
    return np.stack([scipy.signal.convolve2d(c, kernel, mode="same") for c in image])


def with_momentum(gradient: Callable[[Case, Image], Image]) -> Callable[[Case], Image]:
    return lambda case: momentum(case, partial(gradient, case))


@with_momentum
def masked(case: Case, x: Image) -> Image:
    """Take the gradient through scale and mask."""
    total = np.zeros_like(x)
    for _ in range(3):
        mask = 0.4 + 1.2 * case.drawn("others")
        for factor in (s * mask for s in np.linspace(0.2, 0.9, 4)):
            g = case.gradient(np.clip(factor * x, 0, 1))
            total += g * factor * (factor * x <= 1)
    return total


@with_momentum
def warped(case: Case, image: Image) -> Image:
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

    total, fixed = np.zeros_like(image), torch.from_numpy(image)
    for _ in range(3):
        xi = case.drawn("uniform", 2, low=-1, high=1)
        xi = xi - 0.5 * case.gradient(xi, lambda move: warp(fixed, move))
        total += case.gradient(image, lambda z, xi=xi: warp(z, torch.from_numpy(xi)))
    return total


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


@with_momentum
def strongly_scaled(case: Case, x: Image) -> Image:
    image = torch.from_numpy(x).requires_grad_()
    logits = case.model(block_scaling(case)(image)[None])[0]
    largest, second, *_ = sorted(logits.tolist(), reverse=True)
    torch.log_softmax(logits / (largest - second), 0)[case.label].backward()
    return smoothed(image.grad.numpy())


@with_momentum
def mixed_up(case: Case, x: Image) -> Image:
    """Mix features of another image into both layers with weights."""
    change = padding(case, resizing=nearest)
    other = torch.from_numpy(case.drawn("others"))[None]

    def logits(z: torch.Tensor) -> torch.Tensor:
        clean = other
        for layer in case.model:
            z, clean = layer(z), layer(clean).detach()
            if hasattr(layer, "weight") and not isinstance(layer, nn.BatchNorm2d):
                coin, *ratios = case.drawn("uniform", 1 + z.shape[1])
                a = 0.75 * torch.tensor(ratios).reshape(-1, *(1 for _ in z.shape[2:]))
                z = (1 - a) * z + a * clean if coin < 0.5 else z
        return z

    return smoothed(case.gradient(x, change, logits, logit=True))


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


@with_momentum
def sampled_operators(case: Case, x: Image) -> Image:
    total = case.gradient(x)
    for _ in range(3):
        radius = 1.5 * case.eps * case.drawn("integers", 1, 7, 1, 1, 1) / 4
        near = x + radius * case.drawn("uniform", 3, SIDE, SIDE, low=-1, high=1)
        length = int(case.random.shared.integers(2, 5))
        numbers = case.random.shared.integers(0, 31, 4)[0].tolist()
        chain = [drawing(case, basic, number) for number in numbers[:length]]
        case.random.count += 8 * (4 - length)
        total += case.gradient(near, in_turn(chain))
    return total / 4


def drawing(case: Case, make, *words) -> Change:
    """Return an operation, and leave the stream eight draws later."""
    first = case.random.count
    made = make(case, *words)
    case.random.count = first + 8
    return made


def in_turn(chain: list[Change]) -> Change:
    return lambda x: reduce(lambda image, change: change(image), chain, x)


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
    part = torch.arange(SIDE) * blocks // SIDE
    mask = ~((part == row)[:, None] & (part == column))
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


RATE = 1e4


def learned_operations(case: Case) -> Image:
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
        weights = weights + RATE * slope
        return total / 4

    return momentum(case, gradient)


FACTORS = {"scores": 0.4, "qkv": 0.7, "mlp": 0.6}
TUNED = {"attention": 0.4, "mlp": 0.6, "adaptivity": 0.3, "truncated": 0.4, "patches": SIDE // 2}


def tuned_tokens(case: Case) -> Image:
    """Run a transformer of two blocks; the attention of its last block has no gradient."""
    embed, *head = case.model[1], *case.model[2:]
    variances: dict[str, float] = {}

    def damp(kind: str, last: bool, z: torch.Tensor) -> torch.Tensor:
        def change(gradient: torch.Tensor) -> torch.Tensor:
            g = gradient[0].numpy() * (0 if kind == "scores" and last else FACTORS[kind])
            weight, above = 0.5, 0 if last else variances[kind]
            if above:
                weight = np.clip(0.5 + 0.3 * (1 - np.sqrt(g.var(ddof=1) / above)), 0, 1)
            for part in g if kind == "scores" else g.T[:, :, None]:
                ends = [np.unravel_index(find(part), part.shape) for find in (np.argmax, np.argmin)]
                for row, column in ends:
                    part[row] *= weight
                    part[:, column] *= weight if kind == "scores" else 1
            variances[kind] = g.var(ddof=1)
            return torch.from_numpy(g)[None]

        z.register_hook(change)
        return z

    def run(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z, outputs = embed._pos_embed(embed.patch_embed(image[None].tanh())), []
        for block in embed.blocks:
            last, attention = block is embed.blocks[-1], block.attn
            qkv = damp("qkv", last, attention.qkv(block.norm1(z)))
            q, k, v = qkv.unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
            scores = damp("scores", last, q @ k.mT * attention.scale).softmax(-1)
            z = z + attention.proj((scores @ v).transpose(1, 2).flatten(2))
            z = z + damp("mlp", last, block.mlp(block.norm2(z)))
            outputs.append(z)
        return nn.Sequential(*head)(embed.forward_head(embed.norm(z)))[0], outputs[-2]

    logits, features = run(torch.from_numpy(case.clean).requires_grad_())
    (slope,) = torch.autograd.grad(logits.sum(), features)
    tokens = (features * slope).sum(-1)[0, 1:].reshape(SIDE // 2, SIDE // 2).detach()
    enlarge = bilinear(SIDE // 2, SIDE).unflatten(0, (-1, 2)).mean(1)  # and average over patches
    means, steps = (enlarge @ tokens @ enlarge.T).numpy(), itertools.count(1)
    lowest = 0.4 + 0.4 * (means - means.min()) / np.ptp(means)

    def gradient(x: Image) -> Image:
        share = 0.99 - (0.99 - lowest) * next(steps) / STEPS
        mask = np.kron(case.drawn("uniform", 1, SIDE // 2, SIDE // 2)[0] <= share, np.ones((2, 2)))
        at = case.clean + mask * (x - case.clean)
        return mask * case.gradient(at, model=lambda z: run(z[0])[0][None])

    return momentum(case, gradient)


AIMED = {"targeted": True, "relative_step_size": None}
MIXED = {"probability": 0.7, "resize_rate": 1.3, "mix_probability": 0.5, "max_width": 1.0}
RULES = {
    "ni": (attacks.ni, cases.nesterov),
    "mdcs": (partial(attacks.mi, step_rule="mdcs"), cases.decaying),
    "usmm": (partial(attacks.usmm, scales=4, lowest=0.2, highest=0.9, strength=0.6), masked),
    "ops": (partial(attacks.ops, copies=3, radius=1.5), sampled_operators),
    "l2t": (partial(attacks.l2t, copies=4, learning_rate=RATE), learned_operations),
    "att": (partial(attacks.att, **TUNED), tuned_tokens),
    "decowa": (partial(attacks.decowa, copies=3, rho=0.5), warped),
    "s4st": (partial(attacks.s4st, colour=0.0, **AIMED), strongly_scaled),
    "cfm": (partial(attacks.cfm, **AIMED, **MIXED), mixed_up),
}


@pytest.mark.parametrize("name", RULES)
def test_is_the_published_rule(name, network, batch):
    ours, published = RULES[name]
    made_of = network(build=KINDS["attention"]) if name == "att" else network()
    model = nn.Sequential(nn.Tanh(), *made_of.double())  # curved on either side of its layers
    images, labels = batch(3, SIDE)
    images, (others, classes) = images.double(), batch(6, SIDE, seed=2)
    pool, seeds = (others.double(), classes), torch.tensor([3, 1, 4])
    words = {"steps": STEPS, "decay": MU}
    eps = torch.tensor(BUDGETS, dtype=torch.float64)
    made = ours(model, images, labels, eps, seeds=seeds, pool=pool, **words).numpy()
    for k, budget in enumerate(BUDGETS):
        for n, (image, label) in enumerate(zip(images, labels, strict=True)):
            random = attacks.PerImageRandom(seeds[n, None], images, labels[n, None], pool)
            case = Case(model, image.numpy(), int(label), budget, random)
            expected = published(case)
            np.testing.assert_allclose(made[k, n], expected, atol=1e-12, rtol=0)
            assert np.abs(expected - case.clean).max() > 0.9 * budget
