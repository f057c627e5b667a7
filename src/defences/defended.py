"""Models behind a defence: targets, and sources with the gradients of an adaptive attack."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import PerImageRandom, Philox, image_seeds
from ..utils import stopping
from ..utils.devices import named_errors

Defence = Callable[..., Tensor]
"""Function from images in [0, 1], float (N, 3, H, W), to images in [0, 1] of the same shape.

An argument `random` receives a `src.attacks.Philox` for the N images. A result without a useful
gradient must be detached. A defence with a method `classify(classifier, images, random)` wraps the
target: it returns logits (N, C), and abstains with rows of NaN.
"""
_STREAM = 16  # first repetition; separate from attacks, noise and target labels
_TOLERANCE = 1e-6


class Defended(nn.Module):
    """Target behind a defence, whose random numbers depend only on seed, image and repetition.

    Args:
        classifier: Images in [0, 1], shape (N, 3, H, W), to logits (N, C).
        repeats: Number of draws of a randomised defence.
        name: Name of the defence, for messages; None: the name of its class.

    Attributes:
        randomised: True if the defence draws random numbers.
    """

    def __init__(
        self,
        classifier: nn.Module,
        defence: Defence,
        repeats: int = 1,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__()
        self.classifier, self.defence, self.seed = classifier, defence, seed
        self.name = name or type(defence).__name__
        self.classify = getattr(defence, "classify", None)
        self.randomised = takes_random(self.classify or defence)
        self.repeats = repeats if self.randomised else 1

    def forward(self, images: Tensor, index: Tensor) -> Tensor:
        """Return the logits (R, N, C) of R repetitions; `index`, (N,), identifies the images.

        Raises:
            ValueError: The defence fails, or it does not return images in [0, 1] (or logits
                (N, C)), or the target's logits are not finite.
        """
        return classify_behind([self], images, index)[0]

    def mean_change(self, images: Tensor, index: Tensor) -> float:
        """Return the mean absolute change of images; NaN for a defence with its own `classify`."""
        if self.classify is not None:
            return math.nan
        random = Philox(image_seeds(self.seed, index), images, _STREAM)
        return float((defend(self.defence, self.name, images, random) - images).abs().mean())

    def vote(self, images: Tensor, random: Philox) -> Tensor:
        """Return the logits (N, C) of a defence with its own `classify`."""
        assert self.classify is not None
        votes = _call(partial(self.classify, self.classifier), self.name, images, random)
        if not isinstance(votes, Tensor) or votes.ndim != 2 or len(votes) != len(images):
            raise ValueError(
                f"defence={self.name}: classify must return logits ({len(images)}, classes), "
                f"not {_describe(votes)}."
            )
        return votes

    def defend(self, images: Tensor, index: Tensor, random: Philox) -> Tensor:
        """Return the images behind the defence, checked to be in [0, 1]."""
        defended = defend(self.defence, self.name, images, random)
        inside = (defended >= -_TOLERANCE) & (defended <= 1 + _TOLERANCE)  # NaN is not
        if outside := index[~inside.flatten(1).all(dim=1)].tolist():
            raise ValueError(
                f"defence={self.name} returns NaN or values outside [0, 1] for image {outside[0]}."
            )
        return defended

    def logits(self, defended: Tensor, index: Tensor) -> Tensor:
        """Return the target's logits (N, C) for images behind the defence."""
        logits: Tensor = self.classifier(defended)
        if bad := index[~logits.isfinite().all(dim=1)].tolist():  # NaN would count as abstention
            raise ValueError(
                f"behind defence={self.name} the target returns NaN or infinity for image {bad[0]}."
            )
        return logits


def classify_behind(targets: Sequence[Defended], images: Tensor, index: Tensor) -> list[Tensor]:
    """Return the logits (R, N, C) of each of several targets behind the same defence.

    The defence is applied once per repetition for all targets, unless it votes by `classify`.
    """
    first, draws = targets[0], list[list[Tensor]]()
    for stream in range(_STREAM, _STREAM + first.repeats):
        stopping.raise_if_interrupted()
        randoms = (Philox(image_seeds(first.seed, index), images, stream) for _ in targets)
        if first.classify is not None:
            pairs = zip(targets, randoms, strict=True)
            draws.append([target.vote(images, random) for target, random in pairs])
        else:
            defended = first.defend(images, index, next(randoms))
            draws.append([target.logits(defended, index) for target in targets])
    return [torch.stack(logits) for logits in zip(*draws, strict=True)]


