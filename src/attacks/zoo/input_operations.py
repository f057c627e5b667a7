"""Gradients of images that go through random chains of operations."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor
from torch.nn import functional

from .. import Gradient, PerImageRandom, Problem, State, attack, checked
from ..cosine_transform import along_axes, resizing
from .input_blocks import BlockShuffle
from .input_geometry import DiverseInput, neighbours, sample
from .input_values import Admix, Scale, Spectrum

Operation = Callable[[Tensor, PerImageRandom, int], Tensor]
"""Function (images (K, N, 3, H, W), random numbers, number of a version) -> changed images."""
_DRAWS = 8  # an operation makes fewer draws


def _flip(axis: int, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    return images.flip(axis)


def _roll(axis: int, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    shift = random.integers(0, images.shape[axis])[:, None]
    places = (torch.arange(images.shape[axis], device=shift.device) - shift) % images.shape[axis]
    return images.gather(axis, places[:, None, None].movedim(-1, axis).expand_as(images))


def _rotate(degrees: float, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    """Rotate by degrees / 2^copy; a pixel takes the nearest one, and beyond the image is black."""
    (height, width), angle = images.shape[-2:], math.radians(degrees / 2**copy)
    cos, sin = math.cos(angle), math.sin(angle)
    y = torch.arange(height, dtype=torch.float64, device=images.device)[:, None] - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64, device=images.device) - (width - 1) / 2
    places = cos * y + sin * x + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2
    # The first rounding makes ties the same on any device.
    from_y, from_x = (place[None].round(decimals=6).round() for place in places)
    return sample(images, neighbours(from_y, 0, height), neighbours(from_x, 0, width))


def _divide(divisor: float, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    return images / divisor


def _shuffle(blocks: int, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    return BlockShuffle(1, min(blocks, *images.shape[-2:]), 0.0)(images, random, copy)


def _drop(shares: Sequence[float], images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    return images * (random.uniform(*images.shape[2:]) >= shares[copy])


def _hide(blocks: int, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    """Blacken one of `blocks` x `blocks` blocks."""
    chosen = random.integers(0, blocks, 2, 1)
    places = (torch.arange(side, device=chosen.device) for side in images.shape[-2:])
    y, x = (place * blocks // len(place) == chosen[:, axis] for axis, place in enumerate(places))
    return images * ~(y[:, :, None] & x[:, None])[:, None]


def _enlarge(share: float, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    """Enlarge the middle to the whole: a share of the sides that grows to 1 over five versions."""

    def matrix(side: int) -> Tensor:
        part = int(side * (share + (1 - share) * (copy + 1) / 5))
        places = torch.arange(side, dtype=torch.float64, device=images.device)
        return resizing(places, part, side, side, (side - part) // 2).to(images.dtype)

    return along_axes(matrix(images.shape[-2]), images, matrix(images.shape[-1]))


def _move(pixels: float, images: Tensor, random: PerImageRandom, copy: int) -> Tensor:
    """Move the image down and right by a fraction of `pixels`, rounded; its border is black."""
    moved, (height, width) = round(pixels * (copy + 1) / 5), images.shape[-2:]
    return functional.pad(images, (moved, 0, moved, 0))[..., :height, :width]


Versions = Sequence[tuple[Operation, int]]
"""Operations, each with the number of its version."""


def _change(versions: Versions, chosen: Tensor, images: Tensor, random: PerImageRandom) -> Tensor:
    """Change each image by the version whose number is chosen for it, (K, N) or (N,)."""
    first, numbers, changed = random.count, chosen.unique().tolist(), images
    for number in numbers:  # nearly always one
        random.count, (operation, copy) = first, versions[number]
        version, mask = operation(images, random, copy), (chosen == number)[..., None, None, None]
        changed = torch.where(mask.to(images.device), version, changed) if numbers[1:] else version
    random.count = first + _DRAWS  # whatever the other images of the batch have drawn
    return changed


def _through(
    versions: Versions, chain: Sequence[Tensor], gradient: Gradient, images: Tensor, state: State
) -> Tensor:
    """Return the gradient at images through a chain of chosen versions."""
    with torch.enable_grad():
        changed = start = images.detach().requires_grad_()
        for chosen in chain:
            changed = _change(versions, chosen, changed, state.random)
    return torch.autograd.grad(changed, start, gradient(changed.detach()))[0]


_BASIC: Versions = [
    (Scale(), 0),  # no change
    *((partial(change, axis), 0) for change in (_flip, _roll) for axis in (-2, -1)),
    *((partial(_rotate, angle), 0) for angle in (5, -5, 15, -15, 45, -45, 90, -90, 180)),
    *((partial(_divide, divisor), 0) for divisor in range(2, 9)),
    *((DiverseInput(1.0, rate / 10), 0) for rate in range(11, 30, 2)),
]


@checked
class OperatorSampling:
    """Average the gradients at x_t and, through random operations, at points around it.

    Each copy has a point x_t + r * U(-radius * eps, radius * eps) with r from 0.25, 0.5, ..., 1.5,
    and a chain of two, three or four of 31 operations: none, a flip of either axis, a roll of
    either, a rotation by 5, 15, 45 or 90 degrees in both directions or by 180, a division of all
    values by 2, ..., 8, or resizing and padding as in `di`, up to 1.1, 1.3, ..., 2.9. Rotations
    take the nearest pixel. The operations are the same for all images of a run.

    Args:
        copies: Number of points, each with a chain.
        radius: Half the side of the largest cube of points, as a share of the budget (beta).

    Reference: Guo et al.: Boosting Adversarial Transferability through Augmentation in Hypothesis
    Space (2025), https://openaccess.thecvf.com/content/CVPR2025/html/Guo_Boosting_Adversarial_Transferability_through_Augmentation_in_Hypothesis_Space_CVPR_2025_paper.html,
    with the constants of TransferAttack.

    Deviation: each chain has its own point, and all are new (TransferAttack: 30 of 180 points drawn
    once, each with 30 of 93 chains).
    """

    copies: PositiveInt = 900
    radius: NonNegativeFloat = 2.0

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        total, random = gradient(state.at), state.random
        for _ in range(self.copies):
            size = self.radius * (1 + random.integers(0, 6, 1, 1, 1)) / 4
            noise = size * random.uniform(*total.shape[2:], low=-1.0, high=1.0)
            lengths, numbers = random.shared.integers(2, 5), random.shared.integers(0, 31, 4)
            chain = [numbers[:, place] * (place < lengths) for place in range(4)]
            near = state.at + state.eps * noise
            total = total + _through(_BASIC, chain, gradient, near, state)
        return total / (self.copies + 1)


@attack(
    estimator=OperatorSampling,
    decay=1.0,
    gradients=lambda n: 1 + n.budgets * (n.steps - 1 + n.copies * n.steps),
)
def ops() -> None:
    """Average gradients nearby through chains of operations: OPS, with momentum.

    Name: Operator-Perturbation-based Stochastic optimization.
    """


_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
_LEARNED: list[tuple[Operation, int]] = [
    (Scale(), 1),  # no change
    *((partial(_rotate, 30 * n), 5) for n in range(1, 11)),
    *((Scale(), n) for n in range(1, 11)),
    *((DiverseInput(1.0, 1.1 + 0.05 * n), 1) for n in range(10)),
    *((partial(_shuffle, n), 1) for n in range(3, 13)),
    *((Admix(3, 1, strength), 3) for strength in (0.2, 0.4) for _ in range(5)),
    *((partial(_drop, _SHARES[:n]), n) for n in range(1, 6)),
    *((partial(_drop, _SHARES[:n] + _SHARES[n + 1 :]), 4) for n in range(5)),
    *((partial(_hide, n), 1) for n in range(2, 12)),
    *((Spectrum(1, n / 10), 1) for n in range(1, 10)),
    *((partial(_enlarge, n / 10), 5) for n in range(1, 10)),
    *((partial(_move, 0.5 + 0.05 * n), 5) for n in range(9)),
]
"""Operations, and their numbers of versions."""
_VERSIONS = [(operation, copy) for operation, count in _LEARNED for copy in range(count)]
_COUNTS = torch.tensor([count for _, count in _LEARNED])
_OWNERS = torch.arange(len(_LEARNED)).repeat_interleave(_COUNTS)  # of versions


@checked
class LearnedOperations:
    """Average gradients through pairs of operations, and learn which pairs raise the loss.

    98 operations have logits w, which start at 0. A copy draws two operations with probabilities
    softmax(w). After n copies with losses L_i and probabilities p_i, the product of the two,

        w = w + learning_rate * mean over i of L_i * (gradient of p_i with respect to w)

    The operations, with the strengths of the authors' code, are: none; a rotation; a division of
    all values by a power of 2; one black block; dropout of values; the enlarged middle; a move by a
    pixel; and those of `di`, `bsr` (without rotations), `admix` and `ssa`. An operation has up to
    ten versions, such as strengths, of which a copy draws one. Each image and budget has its own w;
    equal w give all images of a run the same operations.

    Args:
        copies: Number of pairs.
        learning_rate: Length of the steps of w. With that of the authors, draws hardly change in
            ten steps, as p_i is near 1 / 98^2.

    Reference: Zhu et al. (2024), arXiv 2405.14077.

    Deviation: another estimator than TransferAttack's class. Here a step has 100 pairs with one
    version each; the class has three pairs with all versions of both operations, 34 per pair on
    average. At equal cost this one was the stronger with 34 versions per step; with 100 no
    difference was shown. w is that of an image (the class: of a batch); operations of other attacks
    are as there.
    """

    copies: PositiveInt = 100
    learning_rate: NonNegativeFloat = 0.01

    def init(self, problem: Problem) -> Tensor:
        """Return w before the first step, (K, N, operations)."""
        # On the CPU, as the numbers of operations are: a step then waits for a device once.
        shape = len(problem.eps), len(problem.images), len(_LEARNED)
        return torch.zeros(shape, dtype=problem.images.dtype)

    def step(self, gradient: Gradient, state: State, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the estimate and w."""
        total, random = torch.zeros_like(state.images), state.random
        losses, pairs = list[Tensor](), list[Tensor]()
        odds = weights.softmax(-1)
        ends = (odds / _COUNTS)[..., _OWNERS].cumsum(-1)[..., None, :-1]
        for _ in range(self.copies):
            chosen = (ends <= random.shared.uniform(2)[..., None]).sum(-1)
            total = total + _through(_VERSIONS, chosen.unbind(-1), gradient, state.at, state)
            losses.append(random.scratch["losses"])
            pairs.append(_OWNERS[chosen])
        pair = torch.stack(pairs)
        chances = odds.expand(self.copies, -1, -1, -1).gather(-1, pair).prod(-1)
        change = functional.one_hot(pair, len(_LEARNED)).sum(-2) - 2 * odds
        change = (torch.stack(losses).cpu() * chances)[..., None] * change
        return total / self.copies, weights + self.learning_rate * change.mean(0)


@attack(
    estimator=LearnedOperations,
    decay=1.0,
    gradients=lambda n: n.budgets * n.steps * n.copies,
    mixes=True,
)
def l2t() -> None:
    """Learn which pairs of operations raise the loss, one version per pair: L2T, with momentum.

    Name: Learning to Transform.
    """
