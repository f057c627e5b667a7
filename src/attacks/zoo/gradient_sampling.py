"""Gradients at points sampled around the iterate: their variance, relevance and flatness."""

from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor

from .. import (
    Gradient,
    Problem,
    Share,
    State,
    attack,
    average,
    checked,
    direction,
    mean_size,
    project,
    steepest_ascent,
)
from ..cosine_transform import along_axes


def _near(point: Tensor, radius: float, state: State) -> Tensor:
    """Return `point` plus U(-radius * eps, radius * eps) in every value."""
    return point + state.eps * state.random.uniform(*point.shape[2:], low=-radius, high=radius)


@checked
class VarianceTuning:
    """Correct each gradient by how the gradients around the last iterate differed from its own.

    The estimate is g_t + v_{t-1}, with v_t = mean over i of grad L(f(x_t + r_i), y) - g_t and
    r_i ~ U(-radius * eps, radius * eps), also with `norm=l2`. The last v is not computed. If g_t is
    taken ahead of x_t, the neighbours are still around x_t, as in the authors' code
    (TransferAttack: around the point ahead).

    Args:
        neighbours: Number of points x_t + r_i.
        radius: Half the side of the cube of points, as a share of the budget (beta).

    Reference: Wang, He (2021), arXiv 2103.15571.
    """

    neighbours: PositiveInt = 20
    radius: NonNegativeFloat = 1.5

    def init(self, problem: Problem) -> Tensor:
        """Return v before the first step."""
        return problem.images.new_zeros(())

    def step(self, gradient: Gradient, state: State, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the estimate and v_t."""
        current = gradient(state.at)
        tuned = current + variance
        if not state.is_last_step:
            points = (_near(state.iterate, self.radius, state) for _ in range(self.neighbours))
            variance = average(map(gradient, points)) - current
        return tuned, variance


def _gradients(n: Any) -> int:
    return 1 + n.budgets * (n.steps - 1) * (1 + n.neighbours)


@attack(estimator=VarianceTuning, decay=1.0, gradients=_gradients)
def vmi() -> None:
    """Tune gradients by the variance nearby: VMI-FGSM, with momentum.

    Name: Variance tuning Momentum Iterative FGSM.
    """


@attack(estimator=VarianceTuning, decay=1.0, lookahead="momentum", gradients=_gradients)
def vni() -> None:
    """Tune gradients by the variance nearby, with the look-ahead of `ni`: VNI-FGSM.

    Name: Variance tuning Nesterov Iterative FGSM.
    """


@checked
class GradientRelevance:
    """Weigh the gradient g by its cosine s with the mean gradient h around it.

    g_t = s * g + (1 - s) * h, h being the mean over i of grad L(f(x_t + r_i), y) with
    r_i ~ U(-radius * eps, radius * eps). s may be negative; it is 0 where a gradient is 0.

    Args:
        samples: Number of points x_t + r_i.
        radius: Half the side of the cube of points, as a share of the budget.

    Reference: Zhu et al.: Boosting Adversarial Transferability via Gradient Relevance Attack
    (2023), https://openaccess.thecvf.com/content/ICCV2023/html/Zhu_Boosting_Adversarial_Transferability_via_Gradient_Relevance_Attack_ICCV_2023_paper.html
    """

    samples: PositiveInt = 20
    radius: NonNegativeFloat = 3.5

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        here = gradient(state.at)
        points = (_near(state.at, self.radius, state) for _ in range(self.samples))
        around = average(map(gradient, points))
        agreement = direction(here, "l2") * direction(around, "l2")  # its mean is the cosine
        return around + agreement.mean(dim=(-3, -2, -1), keepdim=True) * (here - around)


@checked
class ShrinkingSteps:
    """Shorten the step of a pixel's value each time its momentum changes sign.

    The step is multiplied by `shrink` where sign(m_t) differs from sign(m_{t-1}), and never grows
    again. The first change, from m_0 = 0, does not count.

    Args:
        shrink: Factor for a value's step each time its momentum changes sign (eta).

    Reference: Zhu et al.: Boosting Adversarial Transferability via Gradient Relevance Attack
    (2023), ICCV 2023.
    """

    shrink: Annotated[float, Gt(0), Le(1)] = 0.94

    def init(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Return sign(m_0) and the lengths that the first change brings to 1."""
        return problem.images.new_zeros(()), problem.images.new_tensor(1 / self.shrink)

    def step(
        self, momentum: Tensor, state: State, memory: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the step, and the signs and lengths of all values."""
        last, length = memory
        sign = momentum.sign()
        length = length * self.shrink ** (sign != last).to(sign)
        return length * steepest_ascent(momentum, state), (sign, length)


@attack(
    estimator=GradientRelevance,
    update=ShrinkingSteps,
    decay=1.0,
    gradients=lambda n: 1 + n.budgets * (n.steps - 1 + n.samples * n.steps),
)
def gra() -> None:
    """Mix in the mean gradient nearby, weighted by its cosine: gradient relevance, with momentum.

    Name: Gradient Relevance Attack.

    Steps shrink where the momentum changes sign.
    """


@checked
class PenalisedGradientNorm:
    """Average the gradients around x_t, each mixed with the gradient one step down the loss.

    g_t = mean over i of (1 - delta) * grad L(f(a_i), y) + delta * grad L(f(b_i), y), with
    a_i = x_t + U(-zeta * eps, zeta * eps) and b_i = a_i - a * g / mean|g|, g being the gradient at
    a_i and a the step size. Neither point is clipped.

    Args:
        samples: Number of points a_i.
        zeta: Half the side of the cube of points, as a share of the budget.
        delta: Weight of the gradients at the points b_i.

    Reference: Ge et al. (2023), arXiv 2306.05225.

    Deviation: transforms and backward rules draw the same numbers at a_i and b_i, and b_i starts
    from a_i itself (TransferAttack: from the transformed a_i, and it is transformed again).
    """

    samples: PositiveInt = 20
    zeta: NonNegativeFloat = 3.0
    delta: Share = 0.5

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        total = torch.zeros_like(state.images)
        for _ in range(self.samples):
            near = _near(state.at, self.zeta, state)
            count, shared = state.random.count, state.random.shared.count
            here = gradient(near)
            # The next gradient gets the same numbers.
            state.random.count, state.random.shared.count = count, shared
            below = gradient(near - state.step_size * here / mean_size(here))
            total = total + (1 - self.delta) * here + self.delta * below
        return total / self.samples


@attack(
    estimator=PenalisedGradientNorm,
    decay=1.0,
    gradients=lambda n: 2 * n.samples * n.budgets * n.steps,
)
def pgn() -> None:
    """Penalise the gradient norm nearby: PGN, towards a high and flat loss, with momentum.

    Name: Penalising Gradient Norm.
    """


@checked
class ExpectedFlatness:
    """Average the gradients at random points, each shifted by a memory of its own gradients.

    g_t = mean over i of h_i, the gradient at x_t + U(-radius * eps, radius * eps) + shift * eps *
    p_i. Then p_i = h_i / mean|h_i| - inner_decay * p_i; all p_i start at 0. No point is clipped.

    Args:
        samples: Number of points.
        radius: Half the side of the cube of points, as a share of the budget.
        shift: Length of the shift by a memory of mean 1, as a share of the budget.
        inner_decay: Share of the old memory that is subtracted from the new one.

    Reference: Qiu et al. (2024), arXiv 2405.16181.

    Deviation: a transform changes each point once (TransferAttack: the perturbation twice, and then
    the point).
    """

    samples: PositiveInt = 20
    radius: NonNegativeFloat = 2.0
    shift: NonNegativeFloat = 0.15
    inner_decay: NonNegativeFloat = 0.9

    def init(self, problem: Problem) -> list[Tensor]:
        """Return all p_i before the first step."""
        return [problem.images.new_zeros(())] * self.samples

    def step(
        self, gradient: Gradient, state: State, past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the estimate and all p_i."""
        total, memory = torch.zeros_like(state.images), []
        for last in past:
            noise = state.random.uniform(*total.shape[2:], low=-self.radius, high=self.radius)
            near = gradient(state.at + state.eps * (noise + self.shift * last))
            memory.append(near / mean_size(near) - self.inner_decay * last)
            total = total + near
        return total / self.samples, memory


@attack(
    estimator=ExpectedFlatness,
    decay=0.5,
    steps=20,
    relative_step_size=0.1,
    gradients=lambda n: n.samples * n.budgets * n.steps,
)
def mef() -> None:
    """Average gradients at points that past gradients shift: MEF, momentum 0.5, 20 steps.

    Name: Maximin Expected Flatness.
    """


@checked
class ReversePerturbation:
    """Take the gradient at x_t + n, where n lowers the cross-entropy in a ball around x_t.

    With b = inner_radius * eps and projections to the ball of radius b around x_t and to the pixel
    range, n starts at project(x_t + U(-b, b)) - x_t and takes `inner_steps` S steps::

        x_t + n = project(x_t + n - b / S * sign(grad CE(f(x_t + n), y)))

    With target labels, CE is the negative cross-entropy of the target. The search uses CE whatever
    loss the attack maximises.

    Args:
        inner_radius: Radius of the searched ball, as a share of the budget.
        inner_steps: Number S of search steps.
        late_start: Number of first steps without a search (n = 0).

    Reference: Qin et al. (2022), arXiv 2210.05968 (RAP; with late_start = 100 RAP-LS).

    Deviation: lengths are proportional to the budget (authors: fixed).
    """

    inner_radius: NonNegativeFloat = 1.0
    inner_steps: PositiveInt = 8
    late_start: NonNegativeInt = 0

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        if state.step < self.late_start:
            return gradient(state.at)
        ball = (state.at, self.inner_radius * state.eps, state.norm)
        noise = state.random.uniform(*state.at.shape[2:], low=-1.0, high=1.0)
        point = project(state.at + ball[1] * noise, *ball)
        for _ in range(self.inner_steps):
            way = direction(gradient(point, loss="cross_entropy"), state.norm)
            point = project(point - ball[1] / self.inner_steps * way, *ball)
        return gradient(point)


@attack(
    estimator=ReversePerturbation,
    steps=400,
    relative_step_size=0.125,
    gradients=lambda n: (
        n.budgets * (n.steps + n.inner_steps * max(0, n.steps - n.late_start))
        - (n.budgets - 1) * (n.late_start > 0)
    ),
)
def rap() -> None:
    """Take gradients at the worst point nearby, 400 steps: RAP, steps of eps / 8, no momentum.

    Name: Reverse Adversarial Perturbation.
    """


@checked
class ShiftedPerturbation:
    """Average the gradients of perturbations that are shifted by a few pixels.

    With d = x_t - x and shifts S_i, the estimate is the mean over i of the gradient of
    L(f(x + S_i d), y) with respect to d. S_i moves d along each axis by floor((shift + 1) u v)
    pixels, u and v from U(0, 1), in a random direction, and fills in zeros.

    Args:
        copies: Number of shifts.
        shift: Largest shift along an axis, in pixels (k); a whole side leaves no perturbation.

    Reference: Boosting the Local Invariance for Better Adversarial Transferability (2025), arXiv
    2503.06140, read from TransferAttack's code, where N = 30 and
    k = 6 for 224 pixels.
    """

    copies: PositiveInt = 30
    shift: NonNegativeInt = 6

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        changes = state.at - state.images
        return average(self._shifted(gradient, state, changes) for _ in range(self.copies))

    def _shifted(self, gradient: Gradient, state: State, changes: Tensor) -> Tensor:
        numbers, signs = state.random.uniform(2, 2).double(), state.random.integers(0, 2, 2)
        moves = ((self.shift + 1) * numbers.prod(2)).floor() * (2 * signs - 1)
        rows, columns = (
            _shift(side, move).to(changes)
            for side, move in zip(changes.shape[-2:], moves.split(1, dim=1), strict=True)
        )
        moved = gradient(state.images + along_axes(rows, changes, columns))
        return along_axes(rows.mT, moved, columns.mT)


def _shift(length: int, moves: Tensor) -> Tensor:
    """Return matrices (N, 1, length, length) that move by `moves` pixels, (N, 1)."""
    pixels = torch.arange(length, device=moves.device)
    return (pixels[:, None] - pixels == moves[..., None])[:, None]


@attack(
    estimator=ShiftedPerturbation, decay=1.0, gradients=lambda n: n.copies * n.budgets * n.steps
)
def li_boost() -> None:
    """Shift the perturbation by a few pixels: local invariance, with momentum.

    Name: Local Invariance Boosting.
    """
