import math

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from src.attacks.define import attack
from src.attacks.parts import Gradient, State
from src.attacks.projection import direction
from src.attacks.source import Source
from src.attacks.zoo.backward.token_gradient import TokenGradient
from src.utils.checked_dataclass import Share, checked


@checked
class PatchOut:
    """Take the gradient of L(x + M * delta) + length_weight * ||delta||_2.

    delta is the perturbation so far. M is 1 on a share of the patches, drawn per image and step,
    and 0 elsewhere.

    Args:
        kept: Share of the patches with M = 1; their number is rounded.
        patches: Number of patches along a side; None: as the source's transformer cuts images.
        length_weight: Weight of the perturbation's L2 norm, in [0, 1] units.

    Reference: Wei et al. (2022), arXiv 2109.04176 (there 130 of 14 x 14 patches, and 0.1).

    Deviation: on networks other than ViT-B/16 at 224 pixels, the patches are the network's own. The
    norm is per image (authors: of the batch, added to its mean loss).
    """

    kept: Share = 0.6633
    patches: PositiveInt | None = None
    length_weight: NonNegativeFloat = 0.1

    def __call__(self, gradient: Gradient, state: State) -> Tensor:
        delta = state.at - state.images
        patches = self.patches or _count_patches(state.source)
        chosen = state.random.permutations(patches**2) < round(self.kept * patches**2)
        grid = chosen.to(delta).unflatten(1, (1, patches, patches))
        mask = functional.interpolate(grid, delta.shape[-2:])
        outwards = direction(delta, "l2") / math.sqrt(math.prod(delta.shape[2:]))
        return mask * gradient(state.images + mask * delta) + self.length_weight * outwards


def _count_patches(source: Source) -> int:
    """Return the number of patches along a side of the source's transformers, as timm states it."""
    modules = source.model.modules() if isinstance(source.model, nn.Module) else ()
    sides = {grid[0] for module in modules if (grid := getattr(module, "grid_size", None))}
    if len(sides) != 1:
        raise ValueError(
            "attack.patches=null: the source states no patches. Set their number along a side."
        )
    return int(sides.pop())


@attack(
    fixed=["qkv", "mlp", "drop_extremes"],
    estimator=PatchOut,
    backward_rule=TokenGradient,
    decay=1.0,
    attention=0.0,
    qkv=1.0,
    mlp=1.0,
    drop_extremes=False,
    gradients=lambda n: n.budgets * n.steps,
    needs="attention",
)
def pna_patchout() -> None:
    """Keep attention maps constant, and use some patches per step: PNA with PatchOut.

    PNA is `tgr` with all tokens, and with the factors 0 for attention and 1 for the rest. It has
    momentum.
    """
