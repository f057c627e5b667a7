import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from src.attacks import PerImageRandom, Philox
from src.defences.defended_target import Defence, defend, takes_random


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

    @property
    def members(self) -> list[Callable[[Tensor], Tensor]]:
        """The ensemble's members, or the model alone, each behind the defence."""
        members = getattr(self.classifier, "members", None) or [self.classifier]
        return [partial(self._logits, member) for member in members]

    def draw(self, random: PerImageRandom, budgets: int) -> None:
        """Draw random numbers for the next gradient; see `src.attacks.BackwardRule`."""
        if self.randomised:
            self._seeds = random.integers(0, 2**31).repeat(budgets)

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
            if self._seeds is None or len(self._seeds) != len(images):
                raise ValueError(
                    f"defence={self.name} is randomised: attack through it with this program's "
                    f"attacks and source_defence={self.name}. Your own function must call the "
                    "model's draw(random, budgets) before each gradient."
                )
            random = Philox(self._seeds, images, number)
        defended = defend(self.defence, self.name, images, random)
        # The difference is 0, with the gradient of the identity.
        return defended if defended.requires_grad else defended + (images - images.detach())