def takes_random(function: Callable[..., Any]) -> bool:
    """Return True if a function, or a module's `forward`, has an argument `random`."""
    return "random" in signature(getattr(function, "forward", function)).parameters


def defend(defence: Defence, name: str, images: Tensor, random: Philox | None) -> Tensor:
    """Apply a defence to images and check its result, of the images' shape and dtype."""
    defended = _call(defence, name, images, random)
    if not isinstance(defended, Tensor) or defended.shape != images.shape:
        raise ValueError(
            f"defence={name} must return a tensor {tuple(images.shape)}, not {_describe(defended)}."
        )
    return defended.to(images.dtype)


def _describe(output: object) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__


def _call(function: Callable[..., Any], name: str, images: Tensor, random: Philox | None) -> Any:
    """Call a defence with copies of images, and name it in any error that it raises."""
    keywords = {"random": random} if takes_random(function) else {}
    with named_errors(f"defence={name}"):
        return function(images.clone(), **keywords)


class AttackedDefence(nn.Module):
    """Source behind a defence, with the gradients of an adaptive attack.

    A defence whose result has no gradient is differentiated as the identity (BPDA). For a
    randomised defence, losses are averaged over `draws` (EOT), which all budgets of an image share.
    For a defence that votes by `classify`, probabilities are averaged instead, and the loss is that
    of the logarithm of their mean (SmoothAdv).

    Reference: Athalye, Carlini, Wagner (2018), arXiv 1802.00420; Athalye et al. (2018),
    arXiv 1707.07397; Salman et al. (2019), arXiv 1906.04584, equation 6.
    """

    def __init__(
        self, classifier: nn.Module, defence: Defence, draws: int = 1, name: str | None = None
    ) -> None:
        super().__init__()
        self.classifier, self.defence = classifier, defence
        self.name = name or type(defence).__name__
        self.randomised = takes_random(defence)
        self.draws = draws if self.randomised else 1
        self._seeds: Tensor | None = None
        self._budgets = 1

    @property
    def undefended(self) -> nn.Module:
        """The model without the defence."""
        return self.classifier

    @property
    def members(self) -> list[Callable[[Tensor], Tensor]]:
        """The ensemble's members, or the model alone, each behind the defence."""
        members = getattr(self.classifier, "members", None) or [self.classifier]
        return [partial(self._logits, member) for member in members]

    def draw(self, random: PerImageRandom, budgets: int) -> None:
        """Draw random numbers for the next gradient; see `src.attacks.BackwardRule`."""
        if self.randomised:
            self._seeds, self._budgets = random.integers(0, 2**31), budgets

    def forward(self, images: Tensor) -> Tensor:
        """Return logits for images (B, 3, H, W): (B, C), or (draws, B, C) for several draws.

        For several draws of a defence that votes, return the logarithm of the mean probabilities,
        (B, C).

        Raises:
            ValueError: The defence fails, or it is randomised and `draw` was not called for these
                images.
        """
        return self._logits(getattr(self.classifier, "attacked", self.classifier), images)

    def _logits(self, classifier: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        logits = [classifier(self._defend(images, number)) for number in range(self.draws)]
        if self.draws == 1:
            return logits[0]
        if hasattr(self.defence, "classify"):
            return torch.stack(logits).log_softmax(-1).logsumexp(0) - math.log(self.draws)
        return torch.stack(logits).flatten(0, -3)  # one axis of draws and of an ensemble's members

    def _defend(self, images: Tensor, number: int) -> Tensor:
        random = None
        if self.randomised:
            seeds = self._seeds
            if seeds is not None and len(images) == len(seeds) * self._budgets:
                seeds = seeds.repeat(self._budgets)
            if seeds is None or len(seeds) != len(images):  # clean images may have no budgets
                raise ValueError(
                    f"defence={self.name} is randomised: attack through it with this program's "
                    f"attacks and source_defence={self.name}. Your own function must call the "
                    "model's draw(random, budgets) before each gradient."
                )
            random = Philox(seeds, images, number)
        defended = defend(self.defence, self.name, images, random)
        # The difference is 0, with the gradient of the identity.
        return defended if defended.requires_grad else defended + (images - images.detach())
