"""Attacks on the features of a layer that matter for the label, by weights from gradients."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from pydantic import PositiveInt, Strict
from torch import Tensor, finfo
from torch.nn.functional import normalize, pad

from .. import GreyLevels, Landscape, Problem, Settings, Share, attack, checked, direction

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
        score = partial(self._score, problem.labels)
        for version in self.versions(problem):
            problem.source.draw(problem.random, 1)
            for member in members:
                ((_, gradient),) = problem.source.layer_gradients(version, score, member)
                totals[member] = totals[member] + gradient
        return [unit(total) for total in totals]

    def losses(self, problem: Problem, images: Tensor, prepared: list[Tensor]) -> Tensor:
        value = weighted(problem, images, prepared)
        return value if problem.targeted else -value

    def _score(self, labels: Tensor, logits: Tensor) -> Tensor:
        scores = logits.softmax(dim=1) if self.score == "probability" else logits
        return scores.gather(1, labels[:, None]).sum()


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


@checked
class FeatureImportance(WeightedFeatures):
    """Lower the features of a layer that raise the logit of the true class.

    Maximises -sum(w * f(x_t)), w = s / ||s||_2, s = sum over i of grad_f z_y(x * B_i). z_y is the
    logit of the true class, and B_i ~ Bernoulli(1 - probability) for every value; masked values are
    black. The weights serve all steps and budgets.

    Args:
        masks: Number of masked images x * B_i.
        probability: Share of the values that are masked.
        score: Score whose gradients are the weights: the class's `logit` or its `probability`.

    Reference: Wang et al. (2021), arXiv 2107.14185.

    Deviation: with target labels, which the paper does not define, features that raise their logits
    are raised. Each member of an ensemble has its own weights; the members' values are averaged.
    """

    masks: PositiveInt = 30
    probability: Share = 0.3
    score: Score = "logit"

    def versions(self, problem: Problem) -> Iterator[Tensor]:
        for _ in range(self.masks):
            mask = problem.random.uniform(*problem.images.shape[1:]) >= self.probability
            yield problem.images * mask


@attack(
    objective=FeatureImportance,
    decay=1.0,
    gradients=lambda n: n.masks + 1 + n.budgets * (n.steps - 1),
)
def fia() -> None:
    """Lower important features of a layer: feature importance (FIA), with momentum.

    Name: Feature Importance-aware Attack.
    """


@checked
class NeuronAttribution(WeightedFeatures):
    """Lower a layer's attributions w * (f(x_t) - f(0)) to the true class's probability p_y.

    w = s / ||s||_2, s = sum of grad_f p_y(z_l), z_l = (1 - l / points) * (x + sigma * N(0, I)) for
    l = 0, ..., points - 1: a noisy path from the image to black. Positive and negative attributions
    count alike (the paper's gamma is 1), so the constant f(0) can be left out.

    Args:
        points: Number of points on the path.
        sigma_255: Standard deviation of the noise, in units of 1/255.
        score: Score whose gradients are the weights: the class's `logit` or its `probability`.

    Reference: Zhang et al. (2022), arXiv 2204.00008.

    Deviation: every network gets the noise of the authors' Inception (authors: noise of one size
    after any normalisation; TransferAttack: no noise, and a path with black but without the image).
    Target labels and members are as in `fia`.
    """

    points: PositiveInt = 30
    sigma_255: GreyLevels = 25.5
    score: Score = "probability"

    def versions(self, problem: Problem) -> Iterator[Tensor]:
        for number in range(self.points):
            noise = problem.random.normal(*problem.images.shape[1:]) * (self.sigma_255 / 255)
            yield (1 - number / self.points) * (problem.images + noise)


@attack(
    objective=NeuronAttribution,
    decay=1.0,
    gradients=lambda n: n.points + 1 + n.budgets * (n.steps - 1),
)
def naa() -> None:
    """Lower neuron attributions at a layer: NAA, with momentum.

    Name: Neuron Attribution-based Attack.
    """


@checked
class BlackBoxFeatures(WeightedFeatures):
    """Lower features that raise the true class's logit in images moved along gradients; see `fia`.

    The weights come from z_i = x + distance * q_i / rms(q_i), i = 1, ..., points, unclipped. q_i is
    the gradient of the cross-entropy at z_{i-1}, and z_0 = x.

    Args:
        points: Number of moved images z_i.
        distance_255: Distance of z_i from x: root mean square in units of 1/255.
        score: Score whose gradients are the weights: the class's `logit` or its `probability`.

    Reference: Wang et al.: Improving the Transferability of Adversarial Examples through Black-Box
    Feature Attacks (2024), https://www.sciencedirect.com/science/article/abs/pii/S0925231224006349

    Deviation: at every image size, the distance is the RMS of the authors' vectors of length 28
    over 3 x 299 x 299 values. q_i is the gradient with respect to pixels (authors: to normalised
    inputs). With target labels, q_i lowers their cross-entropy; otherwise target labels and members
    are as in `fia`.
    """

    points: PositiveInt = 30
    distance_255: GreyLevels = 13.787
    score: Score = "logit"

    def versions(self, problem: Problem) -> Iterator[Tensor]:
        moved, landscape = problem.images, Landscape(problem, Settings())
        for _ in range(self.points):
            way = direction(landscape.gradient(moved[None])[0], "l2")
            moved = problem.images + self.distance_255 / 255 * way
            yield moved


@attack(
    objective=BlackBoxFeatures,
    decay=1.0,
    gradients=lambda n: 2 * n.points + 1 + n.budgets * (n.steps - 1),
)
def bfa() -> None:
    """Lower features that matter in moved images: black-box features (BFA), with momentum.

    Name: Black-box Feature Attack.
    """


@checked
class RandomPatch(WeightedFeatures):
    """Lower features that raise the true class's logit in images with random patches; see `fia`.

    The weights come from x * R_i. R_i is 1 outside its patches; inside, each value is from U(0, 1).
    All patches of one R_i have the same size, the next one of `sizes`, in turn. With size 1, each
    value is a patch with the given `probability`. Larger patches are squares of a grid that starts
    in the top left corner of each channel: that share of all whole squares, rounded down.

    Args:
        masks: Number of images with patches, x * R_i.
        probability: Share of the patches that are changed.
        score: Score whose gradients are the weights: the class's `logit` or its `probability`.
        sizes: Sides of the patches in pixels.

    Reference: Zhang et al.: Enhancing the Transferability of Adversarial Examples with Random Patch
    (2022), IJCAI 2022, https://www.ijcai.org/proceedings/2022/233

    Deviation: the patches have all four sizes (authors' code: only size 1, because its test for it
    always holds). Target labels and members are as in `fia`.
    """

    masks: PositiveInt = 60
    probability: Share = 0.3
    score: Score = "logit"
    sizes: Annotated[tuple[PositiveInt, ...], Strict(False), MinLen(1)] = (1, 3, 5, 7)

    def versions(self, problem: Problem) -> Iterator[Tensor]:
        for number in range(self.masks):
            changed = self._patches(problem, self.sizes[number % len(self.sizes)])
            yield problem.images * problem.random.uniform(*changed.shape[1:]).where(changed, 1)

    def _patches(self, problem: Problem, size: int) -> Tensor:
        """Return a mask (N, 3, H, W) that is True inside the patches."""
        images, channels, height, width = problem.images.shape
        if size == 1:
            return problem.random.uniform(channels, height, width) < self.probability
        cells = (channels, height // size, width // size)
        count = cells[0] * cells[1] * cells[2]
        chosen = problem.random.permutations(count) < int(self.probability * count)
        wide = chosen.view(images, *cells).repeat_interleave(size, 2).repeat_interleave(size, 3)
        return pad(wide, (0, width % size, 0, height % size))


@attack(
    objective=RandomPatch, decay=1.0, gradients=lambda n: n.masks + 1 + n.budgets * (n.steps - 1)
)
def rpa() -> None:
    """Lower features that matter under random patches: RPA, with momentum.

    Name: Random Patch Attack.
    """
