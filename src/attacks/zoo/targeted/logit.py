"""The target's logit as loss."""

from src.attacks.define import published
from src.attacks.zoo.input.diverse_input import DiverseInput


@published(
    transform=DiverseInput,
    loss="logit",
    steps=300,
    relative_step_size=0.125,
    decay=1.0,
    normalised=False,
    probability=0.7,
    kernel_size=5,
)
def logit_mi_di_ti() -> None:
    """Targeted preset: the target's logit with `mi_di_ti`, 300 steps and unnormalised momentum.

    Reference: Zhao, Liu, Larson (2021), arXiv 2012.11207.

    Deviation: steps of eps / 8 at every budget (authors: of 2/255 at 16/255).
    """
