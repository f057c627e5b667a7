from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, autograd, enable_grad, finfo
from torch.nn.functional import normalize

from src.attacks.parts import Problem

Score = Literal["logit", "probability"]


class WeightedFeatures(ABC):
    """Objective -sum(w * f(x_t)), w = s / ||s||_2, s = sum of grad_f score_y(z) over versions z.

    A subclass defines the `versions` of the clean images and the `score` of their labels.
    """

    score: Score

    @abstractmethod
    def versions(self, problem: Problem) -> Iterator[Tensor]:
        """Yield versions of the clean images, (N, 3, H, W)."""

    def prepare(self, problem: Problem) -> list[Tensor]:
        """Compute the weights of the layer's output, one tensor per member."""
        members = range(len(problem.source.members))
        totals: list[Any] = [0 for _ in members]
        for version in self.versions(problem):
            problem.source.draw(problem.random, 1)
            for member in members:
                totals[member] = totals[member] + self._gradient(problem, version, member)
        return [unit(total) for total in totals]

    def losses(self, problem: Problem, images: Tensor, prepared: list[Tensor]) -> Tensor:
        value = weighted(problem, images, prepared)
        return value if problem.targeted else -value

    def _gradient(self, problem: Problem, images: Tensor, member: int) -> Tensor:
        """Return the gradient of each label's score at a member's layer, in the images' dtype."""
        outputs: list[Tensor] = []

        def begin_here(output: Tensor, member: int) -> Tensor:
            outputs.append(output.detach().requires_grad_())
            return outputs[0].clone()  # in-place layers may change the clone

        with enable_grad():
            # The source counts gradients only for images that require one.
            variable = images.detach().requires_grad_()
            scores = problem.source.logits_with(variable, begin_here, member)
            if self.score == "probability":
                scores = scores.softmax(dim=1)
            score = scores.gather(1, problem.labels[:, None]).sum()
            (gradient,) = autograd.grad(score, outputs)
        return gradient.to(images.dtype)


def unit(features: Tensor) -> Tensor:
    """Divide each image's features, (B, ...), by their Euclidean norm; zeros stay zeros."""
    return normalize(features.flatten(1), eps=finfo(features.dtype).tiny).view_as(features)


def weighted(problem: Problem, images: Tensor, weights: list[Tensor]) -> Tensor:
    """Return sum(w * f(x)) for images (K, N, 3, H, W), averaged over members, shape (K, N).

    `weights` has one tensor per member: (N, ...) for all budgets, or (K, N, ...).
    """
    value = images.new_zeros(images.shape[:2])
    features = problem.source.features(images.flatten(0, 1))
    for weight, output in zip(weights, features, strict=True):
        products = weight * output.unflatten(0, images.shape[:2])
        value = value + products.flatten(2).sum(dim=2) / len(weights)
    return value
