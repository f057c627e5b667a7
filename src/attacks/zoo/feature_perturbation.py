"""Attacks that enlarge, replace or mix the features of layers."""

from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from .. import GreyLevels, Landscape, Problem, Settings, Share, attack, checked, loss_of_each
from ..loop import last_iterate
from ..source import members_of, module_of
from .feature_importance import unit, weighted
from .input_geometry import DiverseInput


@checked
class IntermediateLevel:
    """Move a layer's output further in the direction in which a first attack moves it.

    Maximises sum(v * f(x_t)) / ||v||_2, v = f(x') - f(x). x' is the result of `first_steps` steps
    of `bim` from x in the same ball. The iterates start at x again.

    Args:
        loss: Name of the first attack's loss, see `LOSSES`.
        first_steps: Number of steps of the first attack.

    Reference: Huang et al. (2019), arXiv 1907.10823: ILAP, for which the constant f(x) may be left
    out.

    Deviation: each member of an ensemble has its own v; the members' values are averaged. The first
    attack has no momentum, as in the paper (TransferAttack: MI-FGSM).
    """

    per_budget = True
    loss: Literal["cross_entropy", "logit", "margin"] = "cross_entropy"
    first_steps: PositiveInt = 10

    def prepare(self, problem: Problem) -> list[Tensor]:
        """Return v / ||v||_2 for each budget and image, one tensor (K, N, ...) per member."""
        first = Settings(loss=self.loss, steps=self.first_steps, norm=problem.norm)
        moved = last_iterate(Landscape(problem, first))
        problem.source.draw(problem.random, 1)  # all images go through the same network
        with torch.no_grad():
            passes = [problem.source.features(batch) for batch in (problem.images, *moved)]
        return [
            torch.stack([unit((new - old).to(problem.images)) for new in others])
            for old, *others in zip(*passes, strict=True)
        ]

    def losses(self, problem: Problem, images: Tensor, prepared: list[Tensor]) -> Tensor:
        return weighted(problem, images, prepared)


@attack(
    objective=IntermediateLevel,
    gradients=lambda n: 1 + n.budgets * (n.first_steps - 1 + n.steps),
    forwards=lambda n: 1 + n.budgets,
)
def ila() -> None:
    """Enlarge a first attack's change at a layer: ILA, 10 steps after its 10, without momentum.

    Name: Intermediate Level Attack.

    `step_size_255` and `relative_step_size` apply to the second attack. The first takes steps of
    eps / `first_steps`.
    """


@checked
class PerturbationDecay:
    """Raise the loss of a network that sees little of the perturbation at one layer.

    The layer's output f(x_t) is replaced by weight * f(x_t) + (1 - weight) * f(x + sigma * N(0, I))
    for the clean image x. The second term has no gradient; its noise is new for each gradient.

    Args:
        loss: Name of the loss, see `LOSSES`.
        weight: Share of the features of x_t; 1: the unchanged loss.
        sigma_255: Standard deviation of the noise, in units of 1/255.

    Reference: Li et al. (2023), arXiv 2304.13410.
    """

    loss: Literal["cross_entropy", "logit", "margin"] = "cross_entropy"
    weight: Share = 0.1
    sigma_255: GreyLevels = 12.75

    def losses(self, problem: Problem, images: Tensor, prepared: None) -> Tensor:
        source = problem.source
        noise = problem.random.normal(*images.shape[2:]) * (self.sigma_255 / 255)
        with torch.no_grad():
            clean = source.features(problem.images + noise)

        def decay(output: Tensor, member: int) -> Tensor:
            part = self.weight * output.unflatten(0, images.shape[:2])
            return (part + (1 - self.weight) * clean[member]).flatten(0, 1)

        logits = source.logits_with(images.flatten(0, 1), decay)
        return loss_of_each(self.loss, logits, problem.labels, problem.targeted, len(images))


