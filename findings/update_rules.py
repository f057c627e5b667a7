"""Update rules of published attacks, and a judge of attacks that claim to follow them.

A rule computes the next iterate from the current one, x of shape (N, 3, H, W). `memory` is empty
before the first iteration and is kept. `c` has settings and functions, see `Tools`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy

Memory = dict[str, Any]


class Tools:
    """What a rule may use, for images in [0, 1].

    Attributes:
        eps: Radius of the L-infinity ball.
        steps: Number of iterations.
        step: Length of a step; the sum of all is longer than eps.
        mu: Decay of the momentum; not 1, so that its place matters.
        copies: Number of copies or neighbours per gradient.
        radius: Radius of the cube of neighbours.
        reach: Length of the line of `emi`, in steps.
        amplified: Factor of a step of `pi_patchwise`.
        kernel: Side of the Gaussian that smooths gradients, in pixels.
    """

    eps, steps, step, mu = 8 / 255, 6, 2.5 / 255, 0.6
    copies, radius, reach, amplified, kernel = 3, 12 / 255, 7.0, 1.7, 15

    def __init__(self, network: Any, images: Tensor, labels: Tensor, **settings: Any) -> None:
        self.network, self.images, self.labels = network, images, labels
        vars(self).update(settings)

    def grad(self, point: Tensor) -> Tensor:
        """Compute the gradient of the mean cross-entropy at a point."""
        leaf = point.detach().requires_grad_()
        return torch.autograd.grad(cross_entropy(self.network(leaf), self.labels), leaf)[0]

    def near(self, x: Tensor) -> Tensor:
        """Draw a point, uniform in the cube around x."""
        return x + self.radius * (2 * torch.rand_like(x) - 1)

    def sign(self, values: Tensor) -> Tensor:
        """Compute signs."""
        return values.sign()

    def clip(self, x: Tensor) -> Tensor:
        """Project onto the ball around the images and onto [0, 1]."""
        return x.clamp(self.images - self.eps, self.images + self.eps).clamp(0, 1)

    def unit(self, gradient: Tensor) -> Tensor:
        """Divide the gradient of each image by its mean absolute value."""
        return gradient / gradient.abs().mean((1, 2, 3), keepdim=True)

    def accumulate(self, momentum: Tensor | float, gradient: Tensor) -> Tensor:
        """Add a gradient to the decayed momentum."""
        return self.mu * momentum + self.unit(gradient)


Rule = Callable[[Tensor, Memory, Tools], Tensor]


def climb(x: Tensor, m: Memory, c: Tools, gradient: Tensor, kept: bool = True) -> Tensor:
    """Step along the sign of the momentum; if it is not kept, the gradient stands in for it."""
    m["g"] = c.accumulate(m.get("g", 0.0) if kept else gradient, gradient)
    return c.clip(x + c.step * c.sign(m["g"]))


def ahead(x: Tensor, m: Memory, c: Tools) -> Tensor:
    """Move a step along the decayed momentum."""
    return x + c.step * c.mu * m.get("g", 0.0)


def smooth(gradient: Tensor, c: Tools, wide: bool = False) -> Tensor:
    """Smooth a gradient by a Gaussian that ends at three standard deviations.

    The wide one is the square root of the normal distribution's share of each pixel.
    """
    bell = torch.exp(-(torch.linspace(-3, 3, c.kernel, dtype=gradient.dtype) ** 2) / 2)
    if wide:
        end = 3 + 3.5 / c.kernel
        edges = torch.linspace(-end, end, c.kernel + 1, dtype=gradient.dtype)
        bell = torch.special.ndtr(edges).diff().sqrt()
    kernel = (torch.outer(bell, bell) / bell.sum() ** 2).expand(3, 1, -1, -1)
    return conv2d(gradient, kernel, padding=c.kernel // 2, groups=3)


def scaled(x: Tensor, c: Tools, floor: float, cleared: bool = True) -> Tensor:
    """Sum the gradients of copies with halved, quartered, ... differences from a grey level.

    If gradients are not cleared between copies, the first copy counts once for each of them.
    """
    counts = [1 if cleared else c.copies - i for i in range(c.copies)]
    copies = enumerate(floor + (x - floor) / 2**i for i in range(c.copies))
    return torch.stack([counts[i] * c.grad(copy) / 2**i for i, copy in copies]).sum(0)


def nearby(x: Tensor, c: Tools) -> Tensor:
    """Average the gradients at random points around x."""
    return torch.stack([c.grad(c.near(x)) for _ in range(c.copies)]).mean(0)


def patchwise(x: Tensor, m: Memory, c: Tools) -> Tensor:
    """Take a long step, and give its excess over eps to the neighbours of a pixel."""
    long = c.step * c.amplified
    step = long * c.sign(c.grad(x))
    total = m.get("total", 0.0) + step
    excess = (total.abs() - c.eps).clamp(min=0) * total.sign()
    ring = torch.tensor([[1.0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=x.dtype) / 8
    given = long * c.sign(conv2d(excess, ring.expand(3, 1, 3, 3), padding=1, groups=3))
    m["total"] = total + given
    return c.clip(x + step + given)


def enhanced(x: Tensor, m: Memory, c: Tools) -> Tensor:
    """Average the gradients on a line along the last average."""
    line = c.step * torch.linspace(-c.reach, c.reach, c.copies, dtype=x.dtype)
    last = m.get("last", torch.zeros_like(x))
    m["last"] = gradient = c.unit(torch.stack([c.grad(x + far * last) for far in line]).mean(0))
    return climb(x, m, c, gradient)


def tuned(x: Tensor, m: Memory, c: Tools, point: Tensor, moved: bool = False) -> Tensor:
    """Add the last difference of the mean gradient nearby from the gradient at a point.

    The points nearby are around x, or around the point ahead of it by the new momentum.
    """
    gradient = c.grad(point)
    following = climb(x, m, c, gradient + m.get("variance", 0.0))
    m["variance"] = nearby(ahead(x, m, c) if moved else x, c) - gradient
    return following


def relevant(x: Tensor, m: Memory, c: Tools, signs: bool = True) -> Tensor:
    """Weigh gradient and mean gradient nearby by their cosine; shorten steps on changed signs."""
    gradient, mean, old = c.grad(x), nearby(x, c), m.get("g", torch.zeros_like(x))
    cosine = torch.cosine_similarity(gradient.flatten(1), mean.flatten(1))[:, None, None, None]
    m["g"] = new = c.accumulate(old, cosine * gradient + (1 - cosine) * mean)
    same = c.sign(old) == c.sign(new) if signs else old == new
    m["share"] = m.get("share", 1 / 0.94) * torch.where(same, 1.0, 0.94)
    return c.clip(x + c.step * m["share"] * c.sign(new))


RULES: dict[str, Rule] = {
    "fgsm": lambda x, m, c: c.clip(x + c.eps * c.sign(c.grad(x))),
    "bim": lambda x, m, c: c.clip(x + c.step * c.sign(c.grad(x))),
    "mi": lambda x, m, c: climb(x, m, c, c.grad(x)),
    "ni": lambda x, m, c: climb(x, m, c, c.grad(ahead(x, m, c))),
    "ti_bim": lambda x, m, c: c.clip(x + c.step * c.sign(smooth(c.grad(x), c))),
    "ti_mi": lambda x, m, c: climb(x, m, c, smooth(c.grad(x), c)),
    "si_mi": lambda x, m, c: climb(x, m, c, scaled(x, c, 0.5)),
    "si_mi, black": lambda x, m, c: climb(x, m, c, scaled(x, c, 0.0)),
    "si_ni": lambda x, m, c: climb(x, m, c, scaled(ahead(x, m, c), c, 0.5)),
    "si_ni, black": lambda x, m, c: climb(x, m, c, scaled(ahead(x, m, c), c, 0.0)),
    "pi_patchwise": patchwise,
    "emi": enhanced,
    "vmi": lambda x, m, c: tuned(x, m, c, x),
    "vni": lambda x, m, c: tuned(x, m, c, ahead(x, m, c)),
    "gra": relevant,
}
RULES |= {"pgd": RULES["bim"], "di": RULES["bim"], "mdi": RULES["mi"], "ti_dim": RULES["ti_mi"]}
"""Rules by variant and reading. Random transforms are off, and `pgd` begins at a random point."""

OTHERS: dict[str, Rule] = {
    "mi": lambda x, m, c: climb(x, m, c, c.grad(x).sign()),
    "ni": lambda x, m, c: climb(x, m, c, c.grad(ahead(x, m, c)), False),
    "ti_mi": lambda x, m, c: climb(x, m, c, smooth(c.grad(x), c, True), False),
    "si_ni": lambda x, m, c: climb(
        x, m, c, scaled(ahead(x, m, c), c, 0.0, False) / c.copies, False
    ),
    "vni": lambda x, m, c: tuned(x, m, c, ahead(x, m, c), True),
    "gra": partial(relevant, signs=False),
}
"""Rules of classes that do not follow their own."""


def run(rule: Rule, c: Tools, start: Tensor | None = None) -> Tensor:
    """Run a rule for all steps, from a start or from the images."""
    x, memory = c.images if start is None else start, Memory()
    for _ in range(c.steps):
        x = rule(x, memory, c)
    return x


class Replay(Tools):
    """Tools with the random points of an attack's own run.

    Attributes:
        points: Points where the attack takes gradients, in their order.
        missed: What the rule uses and the attack does not.
        unclear: Values that rounding may decide, as the argument of a sign is near 0.
    """

    def __init__(self, c: Tools, points: list[Tensor]) -> None:
        vars(self).update(vars(c) | {"network": lambda x: c.network(x.double())})
        self.points, self.used, self.missed = points, set[int](), list[str]()
        self.rounding = 1e-9 if c.images.dtype == torch.float64 else 1e-6
        self.unclear = torch.zeros_like(c.images, dtype=torch.bool)

    def grad(self, point: Tensor) -> Tensor:
        """Compute the gradient at a point that the attack visited."""
        equal = [((point - other).abs() <= self.rounding).all() for other in self.points]
        self.used |= {number for number, same in enumerate(equal) if same}
        self.missed += [] if any(equal) or self.missed else ["where the gradient is taken"]
        return super().grad(point)

    def near(self, x: Tensor) -> Tensor:
        """Return the attack's next point in the cube around x that reaches its border."""
        for number, point in enumerate(self.points):
            far = (point - x).abs().max()
            if number not in self.used and 0.9 * self.radius < far < self.radius + self.rounding:
                self.used.add(number)
                return point
        self.missed.append("points nearby")
        return super().near(x)

    def sign(self, values: Tensor) -> Tensor:
        """Compute signs, and mark those that rounding may change."""
        small = 100 * self.rounding * values.abs().mean((1, 2, 3), keepdim=True)
        self.unclear |= (values != 0) & (values.abs() < small)
        return values.sign()


