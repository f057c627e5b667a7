"""Sources of adversarial images, such as an attack on a model."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.modules.module import register_module_forward_pre_hook

from ..attacks import Philox, TrainingImages, image_seeds, project
from ..attacks.source import finite
from ..config.sections import PROGRAM_KEYWORDS, TargetLabelRule
from ..data import Batch
from ..defences import AttackedDefence
from ..models import ModelError, choose_layout
from ..utils import stopping
from ..utils.about import inherits_statements
from ..utils.devices import arithmetic, named_errors
from ..utils.networks import copy_network
from .storage import COST, AdversarialBatch

_TARGET_LABEL_STREAM = 2  # random stream, separate from attacks and noise

Attack = Callable[..., Tensor]
"""Function (model, images, labels, eps) -> adversarial images (K, N, 3, H, W), as of `adapt`."""
OnPass = Callable[[int, int], None]
"""Function of the numbers of images in a pass of a network that get a gradient, and that do not."""


class AttackError(ValueError):
    """Error of an attack, in one sentence that names it."""


class Counts:
    """Counts of a model's passes, shared by copies of the model.

    Attributes:
        gradients: Number of images with a gradient.
        zeros: Number of these gradients that were zero in every pixel.
        forwards: Number of classified images, including those with a gradient.
        not_finite: True for images of the batch with NaN or infinity in a gradient, bool (N,).
        images: Images of the batch that get the next gradients, once or several times in turn.
        clipped: By how much clipping to the budgets moved a pixel at most, (K, N).
        in_fit: True during a fit: all passes that keep a graph have a gradient.
    """

    def __init__(self, on_pass: OnPass | None) -> None:
        self.on_pass = on_pass
        self.gradients = self.forwards = 0
        self.zeros, self.clipped = torch.zeros((), dtype=torch.int64), torch.zeros(1)
        self.not_finite, self.images = torch.zeros(1, dtype=torch.bool), slice(None)
        self.in_fit = False

    def __deepcopy__(self, memo: object) -> "Counts":
        """Return the same object: copies share their counts."""
        return self

    def add(self, images: Tensor, passes: int) -> None:
        """Count passes of images: one per ensemble member and per draw of a defence."""
        count, of_images = len(images) * passes, images.requires_grad and torch.is_grad_enabled()
        gradients = count * (of_images or (self.in_fit and torch.is_grad_enabled()))
        self.forwards += count
        self.gradients += gradients
        if of_images:
            images.register_hook(lambda gradient: self.check(gradient, passes))
        if self.on_pass is not None:
            self.on_pass(gradients, count - gradients)

    @contextmanager
    def of_fit(self) -> Iterator[None]:
        """Count a fit alone, whose gradients may be of weights; the earlier counts return."""
        before = dict(vars(self))
        vars(self).update(vars(Counts(None)), in_fit=True)
        try:
            yield
        finally:
            vars(self).update(before)

    def check(self, gradient: Tensor, passes: int = 0) -> Tensor:
        """Count zero gradients, and return the gradient with 0 for NaN and infinity."""
        cleaned = finite(gradient)
        zero = (cleaned == 0).flatten(1).all(dim=1).sum() * passes
        self.zeros = self.zeros.to(zero.device) + zero
        wrong = (cleaned != gradient).flatten(1).any(dim=1)
        flags = self.not_finite.to(wrong.device)
        part = range(len(flags))[self.images] or range(len(flags))
        hits = pad(wrong, (0, -len(wrong) % len(part))).view(-1, len(part)).any(dim=0)
        # Nothing in place: `torch.func.grad` refuses that for tensors from outside.
        self.not_finite = flags | pad(hits, (part[0], len(flags) - part[-1] - 1))
        return cleaned


class CountedModel(nn.Module):
    """Source model that counts its passes; with `bf16`, it autocasts to bfloat16."""

    def __init__(self, model: nn.Module, bf16: bool = False, on_pass: OnPass | None = None) -> None:
        super().__init__()
        self.model = model
        self.in_bf16 = bf16
        self.counts = Counts(on_pass)
        self.clean_gradient = self.counts.check
        # Passes per classification: draws of the defence in front of the model.
        self._draws = model.draws if isinstance(model, AttackedDefence) else 1

    @property
    def members(self) -> list[Callable[[Tensor], Tensor]]:
        """The members of an ensemble, or the model alone."""
        members = getattr(self.model, "members", None)
        if members is None:
            return [self]
        return [partial(self._count_pass, member, self._draws) for member in members]

    def expect_images(self, images: slice) -> None:
        """Take the next gradients as those of a part of the batch."""
        self.counts.images = images

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, and count the pass and any gradient taken of the images."""
        model = self.model
        passes = len(getattr(model, "members", [model])) * self._draws
        return self._count_pass(getattr(model, "attacked", model), passes, images)

    def _count_pass(self, model: Callable[[Tensor], Tensor], passes: int, images: Tensor) -> Tensor:
        stopping.raise_if_interrupted()
        self.counts.add(images, passes)
        with torch.autocast(images.device.type, torch.bfloat16) if self.in_bf16 else nullcontext():
            return model(images)


