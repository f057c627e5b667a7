"""An attack on a source model as what makes the adversarial images of a batch."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from src.attacks import KeptGradients, Philox, image_seeds, project, takes_one_gradient
from src.config.settings import GIVEN, TargetLabelRule
from src.data import Batch
from src.evaluation.adversarial_source import AdversarialBatch, AdversarialSource
from src.models import Ensemble

_TARGET_LABEL_STREAM = 2  # of random numbers, apart from what attacks draw and from noise

Attack = Callable[..., Tensor]
"""(model, images, labels, eps) to adversarial images (K, N, 3, H, W); see `src.attacks`."""


class CountedModel(nn.Module):
    """A source model that counts the gradients taken of it, and those that are zero everywhere.

    A gradient of an ensemble counts once for each of its members. With `bf16` the model
    computes in that type wherever autocasting holds it safe; images and weights stay float32.
    """

    def __init__(self, model: nn.Module, bf16: bool = False) -> None:
        super().__init__()
        self.model = model
        self.in_bf16 = bf16
        self.members = len(model.members) if isinstance(model, Ensemble) else 1
        self.gradients = 0
        self.zeros = torch.zeros((), dtype=torch.int64)

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's logits, and watch the images if a gradient may be taken."""
        if images.requires_grad and torch.is_grad_enabled():
            self.gradients += len(images) * self.members
            images.register_hook(self._count_zeros)
        model = self.model
        call = model.attacked if isinstance(model, Ensemble) else model
        lowered = torch.autocast(images.device.type, torch.bfloat16)
        with lowered if self.in_bf16 else nullcontext():
            logits: Tensor = call(images)
        return logits

    def _count_zeros(self, gradient: Tensor) -> None:
        zero = (gradient == 0).flatten(1).all(dim=1).sum() * self.members
        self.zeros = self.zeros.to(zero.device) + zero


class Attacker(AdversarialSource):
    """An attack on a source, for the whole grid of budgets.

    What the attack returns is projected to the ball and to [0, 1], so that no result can come from
    a larger budget than it is reported under.

    Args:
        source: The model that is attacked.
        attack: See `Attack`; of the keyword arguments in `GIVEN` it gets those that it takes.
        budgets: The K budgets in units of 1/255.
        norm: Of the budgets, `linf` or `l2`.
        target_label_rule: None, or how target labels are chosen: `data`, those of the data set;
            `least_likely`, the source's least likely class of the clean image; `random`, a fixed
            other class; `next`, the one after the true class.
        num_classes: C.
        data_target_labels: With `data`, the target label by image index.
        seed: Of everything random; an image's draws depend on it and on the image's index.
        pool: Images to mix in, uint8 (P, 3, H, W), and their classes.
        max_batch: Most images in one gradient batch.
        bf16: Whether gradients are taken in bfloat16; predictions never are.

    Raises:
        ValueError: The attack is targeted, but there is no class beside the true one.
    """

    def __init__(
        self,
        source: nn.Module,
        attack: Attack,
        budgets: Sequence[float],
        *,
        norm: str = "linf",
        target_label_rule: TargetLabelRule | None = None,
        num_classes: int,
        data_target_labels: Mapping[int, int] | None = None,
        seed: int = 0,
        pool: tuple[Tensor, Tensor] | None = None,
        max_batch: int | None = None,
        bf16: bool = False,
    ) -> None:
        super().__init__(budgets, norm)
        if target_label_rule is not None and num_classes < 2:
            raise ValueError(
                f"attack.target_label={target_label_rule} needs at least two classes, of which one "
                f"is not the true one; there is {num_classes}."
            )
        self.source = source
        self.attack = attack
        self.target_label_rule = target_label_rule
        self.num_classes = num_classes
        self.data_target_labels = data_target_labels or {}
        self.seed = seed
        self.pool = pool
        self.max_batch = max_batch
        self.in_bf16 = bf16

    def forward(self, images: Tensor, batch: Batch) -> AdversarialBatch:
        """Attack a batch, see `AdversarialSource.forward`."""
        target_labels = self._target_labels(images, batch)
        counted = CountedModel(self.source, self.in_bf16)
        eps = torch.tensor(self.budgets, device=images.device) / 255
        kept = KeptGradients() if takes_one_gradient(self.attack) else None
        keeping = {} if kept is None else {"estimator": kept}
        adversarial = self._attacked(counted, images, batch, target_labels, eps, keeping)
        self.gradients += counted.gradients
        self.zero_gradients += int(counted.zeros)

        def at(rows: Tensor, eps_255: Tensor) -> Tensor:
            part = Batch(*(column[rows] for column in batch))
            aims = None if target_labels is None else target_labels[rows]
            own = eps_255.to(images.device, images.dtype) / 255
            known = {} if kept is None else {"estimator": kept.of_rows(rows), "max_batch": None}
            again = CountedModel(self.source, self.in_bf16)
            return self._attacked(again, images[rows], part, aims, own[None], known)[0]

        return AdversarialBatch(adversarial, target_labels, at)

    def halve_gradient_batch(self) -> None:
        """Take gradients of half as many images at once."""
        self.max_batch = max(1, self.max_batch // 2) if self.max_batch else None

    def _attacked(
        self,
        counted: CountedModel,
        images: Tensor,
        batch: Batch,
        target_labels: Tensor | None,
        eps: Tensor,
        changes: Mapping[str, Any],
    ) -> Tensor:
        """Return the attack's images for K budgets, (K,) or (K, N), inside their balls.

        Its arguments are the usual ones but for the changes.
        """
        given = {
            "targeted": target_labels is not None,
            "true_labels": batch.labels,
            "seeds": image_seeds(self.seed, batch.index),
            "pool": self._pool(images),
            "max_batch": self.max_batch,
        }
        arguments = {key: given[key] for key in accepted(self.attack)} | dict(changes)
        labels = batch.labels if target_labels is None else target_labels
        with torch.enable_grad():  # which Lightning's pass switches off
            adversarial = self.attack(counted, images, labels, eps, **arguments)
        pairs = zip(adversarial.detach(), eps[..., None, None, None], strict=True)
        return torch.stack([project(one, images, size, self.norm) for one, size in pairs])

    def _pool(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.pool is None:
            return None
        others, labels = self.pool
        return others.to(images.device, images.dtype) / 255, labels.to(images.device)

    def _target_labels(self, images: Tensor, batch: Batch) -> Tensor | None:
        """Return the classes to reach, never the true ones."""
        labels = batch.labels
        if self.target_label_rule is None:
            return None
        if self.target_label_rule == "next":
            return (labels + 1) % self.num_classes
        if self.target_label_rule == "random":
            random = Philox(image_seeds(self.seed, batch.index), images, _TARGET_LABEL_STREAM)
            return (labels + random.integers(1, self.num_classes)) % self.num_classes
        if self.target_label_rule == "least_likely":
            logits = self.source(images).float()
            others = logits.scatter(1, labels[:, None], torch.inf)
            return others.argmin(dim=1)
        chosen = [self.data_target_labels[number] for number in batch.index.tolist()]
        return torch.tensor(chosen, device=labels.device)


def accepted(attack: Attack) -> tuple[str, ...]:
    """Return which of the keyword arguments in `GIVEN` an attack takes."""
    parameters: Mapping[str, Any] = inspect.signature(attack).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return GIVEN if every else tuple(word for word in GIVEN if word in parameters)