Attack = Callable[[nn.Module, Tensor, Tensor, int], Tensor]
"""Maps a network, images, labels and a number of steps to adversarial images."""


def judge(
    rule: Rule, attack: Attack, c: Tools, random_start: bool = False, visited: bool = False
) -> dict[str, Any]:
    """Compare each iterate of an attack with the one that a rule makes of the iterate before.

    The attack runs once for each number of steps, with equal random numbers.

    Args:
        rule: The rule.
        attack: The attack.
        c: A network of double precision, images of either precision, labels and settings.
        random_start: The attack begins at a random point of the ball.
        visited: Its iterates are the points where it takes gradients, and not what it returns.

    Returns:
        `equal_steps`, the number of iterations before the first difference; `what` differs there;
        the shares of values that are `different` there, and that are `left_out`, as rounding may
        decide their sign.
    """
    runs = [_recorded(attack, c, steps) for steps in range(1, c.steps + 1)]
    points, last = runs[-1]
    iterates = [*points[1 : c.steps], last] if visited else [images for _, images in runs]
    replay, memory, x = Replay(c, points), Memory(), points[0] if random_start else c.images
    if random_start and not 0.9 < (x - c.images).abs().max() / c.eps < 1.001:
        replay.missed.append("start")
    equal_steps = 0
    for following in iterates:
        equal = (rule(x, memory, replay) - following).abs() <= replay.rounding  # NaN is not
        wrong = ~equal & ~replay.unclear
        missed = replay.missed
        if following is last and {*missed} == {"points nearby"}:
            missed = []  # a program may leave out what no later step uses
        if missed or wrong.any():
            break
        x, equal_steps = following, equal_steps + 1
    what = "" if equal_steps == c.steps else (missed or ["step"])[0]
    different, left_out = (float(part.double().mean()) for part in (wrong, replay.unclear))
    return dict(equal_steps=equal_steps, what=what, different=different, left_out=left_out)


def _recorded(attack: Attack, c: Tools, steps: int) -> tuple[list[Tensor], Tensor]:
    """Run an attack; return the points where it takes gradients, and what it returns."""
    points = list[Tensor]()

    def record(network: nn.Module, inputs: Any) -> Any:
        if inputs[0].requires_grad and torch.is_grad_enabled():
            points.extend(inputs[0].detach().clone().split(len(c.labels)))
        return (inputs[0].double(),)

    torch.manual_seed(0)
    np.random.seed(0)
    with c.network.register_forward_pre_hook(record):
        images = attack(c.network, c.images.clone(), c.labels.clone(), steps)
    return points, images.detach().to(c.images.dtype)
