import math
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from src.attacks import Philox, image_seeds
from src.utils.arithmetic import is_out_of_memory
from src.utils.refusals import first_line

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
    try:
        return function(images.clone(), **keywords)
    except Exception as error:  # a user's defence may raise anything
        if is_out_of_memory(error):
            raise
        error_type = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"defence={name}: {error_type}{first_line(error)}") from error