@attack(
    objective=PerturbationDecay, steps=100, relative_step_size=0.125, forwards=lambda n: n.steps
)
def ilpd() -> None:
    """Let the perturbation decay at a layer: ILPD, 100 steps of eps / 8, without momentum.

    Name: Intermediate-Level Perturbation Decay.
    """


@checked
class CleanFeatureMixup:
    """Raise the loss of a network whose random layers mix in features of another image.

    With probability `mix_probability`, a layer's output f becomes (1 - a) * f + a * f'.
    a ~ U(0, max_ratio) per channel, or per token for a row of tokens. f' is the output for a clean
    image of the pool, a new one for each gradient; no gradient flows into f'. All linear layers can
    mix, and convolutions whose output is at most `max_width` times as wide as the network's input.

    Args:
        loss: Name of the loss, see `LOSSES`.
        mix_probability: Probability that a layer mixes.
        max_ratio: Largest share a of the other image's features.
        max_width: Output width of the widest convolutions that mix, as a share of the input width
            of the first convolution (a network may resize the images).

    Reference: Byun et al. (2023), arXiv 2305.14846.

    Deviation: layers that mix in the same pass use the same image of the pool, of another class if
    there is one (authors: each layer uses another image of the batch).
    """

    loss: Literal["cross_entropy", "logit", "margin"] = "logit"
    mix_probability: Share = 0.1
    max_ratio: Share = 0.75
    max_width: Share = 0.25

    def losses(self, problem: Problem, images: Tensor, prepared: None) -> Tensor:
        features: defaultdict[nn.Module, list[Tensor]] = defaultdict(list)
        widths: dict[int, int] = {}  # of each member's input
        budgets, count = images.shape[:2]

        def store(member: int, layer: nn.Module, arguments: Any, output: Tensor) -> None:
            if isinstance(layer, nn.Conv2d):
                width = widths.setdefault(member, arguments[0].shape[-1])
                if output.shape[-1] > self.max_width * width:
                    return
            features[layer].append(output.clone())  # the next layer may work in place

        def mix(member: int, layer: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            if not features[layer]:
                return output
            numbers = problem.random.uniform(1 + output.shape[1])
            ratio = self.max_ratio * numbers[:, 1:] * (numbers[:, :1] < self.mix_probability)
            # Networks with windows have several rows per image.
            clean = features[layer].pop(0).unflatten(0, (count, -1))
            ratio = ratio.to(output.dtype)[:, None].expand(*clean.shape[:2], -1)
            clean, ratio = (x.expand(budgets, *x.shape).flatten(0, 2) for x in (clean, ratio))
            # Not a view: an in-place ReLU is slow on a view.
            return output.lerp(clean, ratio.view(*ratio.shape, *(1 for _ in output.shape[2:])))

        with torch.no_grad():
            _logits(problem, problem.random.others(), store)
        logits = _logits(problem, images.flatten(0, 1), mix)
        return loss_of_each(self.loss, logits, problem.labels, problem.targeted, budgets)


def _logits(problem: Problem, images: Tensor, hook: Any) -> Tensor:
    """Return the logits of a pass with a hook on each convolution and each linear layer."""
    source = module_of(problem.source.model, "attack.objective")
    with ExitStack() as hooks:
        for number, member in enumerate(dict.fromkeys(members_of(source))):
            for layer in member.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    hooks.enter_context(layer.register_forward_hook(partial(hook, number)))
        return problem.source.logits(images)


@attack(
    fixed=["layer"],
    objective=CleanFeatureMixup,
    transform=DiverseInput,
    loss="logit",
    steps=300,
    relative_step_size=0.125,
    decay=1.0,
    probability=1.0,
    resize_rate=1.137,
    nearest=True,
    kernel_size=5,
    forwards=lambda n: n.steps,
    mixes=True,
)
def cfm() -> None:
    """Mix clean features into random layers: CFM, made for target labels, with `mi_di_ti`.

    Name: Clean Feature Mixup.

    Deviation: 300 steps of eps / 8 at every budget (authors: 299 of 2/255 at 16/255).
    """
