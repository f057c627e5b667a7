from collections.abc import Iterator
from typing import Annotated

from annotated_types import MinLen
from pydantic import PositiveInt, Strict
from torch import Tensor
from torch.nn.functional import pad

from src.attacks.define import attack
from src.attacks.parts import Problem
from src.attacks.zoo.feature.weighted_features import Score, WeightedFeatures
from src.utils.checked_dataclass import Share, checked


@checked
class RandomPatch(WeightedFeatures):
    """Lower what raises the true class's logit in images with random patches; see `fia`.

    The weights come from x * R_i: R_i is 1 but in patches, where each value is from U(0, 1). The
    patches of one R_i have one size, the next of `sizes`, in turn. Each value is a patch of size 1
    with the `probability`. Larger ones are that share, rounded down, of the whole squares that a
    grid from the top left corner cuts a channel into, each channel by itself.

    Args:
        masks: Number of images with patches, x * R_i.
        probability: Share of the patches that are changed.
        score: `logit` of the class or its `probability`, whose gradients the weights are.
        sizes: Sides of the patches in pixels.

    Reference: Zhang et al.: Enhancing the Transferability of Adversarial Examples with Random Patch
    (2022), IJCAI 2022, https://www.ijcai.org/proceedings/2022/233

    Deviation: the patches take all four sizes (authors' code: size 1 alone, since its test for it
    always holds). Target labels and members as in `fia`.
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
        """Return True where a patch is, (N, 3, H, W)."""
        images, channels, height, width = problem.images.shape
        if size == 1:
            return problem.random.uniform(channels, height, width) < self.probability
        cells = (channels, height // size, width // size)
        count = cells[0] * cells[1] * cells[2]
        chosen = problem.random.permutations(count) < int(self.probability * count)
        wide = chosen.view(images, *cells).repeat_interleave(size, 2).repeat_interleave(size, 3)
        return pad(wide, (0, width % size, 0, height % size))


@attack(objective=RandomPatch, decay=1.0, gradients="masks + 1 + K * (steps - 1)")
def rpa() -> None:
    """Important features at a layer, by random patches: RPA, with momentum."""
