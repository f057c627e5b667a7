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
    """Lower features that matter under random patches: RPA, with momentum."""
