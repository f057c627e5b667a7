from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from torch import Tensor

from src.attacks.define import attack
from src.attacks.losses import loss_of_each
from src.attacks.parts import Problem
from src.utils.checked_dataclass import Share, checked


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
    sigma_255: Annotated[float, Ge(0), Le(255)] = 12.75

    def prepare(self, problem: Problem) -> None:
        """Return None: nothing but the clean images is needed."""

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
    """Let the perturbation decay at a layer: ILPD, 100 steps of eps / 8, without momentum."""
