"""What makes the adversarial images of a batch: an attack on a source model."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from src.attacks import image_seeds, project, takes_own_budgets
from src.data import Batch
from src.models import Ensemble

AIMS = ("data", "least_likely", "random", "next")
GIVEN = ("targeted", "true_labels", "seeds", "pool", "max_batch")
_AIM_SEED = 2_718_281  # apart from what attacks draw

Attack = Callable[..., Tensor]
"""(model, images, labels, eps) to adversarial images (K, N, 3, H, W); see `src.attacks`."""


@dataclass(frozen=True)
class AdversarialBatch:
    """Adversarial images of a batch.

    Attributes:
        images: float32 (K, N, 3, H, W) in [0, 1].
        target_labels: int64 (N,), the classes aimed for; None if the attack has no aim.
    """

    images: Tensor
    target_labels: Tensor | None = None


class CountedModel(nn.Module):
    """A source model that counts the gradients taken of it, and those that are zero everywhere.

    A gradient of an ensemble counts once for each of its members.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.members = len(model.members) if isinstance(model, Ensemble) else 1
        self.gradients = 0
        self.zeros = torch.zeros((), dtype=torch.int64)

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's logits, and watch the images if a gradient may be taken."""
        if images.requires_grad and torch.is_grad_enabled():
            self.gradients += len(images) * self.members
            images.register_hook(self._look)
        model = self.model
        logits: Tensor = model.attacked(images) if isinstance(model, Ensemble) else model(images)
        return logits

    def _look(self, gradient: Tensor) -> None:
        zero = (gradient == 0).flatten(1).all(dim=1).sum() * self.members
        self.zeros = self.zeros.to(zero.device) + zero


