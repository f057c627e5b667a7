"""The target label's logit as the loss."""

from src.attacks.define import attack
from src.attacks.zoo.input.diverse_input import DiverseInput


@attack(
    transform=DiverseInput,
    loss="logit",
    steps=300,
    relative_step_size=0.125,
    decay=1.0,
    normalised=False,
    probability=0.7,
    kernel_size=5,
    targeted="only",
)
def logit_mi_di_ti() -> None:
    """Raise the target's logit in 300 steps of `mi_di_ti`: gradients are not normalised.

    Reference: Zhao, Liu, Larson (2021), arXiv 2012.11207.

    Deviation: steps of eps / 8 at every budget (authors: of 2/255 at 16/255).
    """
