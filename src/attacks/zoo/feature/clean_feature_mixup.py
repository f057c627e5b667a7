from collections import defaultdict
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from src.attacks.define import attack
from src.attacks.losses import loss_of_each
from src.attacks.parts import Problem
from src.attacks.source import members_of
from src.attacks.zoo.input.diverse_input import DiverseInput
from src.utils.checked_dataclass import Share, checked


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

    def prepare(self, problem: Problem) -> None:
        """Return None: the features of the pool's image are computed for each gradient."""

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
            drawn = problem.random.uniform(1 + output.shape[1])
            ratio = self.max_ratio * drawn[:, 1:] * (drawn[:, :1] < self.mix_probability)
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
    if not isinstance(problem.source.model, nn.Module):
        raise ValueError("attack.objective needs a torch module as its source.")
    with ExitStack() as hooks:
        for number, member in enumerate(dict.fromkeys(members_of(problem.source.model))):
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

    Deviation: 300 steps of eps / 8 at every budget (authors: 299 of 2/255 at 16/255).
    """