@dataclass(eq=False)
class Attacker:
    """An attack on a source, for several budgets of a `norm`, `linf` or `l2`, at once.

    The attack gets copies of the batch and of the source, which it may change. Its result is
    projected onto the ball and to [0, 1]. It gets those keyword arguments in `PROGRAM_KEYWORDS`
    that it accepts.

    Attributes:
        source: The attacked network, on the device of the images.
        target_label_rule: `data`, the target labels of the data set; `least_likely`, the source's
            least likely class for the clean image, without a defence; `random`, a fixed class other
            than the true one; `next`, the class after the true one; None, an untargeted attack.
        data_target_labels: Target label by image index, for the rules `data` and `next_image`.
        seed: Seed of all random numbers; an image's numbers depend on it and the image's index.
        pool: Images to mix in, uint8 (P, 3, H, W), and their classes.
        max_batch: Largest number of images in a gradient batch; None: no limit.
        precision: Precision of the gradients, `32-true`, `tf32` or `bf16`. Predictions use the
            trainer's precision.
        targets: Networks that the attack must not call; checked on the first batch.
        training_images: Function from the counts of a call to its training images; None: the attack
            needs none.
        fit_seconds: Seconds that calls have spent on fits.
        on_pass: Called at each pass of a network, see `OnPass`.
        gradients: Number of gradients that calls have taken.

    Raises:
        ValueError: The attack is targeted, but there is only one class.
    """

    source: nn.Module
    attack: Attack
    _: KW_ONLY
    num_classes: int
    norm: str = "linf"
    target_label_rule: TargetLabelRule | None = None
    data_target_labels: Mapping[int, int] = field(default_factory=dict)
    seed: int = 0
    pool: tuple[Tensor, Tensor] | None = None
    max_batch: int | None = None
    precision: str = "32-true"
    name: str = "attack"
    targets: Sequence[nn.Module] = ()
    training_images: Callable[[Counts], TrainingImages] | None = None
    fit_seconds: float = 0.0
    on_pass: OnPass | None = None
    gradients: int = 0

    def __post_init__(self) -> None:
        if self.target_label_rule is not None and self.num_classes < 2:
            raise ValueError(
                f"attack.target_label={self.target_label_rule} needs at least two classes, but the "
                f"data set has {self.num_classes}."
            )

    def __call__(
        self,
        images: Tensor,
        batch: Batch,
        budgets: tuple[float, ...],
        target_labels: Tensor | None = None,
    ) -> AdversarialBatch:
        """Return a batch's adversarial images; errors in the attack become ValueErrors.

        `images` are the batch's images as float32 in [0, 1]; budgets are in units of 1/255. The
        attack's rule chooses the target labels, if they are not given.
        """
        if target_labels is None:
            target_labels = self.target_labels(images, batch)
        counted = self.make_counted()
        eps = torch.tensor(budgets, device=images.device) / 255
        attacked = self._attack_batch(counted, images, batch, target_labels, eps)
        counts, shape = counted.counts, (len(COST), len(budgets), len(images))
        self.gradients += counts.gradients
        zeros = min(int(counts.zeros), counts.gradients)  # a leaf may serve several passes
        cost = torch.empty(shape, dtype=torch.float64)
        for row, count in enumerate((counts.gradients, zeros, counts.forwards)):
            cost[row] = count / len(images)
        cost[3] = len(budgets)
        cost[4] = counts.not_finite.to(cost)
        cost[5] = 255 * counts.clipped.to(cost)
        return AdversarialBatch(attacked, budgets, target_labels, cost)

    def make_counted(self) -> CountedModel:
        """Return a copy of the source that counts its passes."""
        return CountedModel(copy_network(self.source), self.precision == "bf16", self.on_pass)

    def _attack_batch(
        self,
        counted: CountedModel,
        images: Tensor,
        batch: Batch,
        target_labels: Tensor | None,
        eps: Tensor,
    ) -> Tensor:
        """Return the attack's images inside their balls."""
        labels = batch.labels if target_labels is None else target_labels
        keywords = {
            "targeted": target_labels is not None,
            "true_labels": batch.labels.clone(),
            "seeds": image_seeds(self.seed, batch.index),
            "pool": self._pool(images),
            "max_batch": self.max_batch,
        }
        if self.training_images is not None:
            keywords["training_images"] = self.training_images(counted.counts)
        arguments = {key: keywords[key] for key in accepted(self.attack) if key in keywords}
        counted.counts.not_finite = torch.zeros(len(images), dtype=torch.bool)
        copies = images.clone(), labels.clone(), eps.clone()
        device = images.device.type
        choose_layout(counted, device, self.precision)
        # Lightning's predict loop disables gradients, and predictions may have another precision.
        targets, self.targets = self.targets, ()
        refusal = refused_calls(targets, counted) if targets else nullcontext()
        with self.named_errors(), torch.enable_grad(), self.arithmetic(device), refusal:
            adversarial = self.attack(counted, *copies, **arguments)
        self._check_images(adversarial, images, batch, eps)
        pairs = zip(adversarial.detach(), eps[..., None, None, None], strict=True)
        inside = torch.stack([project(image, images, size, self.norm) for image, size in pairs])
        counted.counts.clipped = (adversarial.detach().clamp(0, 1) - inside).abs_().amax((2, 3, 4))
        return inside

    def arithmetic(self, device: str) -> AbstractContextManager[None]:
        """Compute gradients in their precision; in bfloat16, only the source is autocast."""
        return arithmetic(device, "tf32" if self.precision == "tf32" else "32-true")

    def named_errors(self) -> AbstractContextManager[None]:
        """Name the attack in any error that it raises; a model's names the model."""
        return named_errors(f"attack={self.name}", AttackError, (ModelError,))

    def _check_images(self, result: Any, images: Tensor, batch: Batch, eps: Tensor) -> None:
        expected = f"a tensor {(len(eps), *images.shape)} of {images.dtype} on {images.device}"
        returned = type(result).__name__
        if isinstance(result, Tensor):
            returned = f"a tensor {tuple(result.shape)} of {result.dtype} on {result.device}"
        if returned != expected:
            raise AttackError(
                f"attack={self.name} returns {returned}; for eps of shape {tuple(eps.shape)} it "
                f"must return {expected}."
            )
        wrong = ~result.isfinite().flatten(2).all(dim=2).all(dim=0)
        if bool(wrong.any()):
            number = int(batch.index[wrong][0])
            raise AttackError(f"attack={self.name} returns NaN or infinity for image {number}.")

    def _pool(self, images: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.pool is None:
            return None
        others, labels = self.pool
        return others.to(images.device, images.dtype) / 255, labels.to(images.device, copy=True)

    def target_labels(self, images: Tensor, batch: Batch) -> Tensor | None:
        """Return the target labels, (N,), which differ from the true ones; None: untargeted."""
        labels = batch.labels
        if self.target_label_rule is None:
            return None
        if self.target_label_rule == "next":
            return (labels + 1) % self.num_classes
        if self.target_label_rule == "random":
            random = Philox(image_seeds(self.seed, batch.index), images, _TARGET_LABEL_STREAM)
            return (labels + random.integers(1, self.num_classes)) % self.num_classes
        if self.target_label_rule == "least_likely":
            source = getattr(self.source, "undefended", self.source)  # it predicts without chance
            with self.arithmetic(images.device.type):  # as for gradients
                logits = source(images).float()
            others = logits.scatter(1, labels[:, None], torch.inf)
            return others.argmin(dim=1)
        chosen = [self.data_target_labels[number] for number in batch.index.tolist()]
        return torch.tensor(chosen, device=labels.device)


@contextmanager
def refused_calls(networks: Sequence[nn.Module], source: nn.Module) -> Iterator[None]:
    """Raise a ValueError if a layer ran that shares weights with a network, but not the source.

    This finds the networks themselves and copies of them.
    """
    marks, called = set().union(*map(_marks, networks)) - _marks(source), set[tuple[Any, ...]]()

    def note(layer: nn.Module, _: Any) -> None:
        called.update(marks & _marks(layer, recurse=False))

    with register_module_forward_pre_hook(note):
        yield
    if called:
        raise ValueError("it calls a target network. An attack may use the source alone.")


def _marks(network: nn.Module, recurse: bool = True) -> set[tuple[Any, ...]]:
    """Return the shape and first numbers of each matrix of weights in a network."""
    weights = (weight.detach() for weight in network.parameters(recurse) if weight.ndim > 1)
    return {(weight.shape, *weight.flatten()[:8].tolist()) for weight in weights}


def accepted(attack: Attack) -> tuple[str, ...]:
    """Return the keyword arguments in `PROGRAM_KEYWORDS` that an attack accepts."""
    parameters: Mapping[str, Any] = inspect.signature(attack).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return tuple(word for word in PROGRAM_KEYWORDS if takes_all or word in parameters)


def keeps_images_apart(attack: Attack) -> bool:
    """Return True if an image's result depends neither on other images nor on other budgets.

    Attacks of `src.attacks` guarantee this. Other attacks declare it by a keyword `seeds`, from
    which they must draw; a keyword that `functools.wraps` has copied declares nothing. Classes of
    other libraries draw for a batch as a whole.
    """
    function = getattr(attack, "func", attack)
    others = getattr(function, "draws_per_batch", False) or inherits_statements(function)
    return "seeds" in inspect.signature(attack).parameters and not others