class AdversarialSource(nn.Module, ABC):
    """What makes the adversarial images of a batch.

    Args:
        budgets: The K budgets in units of 1/255.
        norm: Of the budgets, `linf` or `l2`.

    Attributes:
        gradients: Gradient evaluations so far.
        zero_gradients: How many of them were zero in every pixel.
    """

    def __init__(self, budgets: Sequence[float], norm: str) -> None:
        super().__init__()
        self.budgets = tuple(budgets)
        self.norm = norm
        self.gradients = 0
        self.zero_gradients = 0

    @abstractmethod
    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Return the adversarial versions of a batch whose images, in [0, 1], are beside it."""


class Attacker(AdversarialSource):
    """An attack on a source, for the whole grid of budgets.

    What the attack returns is projected to the ball and to [0, 1], so that no result can come from
    a larger budget than it is reported under.

    Args:
        source: The model that is attacked.
        attack: See `Attack`; of the words in `GIVEN` it gets those that it takes.
        budgets: The K budgets in units of 1/255.
        norm: Of the budgets, `linf` or `l2`.
        aim: None, or how the classes to reach are chosen: `data`, those of the data set;
            `least_likely`, that of the source's clean answer; `random`, a fixed other class;
            `next`, the one after the true class.
        num_classes: C.
        known: With `data`, the class to reach by image index.
        seed: Of everything random; an image's draws depend on it and on the image's index.
        pool: Images to mix in, uint8 (P, 3, H, W), and their classes.
        max_batch: Most images in one gradient batch.

    Raises:
        ValueError: There is an aim, but no class beside the true one.
    """

    def __init__(
        self,
        source: nn.Module,
        attack: Attack,
        budgets: Sequence[float],
        *,
        norm: str = "linf",
        aim: str | None = None,
        num_classes: int,
        known: Mapping[int, int] | None = None,
        seed: int = 0,
        pool: tuple[Tensor, Tensor] | None = None,
        max_batch: int | None = None,
    ) -> None:
        super().__init__(budgets, norm)
        if aim is not None and num_classes < 2:
            raise ValueError(
                f"attack.target_label={aim} needs at least two classes, of which one is not the "
                f"true one; there is {num_classes}."
            )
        self.source = source
        self.attack = attack
        self.aim = aim
        self.num_classes = num_classes
        self.known = known or {}
        self.seed = seed
        self.pool = pool
        self.max_batch = max_batch

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Attack a batch whose images, in [0, 1], are given beside it."""
        goal = self._goal(images, batch)
        counted = CountedModel(self.source)
        eps = torch.tensor(self.budgets, device=images.device) / 255
        made = self._run(counted, images, batch, goal, eps)
        self.gradients += counted.gradients
        self.zero_gradients += int(counted.zeros)
        return AdversarialBatch(torch.stack(made), goal)

    def at(self, images: Tensor, batch: Batch, goal: Tensor | None, eps_255: Tensor) -> Tensor:
        """Attack each image with a budget of its own, in units of 1/255, (N,).

        An attack that is not of this package knows nothing of such budgets and gets the images
        one by one, each with its budget and, so that a step of fixed length still fits, the
        largest of the grid. Gradients taken here are not counted.

        Args:
            images: Clean images in [0, 1], (N, 3, H, W).
            batch: Their labels and index.
            goal: The classes that the attack aims for, (N,), as `forward` chose them.
            eps_255: The budgets.

        Returns:
            Shape (N, 3, H, W).
        """
        counted = CountedModel(self.source)
        eps = eps_255.to(images.device, images.dtype) / 255
        if takes_own_budgets(self.attack):
            return self._run(counted, images, batch, goal, eps[None])[0]
        largest = eps.new_tensor(max(self.budgets)) / 255
        made = []
        for row, size in enumerate(eps):
            one = slice(row, row + 1)
            part = Batch(*(column[one] for column in batch))
            aim = None if goal is None else goal[one]
            made += self._run(counted, images[one], part, aim, torch.stack([size, largest]))[:1]
        return torch.cat(made)

    def _run(
        self,
        counted: CountedModel,
        images: Tensor,
        batch: Batch,
        goal: Tensor | None,
        eps: Tensor,
    ) -> list[Tensor]:
        """Return what the attack makes for K budgets, (K,) or (K, N), inside their balls."""
        given = {
            "targeted": goal is not None,
            "true_labels": batch.labels,
            "seeds": image_seeds(self.seed, batch.index),
            "pool": self._pool(images),
            "max_batch": self.max_batch,
        }
        words = {key: given[key] for key in accepted(self.attack)}
        labels = batch.labels if goal is None else goal
        made = self.attack(counted, images, labels, eps, **words)
        sizes = eps[..., None, None, None] if eps.ndim == 2 else eps
        pairs = zip(made, sizes, strict=True)
        return [project(one, images, size, self.norm) for one, size in pairs]

    def _pool(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.pool is None:
            return None
        others, labels = self.pool
        return others.to(images.device, images.dtype) / 255, labels.to(images.device)

    def _goal(self, images: Tensor, batch: Batch) -> Tensor | None:
        """Return the classes to reach, never the true ones."""
        labels = batch.labels
        if self.aim is None:
            return None
        if self.aim == "next":
            return (labels + 1) % self.num_classes
        if self.aim == "random":
            steps = [
                int(torch.randint(1, self.num_classes, (), generator=generator))
                for generator in _generators(image_seeds(self.seed + _AIM_SEED, batch.index))
            ]
            return (labels + torch.tensor(steps, device=labels.device)) % self.num_classes
        if self.aim == "least_likely":
            logits = self.source(images).float()
            others = logits.scatter(1, labels[:, None], torch.inf)
            return others.argmin(dim=1)
        known = [self.known[number] for number in batch.index.tolist()]
        return torch.tensor(known, device=labels.device)


def accepted(attack: Attack) -> tuple[str, ...]:
    """Return which of the words that an attack may be given it takes."""
    parameters: Mapping[str, Any] = inspect.signature(attack).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return GIVEN if every else tuple(word for word in GIVEN if word in parameters)


def _generators(seeds: Tensor) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
